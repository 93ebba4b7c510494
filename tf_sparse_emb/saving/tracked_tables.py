"""What hangs on objects, and where in TensorFlow's graph of objects the tables do."""

import collections

import keras
import tensorflow as tf

from tf_sparse_emb.sharded_table import ShardedTable
from tf_sparse_emb.table_resource import TableResource

_TABLES = (TableResource, ShardedTable)


def checkpoint_of(trackables):
    """Returns a `tf.train.Checkpoint` of these objects, by name, with all variables of their layers.

    TensorFlow does not see what Keras finds in a list or dict of layers, and would leave it out. Such variables hang on
    `out_of_sight`, by the name of the object and their place among its variables.
    """
    checkpoint = tf.train.Checkpoint(**trackables)
    seen = {id(child) for child in tf.train.TrackableView(checkpoint).descendants()}
    out_of_sight = {
        f"{name}.{i}": variable
        for name, trackable in trackables.items()
        if isinstance(trackable, keras.Layer)
        for i, variable in enumerate(trackable.variables)
        if not seen & {id(variable), id(variable.value)}
    }
    if not out_of_sight:
        return checkpoint
    return tf.train.Checkpoint(**trackables, out_of_sight=tf.train.Checkpoint(**out_of_sight))


def find_tables(root):
    """Returns {path: table} of all tables under `root`, a path being the names of children from there on.

    A table is a `TableResource` or a `ShardedTable`. Of several paths the shortest counts. Optimizers are passed over:
    they hold tables that are others', and only when they have been built.
    """
    view = tf.train.TrackableView(root)
    tables, seen, waiting = {}, {id(root)}, collections.deque([((), root)])
    while waiting:
        path, parent = waiting.popleft()
        for name, child in view.children(parent).items():
            if id(child) in seen or isinstance(child, keras.optimizers.Optimizer):
                continue
            seen.add(id(child))
            if isinstance(child, _TABLES):
                tables[(*path, name)] = child
            else:
                waiting.append(((*path, name), child))
    return tables


def table_at(root, path):
    """Returns the table at a path, or None."""
    view, found = tf.train.TrackableView(root), root
    for name in path:
        found = view.children(found).get(name)
        if found is None:
            return None
    return found if isinstance(found, _TABLES) else None
