"""EmbeddingKeyDedup: unique keys in order of first occurrence, inverse, counts."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)


def _zipf(count, vocabulary):
    ranks = np.random.default_rng(3).zipf(1.3, size=count) % vocabulary
    return (ranks * 0x9E3779B97F4A7C1 - 2**62).astype(np.int64)


CASES = {
    "empty": np.array([], np.int64),
    "one_key": np.array([5], np.int64),
    "all_the_same": np.full(1000, -7, np.int64),
    "all_distinct": np.arange(1000, dtype=np.int64)[::-1] * 1_000_003,
    "extreme": reference.EXTREME_KEYS,
    "extreme_repeated": np.tile(reference.EXTREME_KEYS, 50),
    "negative": np.array([-1, -2, -1, -3, -2, 1, 2, 1], np.int64),
    "same_low_32_bits": np.arange(300, dtype=np.int64)[::3] * 2**32 + 9,
    "same_high_32_bits": np.tile(np.arange(100, dtype=np.int64), 3) + (2**40),
    "many": _zipf(300_000, 60_000),
    "many_distinct": np.random.default_rng(5).integers(-(2**63), 2**63 - 1, 200_000),
}


def _assert_same(got, want):
    for name, g, w in zip(("unique_keys", "inverse", "counts"), got, want, strict=True):
        np.testing.assert_array_equal(g.numpy(), w, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_unique_keys_are_in_order_of_first_occurrence(case):
    _assert_same(tse.ops.embedding_key_dedup(tf.constant(CASES[case])), reference.key_dedup(CASES[case]))


def test_the_result_is_a_named_tuple_of_int64_int32_int32():
    result = tse.ops.embedding_key_dedup(tf.constant([3, 3], tf.int64))
    assert result._fields == ("unique_keys", "inverse", "counts")
    assert [t.dtype for t in result] == [tf.int64, tf.int32, tf.int32]


@pytest.mark.parametrize("case", ["empty", "extreme_repeated", "many"])
def test_gathering_with_inverse_gives_the_keys_back(case):
    keys = CASES[case]
    unique_keys, inverse, counts = tse.ops.embedding_key_dedup(keys)
    np.testing.assert_array_equal(tf.gather(unique_keys, inverse), keys)
    assert int(tf.reduce_sum(counts)) == keys.size


@pytest.mark.parametrize("case", ["empty", "extreme_repeated", "many"])
def test_graph_mode_equals_eager_mode(case):
    graph = tf.function(lambda k: tse.ops.embedding_key_dedup(k))(tf.constant(CASES[case]))
    _assert_same(graph, reference.key_dedup(CASES[case]))


def test_int32_keys_give_the_result_of_the_same_int64_keys():
    keys = np.array([5, -1, 2**31 - 1, 5, -(2**31), -1, 0], np.int32)
    result = tse.ops.embedding_key_dedup(tf.constant(keys))
    assert result.unique_keys.dtype == tf.int64
    _assert_same(result, reference.key_dedup(keys.astype(np.int64)))


def test_string_keys_are_their_fingerprints():
    words = tf.constant(["a", "", "ü€", "a", "a long key " * 20, "", "b\0c"])
    fingerprints = tf.bitcast(tf.fingerprint(words), tf.int64).numpy()
    _assert_same(tse.ops.embedding_key_dedup(words), reference.key_dedup(fingerprints))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "int8", "uint64"])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_another_dtype_is_a_type_error_that_names_it(dtype, mode):
    call = tse.ops.embedding_key_dedup if mode == "eager" else tf.function(lambda k: tse.ops.embedding_key_dedup(k))
    with pytest.raises(TypeError, match=f"keys must be int32, int64 or string, got {dtype}"):
        call(tf.cast([1, 0], dtype))


@pytest.mark.parametrize("keys", [7, [[1, 2], [3, 4]], [[[1]]]], ids=["rank0", "rank2", "rank3"])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_another_rank_is_an_error_that_names_keys(keys, mode):
    call = tse.ops.embedding_key_dedup if mode == "eager" else tf.function(lambda k: tse.ops.embedding_key_dedup(k))
    with pytest.raises(BAD_ARGUMENT, match="keys"):
        call(tf.constant(keys, tf.int64))


@pytest.mark.parametrize("keys", [7, [[1, 2], [3, 4]]], ids=["rank0", "rank2"])
def test_a_rank_known_only_at_run_time_is_checked_there(keys):
    call = tf.function(
        lambda k: tse.ops.embedding_key_dedup(k), input_signature=[tf.TensorSpec(None, tf.int64)]
    ).get_concrete_function()
    with pytest.raises(tf.errors.InvalidArgumentError, match="keys"):
        call(tf.constant(keys, tf.int64))


@pytest.mark.parametrize("shape, inverse_shape", [([6], [6]), ([None], [None]), (None, [None]), ([0], [0])])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.string])
def test_shape_function(shape, inverse_shape, dtype):
    seen = []

    def dedup(keys):
        result = tse.ops.embedding_key_dedup(keys)
        seen.append([t.shape.as_list() for t in result])
        return result

    tf.function(dedup, input_signature=[tf.TensorSpec(shape, dtype)]).get_concrete_function()
    unique_shape, got_inverse_shape, counts_shape = seen[-1]
    assert (len(unique_shape), len(counts_shape)) == (1, 1)
    assert unique_shape[0] in (None, 0) and counts_shape[0] in (None, 0)
    assert got_inverse_shape == inverse_shape


def test_shape_function_refuses_a_known_wrong_rank():
    with pytest.raises(ValueError, match="keys"):
        tf.function(
            lambda k: tse.ops.embedding_key_dedup(k), input_signature=[tf.TensorSpec([None, 3], tf.int64)]
        ).get_concrete_function()


def test_it_works_inside_a_tf_data_pipeline():
    batches = [np.array([4, 4, -1], np.int64), np.array([2**62, 0, 2**62], np.int64), np.array([1, 2, 3], np.int64)]
    dataset = tf.data.Dataset.from_tensor_slices(np.stack(batches))
    dataset = dataset.map(lambda k: tse.ops.embedding_key_dedup(k), num_parallel_calls=2)
    results = list(dataset)
    assert len(results) == len(batches)
    for result, keys in zip(results, batches, strict=True):
        _assert_same(result, reference.key_dedup(keys))


def test_jit_compile_is_an_error_that_names_the_op():
    call = tf.function(lambda k: tse.ops.embedding_key_dedup(k), jit_compile=True)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="EmbeddingKeyDedup"):
        call(tf.constant([1, 1], tf.int64))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_no_features_are_refused_before_they_are_counted(mode):
    def dedup():
        empty = tf.constant([], tf.int64)
        return library.sparse_emb_embedding_key_dedup(keys=empty, feature_splits=[[0]], tables=[])

    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="must name the table of each feature"):
        (dedup if mode == "eager" else tf.function(dedup))()
