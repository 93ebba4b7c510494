"""The dedup of keys table by table."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")


def _dedup_twin(keys, feature_splits, tables):
    unique_keys, inverse, counts, table_splits = [], np.zeros(len(keys), np.int32), [], [0]
    for table in range(max(tables) + 1):
        positions = [
            n for f, t in enumerate(tables) if t == table for n in range(feature_splits[f], feature_splits[f + 1])
        ]
        table_keys, table_inverse, table_counts = reference.key_dedup(np.asarray(keys)[positions])
        inverse[positions] = table_inverse + table_splits[-1]
        unique_keys.append(table_keys)
        counts.append(table_counts)
        table_splits.append(table_splits[-1] + len(table_keys))
    return np.concatenate(unique_keys), inverse, np.concatenate(counts), np.array(table_splits)


def _assert_dedup(keys, feature_splits, tables, function=key_dedup_by_table):
    got = function(np.array(keys, np.int64), np.array(feature_splits, np.int64), tables)
    want = _dedup_twin(keys, feature_splits, tables)
    for name, dtype, g, w in zip(("unique_keys", "inverse", "counts", "table_splits"), "qiiq", got, want, strict=True):
        assert g.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(g, w, err_msg=name)
    return got


TABLES = {
    "one_feature": [0],
    "one_table": [0, 0, 0],
    "a_table_each": [0, 1, 2],
    "in_another_order": [2, 0, 1],
    "not_adjacent": [0, 1, 0, 2, 1, 0],
    "a_table_without_features": [0, 2, 2, 0],
    "the_first_table_without_features": [1, 1],
}


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("mode", MODES)
def test_unique_keys_table_by_table(case, mode, rng):
    tables = TABLES[case]
    function = key_dedup_by_table if mode == "eager" else tf.function(key_dedup_by_table)
    for _ in range(10 if mode == "eager" else 2):
        sizes = rng.integers(0, 40, len(tables))
        feature_splits = np.concatenate([[0], np.cumsum(sizes)])
        _assert_dedup(rng.integers(-9, 9, feature_splits[-1]), feature_splits, tables, function)


def test_the_same_key_on_two_tables_is_two_keys():
    unique_keys, inverse, counts, table_splits = _assert_dedup([7, 8, 7, 7, 9, 7], [0, 2, 4, 5, 6], [0, 1, 0, 1])
    np.testing.assert_array_equal(unique_keys, [7, 8, 9, 7])
    np.testing.assert_array_equal(inverse, [0, 1, 3, 3, 2, 3])
    np.testing.assert_array_equal(counts, [1, 1, 1, 3])
    np.testing.assert_array_equal(table_splits, [0, 3, 4])


@pytest.mark.parametrize("sizes", [(0, 0, 0), (0, 4, 0), (4, 0, 0), (0, 0, 4)], ids=str)
def test_a_dedup_of_features_without_keys(sizes):
    feature_splits = np.concatenate([[0], np.cumsum(sizes)])
    for tables in ([0, 0, 0], [0, 1, 2], [1, 0, 1], [2, 1, 0]):
        _assert_dedup([5, 5, 6, 5][: feature_splits[-1]], feature_splits, tables)


def test_extreme_keys_of_several_tables():
    keys = np.tile(reference.EXTREME_KEYS, 6)
    _assert_dedup(keys, range(0, 25, 4), [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("tables", [[0, 0], [0, 1], [1, 0]], ids=str)
def test_a_dedup_large_enough_to_be_sharded(tables, rng):
    keys = rng.zipf(1.2, 400_000) * 0x9E3779B97F4A7C1
    _assert_dedup(keys, [0, 150_000, 400_000], tables)


def test_the_dedup_of_one_feature_is_embedding_key_dedup(rng):
    keys = rng.integers(0, 50, 300)
    got = key_dedup_by_table(tf.constant(keys), None, [0])
    for g, w in zip(got, tse.ops.embedding_key_dedup(keys), strict=False):
        np.testing.assert_array_equal(g, w)
    np.testing.assert_array_equal(got[3], [0, len(np.unique(keys))])


def test_shape_function_of_the_dedup():
    seen = []

    def call(keys, splits):
        seen.append([tensor.shape.as_list() for tensor in key_dedup_by_table(keys, splits, [0, 2, 0])])

    for keys, splits, inverse in (([6], [4], [6]), ([None], [None], [None]), (None, None, [None])):
        specs = [tf.TensorSpec(keys, tf.int64), tf.TensorSpec(splits, tf.int64)]
        tf.function(call, input_signature=specs).get_concrete_function()
        assert seen[-1] == [[None], inverse, [None], [4]]


BAD_FEATURE_SPLITS = {
    "do_not_start_at_0": [1, 2, 3],
    "do_not_end_at_n": [0, 1, 2],
    "end_past_n": [0, 1, 4],
    "descend": [0, 4, 3],
    "too_short": [0, 3],
    "too_long": [0, 1, 2, 3],
    "rank_2": [[0, 1, 3]],
}


@pytest.mark.parametrize("case", BAD_FEATURE_SPLITS)
@pytest.mark.parametrize("mode", MODES)
def test_bad_feature_splits_are_an_error(case, mode):
    splits = tf.constant(BAD_FEATURE_SPLITS[case], tf.int64)
    call = key_dedup_by_table if mode == "eager" else tf.function(key_dedup_by_table)
    with pytest.raises(BAD_ARGUMENT, match="feature_splits|Dimension must be 3|rank 1"):
        call(tf.constant([7, 8, 9], tf.int64), splits, [0, 1])
