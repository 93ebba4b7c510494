"""EmbeddingPartition: the keys and rows of tables that are spread over servers."""

from typing import NamedTuple

import tensorflow as tf

from tf_sparse_emb.gen_ops import library


class Partition(NamedTuple):
    """The keys [N] of tables, server by server.

    Attributes:
        keys: list of S tensors, int64 [N_s].
        table_splits: list of S tensors, int64 [T + 1]: where the keys of each table stand among a server's.
        positions: list of S tensors, int32 [N_s]: where a server's keys stand among all.
    """

    keys: list[tf.Tensor]
    table_splits: list[tf.Tensor]
    positions: list[tf.Tensor]


def partition_keys(keys, table_splits, num_tables, num_servers):
    """Returns the `Partition` of keys int64 [N]; table_splits [T + 1] says whose keys stand where."""
    splits = [] if num_tables == 1 else [table_splits]
    return Partition(
        *library.sparse_emb_embedding_partition(
            keys=keys, table_splits=splits, num_tables=num_tables, num_servers=num_servers
        )
    )


def partition_rows(rows, positions):
    """Returns rows float32 [N, D] server by server, as a list; the positions are those of a `Partition`."""
    return library.sparse_emb_embedding_partition_rows(rows=rows, positions=positions)


def stitch(parts, positions, num_keys):
    """Returns what the servers have of keys, [N_s, ...] each, in the order of the keys [N]."""
    indices = tf.concat(positions, 0)[:, tf.newaxis]
    values = tf.concat(parts, 0)
    if values.dtype == tf.bool:
        return tf.cast(stitch([tf.cast(part, tf.int32) for part in parts], positions, num_keys), tf.bool)
    return tf.scatter_nd(indices, values, tf.concat([[num_keys], tf.shape(values)[1:]], 0))
