"""How TensorFlow's checkpoints hold tables: in parts, streamed by C++.

A trackable object would otherwise hand over its state as tensors, a second copy of the whole table in memory. Only a
registered saver may write its part of a checkpoint itself; registering one has no public name in TensorFlow 2.21, hence
the private import, the package's only one.
"""

import tensorflow as tf
from tensorflow.python.saved_model import registration

from tf_sparse_emb.sharded_table import ShardedTable
from tf_sparse_emb.table_resource import TableResource


def _save(trackables, file_prefix):
    """Writes each table to files of its own, which TensorFlow merges into the checkpoint."""
    # In a folder, as TensorFlow's own parts: it removes the folder when it has merged them.
    prefixes = [tf.strings.join([file_prefix, f"_temp/part-{i}"]) for i in range(len(trackables))]
    writes = [
        table.save_bundle(prefix, _key(name))
        for prefix, (name, table) in zip(prefixes, trackables.items(), strict=True)
    ]
    with tf.control_dependencies([write for write in writes if write is not None]):
        return [tf.identity(prefix) for prefix in prefixes]


def _restore(trackables, merged_prefix):
    for name, table in trackables.items():
        table.load_bundle(merged_prefix, _key(name))


def _key(name):
    """Where the tensors of the object with this name in the checkpoint stand."""
    return f"{name}/.ATTRIBUTES"


def _is_table(trackable):
    """Whether an object is a table; TensorFlow asks of every one before it saves or restores any."""
    if isinstance(trackable, ShardedTable):
        # Restored on another number of servers, it would have lost rows.
        trackable.refuse("saved in or restored from a tf.train.Checkpoint")
    return isinstance(trackable, TableResource)


registration.register_checkpoint_saver(
    package="tf_sparse_emb",
    name="Table",
    predicate=_is_table,
    save_fn=_save,
    restore_fn=_restore,
)
