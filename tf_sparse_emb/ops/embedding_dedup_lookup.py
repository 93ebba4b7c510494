"""EmbeddingDedupLookup: the unique keys of a batch and their rows, by one op."""

from typing import NamedTuple

import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table
from tf_sparse_emb.ops.embedding_lookup import (
    check_missing,
    check_table,
    lookup_tables,
    servers_of,
    table_gradients,
)
from tf_sparse_emb.ops.keys import as_keys


class DedupLookup(NamedTuple):
    """What `embedding_dedup_lookup` returns."""

    unique_keys: tf.Tensor
    inverse: tf.Tensor
    counts: tf.Tensor
    rows: tf.Tensor


def embedding_dedup_lookup(table, keys, *, insert=False, missing="initial"):
    """Finds the unique keys of a batch and looks them up: `embedding_key_dedup` and `embedding_lookup` in one.

    The results are those of the two. It takes less time, because rows of the keys that are found first are read while
    the others are found, unless the batch is so large that several threads find them. The gradient of `rows` reaches
    the table's variable as `tf.IndexedSlices(grad, unique_keys)`.

    >>> table = tse.EmbeddingVariable(4)
    >>> found = tse.ops.embedding_dedup_lookup(table, [30, 10, 30, 20], insert=True)
    >>> found.unique_keys, found.inverse, found.rows.shape
    ([30, 10, 20], [0, 1, 0, 2], TensorShape([3, 4]))

    Args:
        table: `tse.EmbeddingVariable` of width D.
        keys: int32, int64 or string [N], N < 2^31.
        insert: bool, default False. Insert missing keys with their initial rows. A row beyond the table's `max_norm` is
            scaled, with `insert` in the table, without in the output alone.
        missing: "initial" (default) or "zeros": what a missing key reads as when it is not inserted.

    Returns:
        `DedupLookup(unique_keys, inverse, counts, rows)`: int64 [U], int32 [N], int32 [U], float32 [U, D].

    Raises:
        TypeError: if `table` is no table or keys are of another dtype.
        ValueError: if `missing` is another word.
        ValueError, tf.errors.InvalidArgumentError: if keys are not of rank 1.
        tf.errors.InvalidArgumentError: if a key is outside [0, input_dim) of a bounded table.
        tf.errors.ResourceExhaustedError: if the table would grow beyond its `max_rows`.
    """
    check_table(table)
    check_missing(missing)
    unique_keys, inverse, counts, _, rows = dedup_lookup_tables(
        [table], as_keys(keys), None, [0], insert=insert, missing=missing
    )
    return DedupLookup(unique_keys, inverse, counts, rows)


def dedup_lookup_tables(tables, keys, feature_splits, feature_tables, *, insert, missing):
    """The same for the keys of several features on several tables of one width, table by table.

    Args:
        keys, feature_splits, feature_tables: see `key_dedup_by_table`.

    Returns:
        unique_keys, inverse, counts, table_splits, and rows [U, D].
    """
    if servers_of(tables) is None:
        return library.sparse_emb_embedding_dedup_lookup(
            tables=[table.shards[0].resource_handle for table in tables],
            keys=keys,
            feature_splits=[] if len(feature_tables) == 1 else [feature_splits],
            anchors=[table.value for table in tables],
            feature_tables=feature_tables,
            insert=insert,
            missing=missing,
        )
    # Before anything is sent to the servers.
    unique_keys, inverse, counts, table_splits = key_dedup_by_table(keys, feature_splits, feature_tables)
    rows = lookup_tables(tables, unique_keys, table_splits, insert=insert, missing=missing, keys_differ=True)
    return unique_keys, inverse, counts, table_splits, rows


@tf.RegisterGradient("SparseEmb>EmbeddingDedupLookup")
def _embedding_dedup_lookup_gradient(op, *grads):
    unique_keys, _, _, table_splits, _ = op.outputs
    return table_gradients(op, unique_keys, table_splits, grads[4], keys_differ=True)
