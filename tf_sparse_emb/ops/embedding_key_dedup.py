"""EmbeddingKeyDedup: the unique keys of a batch."""

from typing import NamedTuple

import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.ops.keys import as_keys


class KeyDedup(NamedTuple):
    """What `embedding_key_dedup` returns."""

    unique_keys: tf.Tensor
    inverse: tf.Tensor
    counts: tf.Tensor


def embedding_key_dedup(keys):
    """Finds the unique keys of a batch, in order of first occurrence.

    `unique_keys[inverse[n]] == keys[n]` for every n. Works in eager mode, in `tf.function` and in `tf.data`.

    >>> tse.ops.embedding_key_dedup([30, 10, 30, 20])
    KeyDedup(unique_keys=[30, 10, 20], inverse=[0, 1, 0, 2], counts=[2, 1, 1])

    Args:
        keys: int32, int64 or string [N], N < 2^31. Every int64 is a key; strings are fingerprinted.

    Returns:
        `KeyDedup(unique_keys, inverse, counts)`: int64 [U], int32 [N], int32 [U].

    Raises:
        TypeError: if keys are of another dtype.
        ValueError, tf.errors.InvalidArgumentError: if keys are not of rank 1.
    """
    return KeyDedup(*library.sparse_emb_embedding_key_dedup(keys=as_keys(keys), feature_splits=[])[:3])


def key_dedup_by_table(keys, feature_splits, tables):
    """The same for the keys of several features on several tables, table by table.

    Args:
        keys: int64 [N].
        feature_splits: int64 [F + 1]: the keys of feature f stand from feature_splits[f] to feature_splits[f + 1] - 1.
        tables: list of F ints, the number of each feature's table.

    Returns:
        unique_keys, inverse, counts, and table_splits int64 [T + 1]: where the unique keys of each table stand.
    """
    splits = [] if len(tables) == 1 else [feature_splits]
    return library.sparse_emb_embedding_key_dedup(keys=keys, feature_splits=splits, tables=tables)


def split_by_table(values, table_splits, num_tables):
    """Returns values [U, ...] as a list of those of each table; table_splits [T + 1] says where they stand."""
    if num_tables == 1:
        return [values]
    return tf.split(values, table_splits[1:] - table_splits[:-1], num=num_tables)


tf.no_gradient("SparseEmb>EmbeddingKeyDedup")
