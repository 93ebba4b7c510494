"""EmbeddingBags, the dedup table by table and the lookup in several tables: what many features share."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.ops.embedding_bags import FeatureKeys, embedding_bags
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table
from tf_sparse_emb.ops.embedding_lookup import lookup_tables

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
KINDS = ("each", "last_axis", "ragged")
MODES = ("eager", "graph")


# EmbeddingBags.


def _bags_of(feature):
    """The bags of a feature: lists of (key, position among the feature's keys)."""
    shape = np.shape(feature.keys)
    flat = np.reshape(feature.keys, -1).tolist()
    if feature.kind == "each":
        splits = range(len(flat) + 1)
    elif feature.kind == "last_axis":
        splits = [b * shape[-1] for b in range(int(np.prod(shape[:-1])) + 1)]
    else:
        splits = np.asarray(feature.row_splits).tolist()
    return [[(flat[n], n) for n in range(a, b)] for a, b in zip(splits[:-1], splits[1:], strict=True)]


def _bags_twin(features):
    """keys, feature_splits, first_bags, bag_splits, kept."""
    keys, feature_splits, first_bags, bag_splits, kept = [], [0], [0], [0], []
    position = 0
    for feature in features:
        for bag in _bags_of(feature):
            for key, n in bag[: feature.max_length]:
                if key not in feature.skipped:
                    keys.append(key)
                    kept.append(position + n)
            bag_splits.append(len(keys))
        feature_splits.append(len(keys))
        first_bags.append(len(bag_splits) - 1)
        position += np.size(feature.keys)
    if all(feature.keeps_all for feature in features):
        kept = []
    return [np.array(x, np.int64) for x in (keys, feature_splits, first_bags, bag_splits, kept)]


def _feature(kind, keys, row_splits=None, name="f", **kwargs):
    if row_splits is not None:
        row_splits = np.array(row_splits, np.int64)
    return FeatureKeys(name, np.array(keys, np.int64), kind, row_splits, **kwargs)


def _random_feature(rng, kind, pool, **kwargs):
    """Up to 30 keys of `pool`, possibly none, in bags of which some are empty."""
    if kind == "ragged":
        n = rng.integers(0, 30)
        splits = np.sort(rng.integers(0, n + 1, rng.integers(0, 8)))
        return _feature(kind, rng.choice(pool, n), [0, *splits, n], **kwargs)
    shape = rng.integers(0, 5, rng.integers(1 if kind == "last_axis" else 0, 4))
    return _feature(kind, rng.choice(pool, shape), **kwargs)


def _assert_bags(features, function=embedding_bags):
    got, want = function(features), _bags_twin(features)
    for name, g, w in zip(got._fields, got, want, strict=True):
        assert g.dtype == tf.int64
        np.testing.assert_array_equal(g, w, err_msg=name)
    return got


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skipped", [(), (3,), (0, -1), (7, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("max_length", [None, 1, 3, 1000])
def test_the_keys_of_a_feature_in_bags(kind, skipped, max_length, rng):
    for _ in range(10):
        _assert_bags([_random_feature(rng, kind, np.arange(-2, 8), skipped=skipped, max_length=max_length)])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", MODES)
def test_several_features_stand_one_after_the_other(seed, mode):
    rng = np.random.default_rng(seed)
    features = [
        _random_feature(
            rng,
            rng.choice(KINDS),
            np.arange(-3, 6),
            name=f"f{f}",
            skipped=tuple(rng.choice(np.arange(-3, 6), rng.integers(0, 3), replace=False).tolist()),
            max_length=rng.choice([None, 1, 2, 5]),
        )
        for f in range(rng.integers(2, 9))
    ]
    _assert_bags(features, embedding_bags if mode == "eager" else tf.function(embedding_bags))


@pytest.mark.parametrize("mode", MODES)
def test_several_features_that_keep_all(mode, rng):
    features = [_random_feature(rng, kind, reference.EXTREME_KEYS) for kind in KINDS * 3]
    bags = _assert_bags(features, embedding_bags if mode == "eager" else tf.function(embedding_bags))
    np.testing.assert_array_equal(bags.keys, np.concatenate([f.keys.reshape(-1) for f in features]))
    assert bags.kept.shape == (0,)


@pytest.mark.parametrize("skipped", [(), (3,)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_without_splits_all_else_is_the_same(skipped, mode, rng):
    def call(features):
        bags = embedding_bags(features, with_splits=False)
        assert bags.bag_splits.shape == (0,)
        return bags

    for kinds in (KINDS * 2, *([kind] for kind in KINDS)):
        features = [_random_feature(rng, kind, np.arange(9), skipped=skipped) for kind in kinds]
        got, want = (call if mode == "eager" else tf.function(call))(features), embedding_bags(features)
        assert got.bag_splits.shape == (0,)
        for name in ("keys", "feature_splits", "first_bags", "kept"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)


def test_features_and_bags_stand_where_the_splits_say():
    features = [
        _feature("each", [[9, 8], [7, 6]]),
        _feature("last_axis", [[1, 0, 2], [0, 0, 0]], skipped=(0,)),
        _feature("ragged", [5, 5, 5, 4], [0, 3, 3, 4], max_length=2),
    ]
    bags = embedding_bags(features)
    np.testing.assert_array_equal(bags.keys, [9, 8, 7, 6, 1, 2, 5, 5, 4])
    np.testing.assert_array_equal(bags.feature_splits, [0, 4, 6, 9])
    np.testing.assert_array_equal(bags.first_bags, [0, 4, 6, 9])
    np.testing.assert_array_equal(bags.bag_splits, [0, 1, 2, 3, 4, 6, 6, 8, 8, 9])
    np.testing.assert_array_equal(bags.kept, [0, 1, 2, 3, 4, 6, 10, 11, 13])


def test_kept_says_where_each_key_stood(rng):
    features = [_random_feature(rng, kind, np.arange(9), skipped=(1, 2), max_length=3, name=kind) for kind in KINDS * 4]
    bags = embedding_bags(features)
    everything = np.concatenate([feature.keys.reshape(-1) for feature in features])
    assert 0 < len(bags.keys) < everything.size
    np.testing.assert_array_equal(everything[bags.kept], bags.keys)


def test_kept_is_given_for_all_features_if_one_leaves_keys_out():
    bags = embedding_bags([_feature("each", [5, 6]), _feature("each", [0, 7], skipped=(0,))])
    np.testing.assert_array_equal(bags.kept, [0, 1, 3])


def test_skipped_keys_count_towards_max_length():
    bags = embedding_bags([_feature("last_axis", [[0, 0, 1], [0, 2, 3]], skipped=(0,), max_length=2)])
    np.testing.assert_array_equal(bags.keys, [2])
    np.testing.assert_array_equal(bags.bag_splits, [0, 0, 1])


@pytest.mark.parametrize("kind, row_splits", [("last_axis", None), ("ragged", [0, 2, 3, 4])])
def test_the_greatest_max_length_leaves_nothing_out(kind, row_splits):
    keys = [[1, 2], [3, 4]] if kind == "last_axis" else [1, 2, 3, 4]
    for max_length in (2**31, 2**63 - 1):
        _assert_bags([_feature(kind, keys, row_splits, max_length=max_length)])


EMPTY = {
    "each": _feature("each", np.zeros(0)),
    "each_with_other_axes": _feature("each", np.zeros((2, 0, 3))),
    "no_bags": _feature("last_axis", np.zeros((0, 4))),
    "empty_bags": _feature("last_axis", np.zeros((4, 0))),
    "empty_bags_of_more_axes": _feature("last_axis", np.zeros((2, 3, 0))),
    "no_bags_of_more_axes": _feature("last_axis", np.zeros((2, 0, 3))),
    "no_ragged_bags": _feature("ragged", np.zeros(0), [0]),
    "empty_ragged_bags": _feature("ragged", np.zeros(0), [0, 0, 0]),
    "all_skipped": _feature("last_axis", np.full((3, 2), 4), skipped=(4,)),
    "all_but_no_keys_count": _feature("ragged", [4, 4], [0, 0, 2, 2], skipped=(4,), max_length=1),
}


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("others", [False, True])
def test_a_feature_without_keys(case, others):
    other = [_feature("ragged", [1, 2, 3], [0, 1, 3])] if others else []
    bags = _assert_bags([*other, EMPTY[case], *other])
    first, beyond = bags.first_bags[int(others)], bags.first_bags[int(others) + 1]
    assert beyond - first == len(_bags_of(EMPTY[case]))


def test_a_scalar_key_is_a_bag_of_its_own():
    bags = _assert_bags([_feature("each", 2**62), _feature("each", [1])])
    assert bags.keys.shape == (2,)


@pytest.mark.parametrize("kind, row_splits", [("each", None), ("last_axis", None), ("ragged", [0, 1, 4])])
def test_every_int64_is_a_key_and_can_be_skipped(kind, row_splits):
    _assert_bags([_feature(kind, reference.EXTREME_KEYS, row_splits)])
    for skipped in reference.EXTREME_KEYS.tolist():
        bags = _assert_bags([_feature(kind, reference.EXTREME_KEYS, row_splits, skipped=(skipped,))])
        assert len(bags.keys) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_bags_outlive_a_change_of_the_keys_they_were_made_of(kind, mode):
    """A single feature that keeps all keys lends its buffer: nobody may write to it."""
    keys = tf.Variable(tf.range(6, dtype=tf.int64))
    row_splits = tf.Variable([0, 2, 6], dtype=tf.int64) if kind == "ragged" else None

    def call():
        features = [FeatureKeys("f", keys.read_value(), kind, row_splits)]
        bags = embedding_bags(features)
        keys.assign_add(tf.fill([6], tf.constant(100, tf.int64)))
        keys.scatter_nd_update([[0]], [tf.constant(-5, tf.int64)])
        return bags.keys, bags.keys + 1, bags.bag_splits

    for first in (range(6), [-5, 101, 102, 103, 104, 105]):
        if mode == "graph":
            call = tf.function(call)
        got, more, splits = call()
        np.testing.assert_array_equal(got, list(first))
        np.testing.assert_array_equal(more, np.array(first) + 1)
        np.testing.assert_array_equal(splits, {"each": range(7), "last_axis": [0, 6], "ragged": [0, 2, 6]}[kind])


def test_an_intermediate_that_lends_its_buffer_keeps_its_value():
    @tf.function
    def call(keys):
        keys = keys * 2
        bags = embedding_bags([FeatureKeys("f", keys, "last_axis")])
        # Each could run in place on the buffer of `keys`, were it the only one to hold it.
        return bags.keys, keys + 1, bags.keys - 1, tf.bitwise.invert(keys)

    keys = np.arange(12).reshape(3, 4)
    got, plus, minus, inverted = call(tf.constant(keys))
    np.testing.assert_array_equal(got, 2 * keys.reshape(-1))
    np.testing.assert_array_equal(plus, 2 * keys + 1)
    np.testing.assert_array_equal(minus, 2 * keys.reshape(-1) - 1)
    np.testing.assert_array_equal(inverted, ~(2 * keys))


def test_bags_in_a_tf_data_pipeline():
    dataset = tf.data.Dataset.from_tensor_slices(np.arange(24, dtype=np.int64).reshape(4, 2, 3))
    dataset = dataset.map(lambda k: embedding_bags([FeatureKeys("f", k, "last_axis", skipped=(4,))]))
    for bags, start in zip(dataset, range(0, 24, 6), strict=True):
        want = [k for k in range(start, start + 6) if k != 4]
        np.testing.assert_array_equal(bags.keys, want)
        np.testing.assert_array_equal(bags.bag_splits, [0, 3, len(want)])


SHAPES = {
    # features as (kind, shape of keys, shape of row_splits, skipped): shapes of keys, bag_splits and kept
    "known": ([("each", [2, 3], None, ()), ("last_axis", [4, 5], None, ()), ("ragged", [7], [3], ())], [33], [13], [0]),
    "known_single": ([("last_axis", [2, 4, 5], None, ())], [40], [9], [0]),
    "skipped": ([("last_axis", [4, 5], None, (0,)), ("each", [3], None, ())], [None], [8], [None]),
    "batch_unknown": ([("each", [None], None, ()), ("last_axis", [None, 5], None, ())], [None], [None], [0]),
    "length_unknown": ([("last_axis", [4, None], None, ())], [None], [5], [0]),
    "keys_unknown": ([("ragged", [None], [5], ())], [None], [5], [0]),
    "one_of_two_unknown": ([("each", [6], None, ()), ("ragged", [3], [None], ())], [9], [None], [0]),
    "rank_unknown": ([("each", None, None, ()), ("last_axis", None, None, ())], [None], [None], [0]),
    "ragged_rank_unknown": ([("ragged", None, None, ())], [None], [None], [0]),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shape_function(case):
    features, num_keys, num_splits, kept = SHAPES[case]
    seen = []

    def call(keys, row_splits):
        bags = embedding_bags(
            [
                FeatureKeys("f", key, kind, splits, skipped)
                for (kind, _, _, skipped), key, splits in zip(features, keys, row_splits, strict=True)
            ]
        )
        seen.append([tensor.shape.as_list() for tensor in bags])
        return bags

    signature = [
        [tf.TensorSpec(shape, tf.int64) for _, shape, _, _ in features],
        [tf.TensorSpec(splits, tf.int64) for _, _, splits, _ in features],
    ]
    tf.function(call, input_signature=signature).get_concrete_function()
    splits = [len(features) + 1]
    assert seen[-1] == [num_keys, splits, splits, num_splits, kept]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_with_unknown_shapes_serves_all(kind, rng):
    specs = [tf.TensorSpec(None, tf.int64)] * 2
    call = tf.function(
        lambda keys, splits: embedding_bags([FeatureKeys("f", keys, kind, splits, (3,))]), input_signature=specs
    )
    for _ in range(10):
        feature = _random_feature(rng, kind, np.arange(9), skipped=(3,))
        got = call(tf.constant(feature.keys), tf.constant([] if kind != "ragged" else feature.row_splits, tf.int64))
        for g, w in zip(got, _bags_twin([feature]), strict=True):
            np.testing.assert_array_equal(g, w)


# keys, its kind, row_splits, where the bad one stands in the error
OUT_OF_RANGE = {
    "scalar": (10, "each", None, r"keys\[\] = 10"),
    "each": ([[1, 2], [3, 10]], "each", None, r"keys\[1, 1\] = 10"),
    "negative": ([1, -1], "each", None, r"keys\[1\] = -1"),
    "least": ([-(2**63)], "each", None, rf"keys\[0\] = -{2**63}"),
    "greatest": ([[0, 2**63 - 1]], "last_axis", None, rf"keys\[0, 1\] = {2**63 - 1}"),
    "last_axis": ([[[0, 1], [2, 3]], [[4, 5], [70, 7]]], "last_axis", None, r"keys\[1, 1, 0\] = 70"),
    "first_of_two": ([[0, 11], [12, 3]], "last_axis", None, r"keys\[0, 1\] = 11"),
    "ragged": ([1, 2, 3, 10], "ragged", [0, 2, 2, 2, 4], r"keys\[3, 1\] = 10"),
    "ragged_first_of_bag": ([1, 10, 3], "ragged", [0, 0, 1, 1, 3, 3], r"keys\[3, 0\] = 10"),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE)
@pytest.mark.parametrize("mode", MODES)
def test_a_key_out_of_range_is_an_error_with_feature_position_and_value(case, mode):
    keys, kind, row_splits, where = OUT_OF_RANGE[case]
    features = [
        _feature("each", [1, 2]),
        _feature(kind, keys, row_splits, name="the feature", input_dim=10, skipped=(5,)),
    ]
    call = embedding_bags if mode == "eager" else tf.function(embedding_bags)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=rf"keys must be in \[0, 10\), got {where} \(the feature\)"
    ):
        call(features)


def test_each_feature_has_its_own_range():
    features = [_feature("each", [9], input_dim=10), _feature("each", [19], input_dim=20), _feature("each", [-5])]
    _assert_bags(features)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[0, 20\), got keys\[0\] = 20 \(b\)"):
        embedding_bags([_feature("each", [9], input_dim=10), _feature("each", [20], input_dim=20, name="b")])


def test_a_skipped_key_may_be_out_of_range():
    _assert_bags([_feature("last_axis", [[1, -1, 10], [-1, 9, 2**62]], skipped=(-1, 10, 2**62), input_dim=10)])


def test_a_key_beyond_max_length_must_be_in_range():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"got keys\[0, 1\] = 10"):
        embedding_bags([_feature("last_axis", [[1, 10]], max_length=1, input_dim=10)])


BAD_SPLITS = {
    "do_not_start_at_0": ([1, 3], "row_splits must go from 0 to 3"),
    "do_not_end_at_n": ([0, 2], "row_splits must go from 0 to 3"),
    "end_past_n": ([0, 4], "row_splits must go from 0 to 3"),
    "descend": ([0, 2, 1, 3], r"row_splits must not descend, got row_splits\[2\] = 1 after 2"),
    "negative": ([0, -1, 3], r"row_splits must not descend, got row_splits\[1\] = -1 after 0"),
    "empty": ([], "row_splits must have at least one element"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
@pytest.mark.parametrize("mode", MODES)
def test_bad_row_splits_are_an_error_that_names_the_feature(case, mode):
    row_splits, match = BAD_SPLITS[case]
    features = [_feature("each", [4]), _feature("ragged", [1, 2, 3], row_splits, name="clicks")]
    call = embedding_bags if mode == "eager" else tf.function(embedding_bags)
    with pytest.raises(BAD_ARGUMENT, match=f"(?s)clicks.*{match}" if row_splits or mode == "eager" else "."):
        call(features)


@pytest.mark.parametrize("mode", MODES)
def test_ragged_keys_of_another_rank_are_an_error(mode):
    features = [_feature("ragged", [[1, 2], [3, 4]], [0, 4], name="clicks")]
    call = embedding_bags if mode == "eager" else tf.function(embedding_bags)
    with pytest.raises(BAD_ARGUMENT, match="rank 1"):
        call(features)


@pytest.mark.parametrize("mode", MODES)
def test_row_splits_of_another_rank_are_an_error(mode):
    features = [_feature("ragged", [1, 2], [[0, 2]], name="clicks")]
    call = embedding_bags if mode == "eager" else tf.function(embedding_bags)
    with pytest.raises(BAD_ARGUMENT, match="rank 1"):
        call(features)


@pytest.mark.parametrize("mode", MODES)
def test_the_last_axis_of_a_scalar_is_an_error(mode):
    call = embedding_bags if mode == "eager" else tf.function(embedding_bags)
    with pytest.raises(BAD_ARGUMENT, match="got a scalar" if mode == "eager" else "(?i)at least rank 1"):
        call([_feature("last_axis", 7)])


def test_ranks_known_only_at_run_time_are_checked_there():
    def call(kind, *arguments):
        function = tf.function(lambda keys, splits: embedding_bags([FeatureKeys("clicks", keys, kind, splits)]))
        spec = tf.TensorSpec(None, tf.int64)
        return function.get_concrete_function(spec, spec)(*(tf.constant(a, tf.int64) for a in arguments))

    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)clicks.*got a scalar"):
        call("last_axis", 7, [0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)clicks.*keys must have rank 1"):
        call("ragged", [[7, 8]], [0, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)clicks.*row_splits must have rank 1"):
        call("ragged", [7, 8], [[0, 2]])


BAD_ATTRIBUTES = {
    "no_names": ({"names": []}, "names must have one element for each of 1 features, got 0"),
    "names_too_many": ({"names": ["a", "b"]}, "names must have one element for each of 1 features, got 2"),
    "no_kinds": ({"kinds": []}, "kinds must have one element for each of 1 features, got 0"),
    "an_unknown_kind": ({"kinds": ["sparse"]}, "sparse.*each.*last_axis.*ragged"),
    "skipped_counts": (
        {"skipped": [1, 2], "skipped_counts": [1, 1]},
        "skipped_counts must have one element for each of 1 features, got 2",
    ),
    "skipped_counts_negative": ({"skipped_counts": [-1]}, "skipped_counts must not be negative, got -1"),
    "skipped_too_many": (
        {"skipped": [1, 2], "skipped_counts": [1]},
        "skipped must have the sum of skipped_counts, 1 elements, got 2",
    ),
    "skipped_too_few": (
        {"skipped": [1], "skipped_counts": [3]},
        "skipped must have the sum of skipped_counts, 3 elements, got 1",
    ),
    "skipped_without_counts": ({"skipped": [1]}, "skipped must have the sum of skipped_counts, 0 elements, got 1"),
    "max_lengths": ({"max_lengths": [1, 1]}, "max_lengths must have one element for each of 1 features, got 2"),
    "input_dims": ({"input_dims": [9, 9]}, "input_dims must have one element for each of 1 features, got 2"),
    "no_row_splits": ({"kinds": ["ragged"]}, "row_splits must have one tensor for each of 1 ragged features, got 0"),
    "row_splits_too_many": (
        {"row_splits": [[0, 3]]},
        "row_splits must have one tensor for each of 0 ragged features, got 1",
    ),
    "no_features": ({"keys": [], "names": [], "kinds": []}, "minimum"),
}
GOOD_ATTRIBUTES = {"keys": [[1, 2, 3]], "row_splits": [], "names": ["f"], "kinds": ["each"]}


@pytest.mark.parametrize("case", BAD_ATTRIBUTES)
def test_attributes_that_do_not_fit_are_an_error_when_a_graph_is_made(case):
    attributes, match = BAD_ATTRIBUTES[case]
    with pytest.raises(BAD_ARGUMENT, match=f"(?s){match}"):
        tf.function(lambda: library.sparse_emb_embedding_bags(**GOOD_ATTRIBUTES | attributes))()


# The dedup table by table.


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


# Lookups in several tables.


def _three_tables(make_table, dim=3, rows=20):
    """Three tables of one width and different storages; the rows of keys 0 to rows - 1 are set."""
    rng = np.random.default_rng(5)
    tables = [
        make_table("index", dim, rows=rows),
        make_table("slab", dim, seed=2),
        make_table("chained", dim, seed=3),
    ]
    for table in tables:
        table.upsert(np.arange(rows), rng.normal(size=(rows, dim)).astype(np.float32))
    return tables


SPLITS = {"all": [0, 4, 9, 12], "a_table_without_keys": [0, 6, 6, 12], "one_table_has_all": [0, 0, 12, 12]}


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("insert", [False, True])
def test_each_table_gives_the_rows_of_its_keys(make_table, splits, mode, insert, dim, rng):
    tables = _three_tables(make_table, dim)
    keys = rng.integers(0, 20, 12)
    splits = SPLITS[splits]

    def call(keys, splits):
        return lookup_tables(tables, keys, splits, insert=insert, missing="initial")

    got = (call if mode == "eager" else tf.function(call))(tf.constant(keys), tf.constant(splits, tf.int64))
    assert got.shape == (12, dim)
    for table, a, b in zip(tables, splits[:-1], splits[1:], strict=True):
        np.testing.assert_array_equal(got[a:b], table.lookup(keys[a:b]))


@pytest.mark.parametrize("missing", ["initial", "zeros"])
def test_missing_keys_are_read_and_inserted_in_their_own_table(make_table, missing):
    tables = [make_table(storage, 4, seed=s) for s, storage in enumerate(reference.HASH_STORAGES)]
    keys = tf.constant([1, 2, 1, 1, 2, 3, 5], tf.int64)
    splits = tf.constant([0, 2, 3, 3, 7], tf.int64)
    read = lookup_tables(tables, keys, splits, insert=False, missing=missing)
    assert [int(table.size()) for table in tables] == [0, 0, 0, 0]
    if missing == "zeros":
        np.testing.assert_array_equal(read, np.zeros((7, 4)))
    inserted = lookup_tables(tables, keys, splits, insert=True, missing=missing)
    assert [int(table.size()) for table in tables] == [2, 1, 0, 4]
    np.testing.assert_array_equal(inserted[:2], tables[0].lookup([1, 2]))
    np.testing.assert_array_equal(inserted[3:], tables[3].lookup([1, 2, 3, 5]))
    if missing == "initial":
        np.testing.assert_array_equal(read, inserted)
    assert np.abs(inserted[0] - inserted[2]).max() > 0  # another seed


@pytest.mark.parametrize("mode", MODES)
def test_each_table_gets_the_gradient_of_its_keys(make_table, mode, rng):
    tables = _three_tables(make_table)
    keys = tf.constant(rng.integers(0, 20, 12))
    upstream = rng.normal(size=(12, 3)).astype(np.float32)

    def gradients(splits):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(lookup_tables(tables, keys, splits, insert=False, missing="initial") * upstream)
        slices = tape.gradient(loss, tables)
        assert all(isinstance(s, tf.IndexedSlices) for s in slices)
        return [(s.values, s.indices, s.dense_shape) for s in slices]

    call = gradients if mode == "eager" else tf.function(gradients)
    for splits in SPLITS.values():
        for (values, indices, dense_shape), a, b in zip(
            call(tf.constant(splits, tf.int64)), splits[:-1], splits[1:], strict=True
        ):
            np.testing.assert_array_equal(values, upstream[a:b])
            np.testing.assert_array_equal(indices, keys[a:b])
            np.testing.assert_array_equal(dense_shape, [2**62, 3])


@pytest.mark.parametrize("mode", MODES)
def test_an_optimizer_updates_the_rows_of_each_table(make_table, mode):
    tables = _three_tables(make_table)
    before = [table.lookup(np.arange(20)).numpy() for table in tables]
    optimizer = tse.optimizers.SGD(0.5)
    optimizer.build(tables)

    def step():
        with tf.GradientTape() as tape:
            rows = lookup_tables(
                tables, tf.constant([1, 2, 1, 7], tf.int64), [0, 2, 3, 4], insert=True, missing="zeros"
            )
            loss = tf.reduce_sum(rows * [[1.0], [2.0], [3.0], [4.0]])
        optimizer.apply_gradients(zip(tape.gradient(loss, tables), tables, strict=True))

    (step if mode == "eager" else tf.function(step))()
    for table, start, steps in zip(tables, before, ({1: 1, 2: 2}, {1: 3}, {7: 4}), strict=True):
        for key, amount in steps.items():
            start[key] -= 0.5 * amount
        np.testing.assert_allclose(table.lookup(np.arange(20)), start, rtol=1e-6)


def test_second_derivatives_pass_through_the_gradients_of_several_tables(make_table):
    tables = _three_tables(make_table)[:2]
    x = tf.Variable([0.5, -1.0, 2.0])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            rows = lookup_tables(tables, tf.constant([1, 2, 3], tf.int64), [0, 1, 3], insert=False, missing="zeros")
            loss = tf.reduce_sum((x * rows) ** 2)
        total = sum(tf.reduce_sum(s.values) for s in inner.gradient(loss, tables))  # 2 x^2 row
    np.testing.assert_allclose(outer.gradient(total, x), 4 * x * tf.reduce_sum(rows, 0), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [-1, 20, 2**62])
def test_a_key_out_of_range_in_the_last_table_changes_nothing_in_the_first(make_table, mode, bad):
    tables = [make_table("slab", 3), make_table("index", 3, rows=20)]
    tables[0].lookup([5], insert=True)
    before = tables[1].lookup(np.arange(20)).numpy()

    def call():
        return lookup_tables(tables, tf.constant([7, 8, 3, bad], tf.int64), [0, 2, 4], insert=True, missing="initial")

    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)\[0, 20\).*{bad}"):
        (call if mode == "eager" else tf.function(call))()
    assert int(tables[0].size()) == 1
    np.testing.assert_array_equal(tables[0].contains([5, 7, 8]), [True, False, False])
    np.testing.assert_array_equal(tables[1].lookup(np.arange(20)), before)


def test_a_full_table_is_an_error_that_changes_none(make_table):
    tables = [make_table("slab", 3), make_table("slab", 3, max_rows=2)]
    keys = tf.constant([1, 2, 1, 2, 3], tf.int64)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|2"):
        lookup_tables(tables, keys, [0, 2, 5], insert=True, missing="initial")
    assert [int(table.size()) for table in tables] == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_tables_of_different_widths_are_an_error(make_table, mode):
    tables = [make_table("slab", 3), make_table("slab", 4)]

    def call():
        return lookup_tables(tables, tf.constant([1, 2], tf.int64), [0, 1, 2], insert=True, missing="initial")

    with pytest.raises(BAD_ARGUMENT, match=r"(?s)(?=.*\b3\b)(?=.*\b4\b)"):
        (call if mode == "eager" else tf.function(call))()
    assert [int(table.size()) for table in tables] == [0, 0]


BAD_TABLE_SPLITS = {
    "do_not_start_at_0": [1, 2, 3],
    "do_not_end_at_n": [0, 1, 2],
    "end_past_n": [0, 1, 4],
    "descend": [0, 4, 3],
    "too_short": [0, 3],
    "too_long": [0, 1, 2, 3],
    "rank_2": [[0, 1, 3]],
}


@pytest.mark.parametrize("case", BAD_TABLE_SPLITS)
@pytest.mark.parametrize("mode", MODES)
def test_bad_table_splits_are_an_error(make_table, case, mode):
    tables = [make_table("slab", 3), make_table("slab", 3)]
    splits = tf.constant(BAD_TABLE_SPLITS[case], tf.int64)

    def call():
        return lookup_tables(tables, tf.constant([7, 8, 9], tf.int64), splits, insert=True, missing="initial")

    with pytest.raises(BAD_ARGUMENT, match="table_splits|Dimension must be 3|rank 1"):
        (call if mode == "eager" else tf.function(call))()
    assert [int(table.size()) for table in tables] == [0, 0]


def test_shape_function_of_the_lookup_in_several_tables(make_table):
    tables = [make_table("slab", 5), make_table("slab", 5)]
    seen = []

    def call(keys, splits):
        seen.append(lookup_tables(tables, keys, splits, insert=False, missing="initial").shape.as_list())

    for keys, splits, want in (([6], [3], [6, 5]), ([None], [None], [None, 5]), (None, None, [None, 5])):
        specs = [tf.TensorSpec(keys, tf.int64), tf.TensorSpec(splits, tf.int64)]
        tf.function(call, input_signature=specs).get_concrete_function()
        assert seen[-1] == want


# In processes of their own.

EAGER_SCRIPT = """
import json, os, sys
import tensorflow as tf
import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

def dedup(splits, tables):
    library.sparse_emb_embedding_key_dedup(keys=[1, 2, 3], feature_splits=splits, tables=tables)

def look_up(splits):
    tables = [tse.EmbeddingVariable(2, seed=1) for _ in range(2)]
    library.sparse_emb_embedding_lookup(
        tables=[table.table_handle for table in tables], keys=[1, 2], table_splits=splits,
        anchors=[table.value for table in tables], insert=False, missing="initial",
    )

CALLS = {"bags": library.sparse_emb_embedding_bags, "dedup": dedup, "look_up": look_up}
for name, call, arguments in json.loads(sys.argv[1]):
    # A call that crashes must not end the others.
    child = os.fork()
    if child == 0:
        try:
            CALLS[call](**arguments)
            message = "no error"
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            message = str(error)
        print("RESULT", json.dumps([name, message]), flush=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        print("RESULT", json.dumps([name, f"crash, status {status}"]), flush=True)
"""
EAGER_CASES = {
    # the call, its arguments, what the error must name
    **{
        f"bags-{case}": ("bags", GOOD_ATTRIBUTES | attributes, match.split()[0])
        for case, (attributes, match) in BAD_ATTRIBUTES.items()
    },
    "dedup-a_table_beyond": ("dedup", {"splits": [[0, 1, 3]], "tables": [0, 2]}, "tables"),
    "dedup-a_negative_table": ("dedup", {"splits": [[0, 1, 3]], "tables": [0, -1]}, "tables"),
    "dedup-no_feature_splits": ("dedup", {"splits": [], "tables": [0, 0]}, "feature_splits"),
    "look_up-no_table_splits": ("look_up", {"splits": []}, "table_splits"),
}
THREADS_SCRIPT = """
import hashlib, sys
import numpy as np
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_bags import FeatureKeys, embedding_bags
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table
from tf_sparse_emb.ops.embedding_lookup import lookup_tables

rng = np.random.default_rng(0)
tables = [0, 1, 0, 2, 1]
features = [
    FeatureKeys(str(f), rng.zipf(1.3, (4096, 20)) * 0x9E3779B97F4A7C1, "last_axis", max_length=20 - f) for f in range(5)
]
bags = embedding_bags(features)
unique_keys, inverse, counts, table_splits = key_dedup_by_table(bags.keys, bags.feature_splits, tables)
variables = [tse.EmbeddingVariable(17, seed=t) for t in range(3)]
rows = lookup_tables(variables, unique_keys, table_splits, insert=True, missing="initial")
pooled = tse.ops.embedding_max_pool(rows, inverse, bags.bag_splits)
digest = hashlib.sha256()
for tensor in (*bags, unique_keys, inverse, counts, table_splits, rows, pooled):
    digest.update(tensor.numpy().tobytes())
print("RESULT", digest.hexdigest(), int(table_splits[-1]))
"""


def _run(script, *arguments):
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]


@pytest.fixture(scope="module")
def eager_results():
    calls = [(case, call, arguments) for case, (call, arguments, _) in EAGER_CASES.items()]
    return dict(json.loads(line) for line in _run(EAGER_SCRIPT, json.dumps(calls)))


@pytest.mark.parametrize("case", EAGER_CASES)
def test_attributes_that_do_not_fit_are_an_error_in_eager_mode(eager_results, case):
    """No shape function runs there: the kernel must refuse them too, and not read past its inputs."""
    name = EAGER_CASES[case][2]
    assert re.search(name, eager_results[case]), eager_results[case]


def test_one_and_four_threads_are_bit_equal():
    (one,), (four,) = _run(THREADS_SCRIPT, "1"), _run(THREADS_SCRIPT, "4")
    assert one == four
    assert int(one.split()[1]) > 3000
