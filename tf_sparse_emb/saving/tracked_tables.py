"""The tables that an object holds, by their place in TensorFlow's graph of objects."""

import collections

import keras
import tensorflow as tf

from tf_sparse_emb.table_resource import TableResource


def find_tables(root):
    """Returns {path: TableResource} of all tables under `root`, a path being the names of children from there on.

    Of several paths the shortest counts. Optimizers are passed over: they hold tables that are others', and only when
    they have been built.
    """
    view = tf.train.TrackableView(root)
    tables, seen, waiting = {}, {id(root)}, collections.deque([((), root)])
    while waiting:
        path, parent = waiting.popleft()
        for name, child in view.children(parent).items():
            if id(child) in seen or isinstance(child, keras.optimizers.Optimizer):
                continue
            seen.add(id(child))
            if isinstance(child, TableResource):
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
    return found if isinstance(found, TableResource) else None
