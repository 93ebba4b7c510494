"""EmbeddingLookup: one row per key, missing keys, insertion, the IndexedSlices gradient, shapes and errors."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)


@pytest.fixture
def filled(make_table, storage, dim, rng):
    """(table, keys, rows): 300 upserted rows of known value."""
    keys = reference.key_universe(storage, 300)
    rows = rng.normal(size=(keys.size, dim)).astype(np.float32)
    table = make_table(storage, dim, rows=300)
    table.upsert(keys, rows)
    return table, keys, rows


def test_each_key_gives_its_row(filled, rng):
    table, keys, rows = filled
    picked = rng.integers(0, keys.size, 2000)
    np.testing.assert_array_equal(tse.ops.embedding_lookup(table, keys[picked]), rows[picked])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3), (2, 0, 3), (2, 1, 3, 2)], ids=str)
def test_keys_of_any_rank(make_table, storage, shape, rng):
    keys = reference.key_universe(storage, 50)
    rows = rng.normal(size=(50, 3)).astype(np.float32)
    table = make_table(storage, 3, rows=50)
    table.upsert(keys, rows)
    picked = rng.integers(0, 50, shape)
    values = tse.ops.embedding_lookup(table, tf.constant(keys[picked]))
    assert values.shape == (*shape, 3)
    np.testing.assert_array_equal(values, rows[picked])


def test_the_method_is_the_op(filled):
    table, keys, rows = filled
    np.testing.assert_array_equal(table.lookup(keys), rows)


@pytest.mark.parametrize("insert", [False, True])
def test_a_missing_key_reads_as_its_initial_row(make_table, hash_storage, dim, insert):
    keys = reference.key_universe(hash_storage, 200)
    other = tse.EmbeddingVariable(dim, storage="slab", seed=11).lookup(keys)
    table = make_table(hash_storage, dim)
    np.testing.assert_array_equal(table.lookup(keys, insert=insert), other)
    assert np.ptp(other) > 0.01


def test_a_missing_key_reads_as_zeros_with_missing_zeros(make_table, hash_storage, dim):
    keys = reference.key_universe(hash_storage, 100)
    table = make_table(hash_storage, dim, initializer="ones")
    table.upsert(keys[:50], np.full((50, dim), 3.0, np.float32))
    got = table.lookup(keys, missing="zeros")
    np.testing.assert_array_equal(got, np.repeat([[3.0], [0.0]], 50, axis=0) * np.ones(dim))
    assert int(table.size()) == 50


@pytest.mark.parametrize("missing", ["initial", "zeros"])
def test_insert_false_inserts_nothing(make_table, hash_storage, missing):
    table = make_table(hash_storage, 4)
    table.lookup(reference.EXTREME_KEYS, insert=False, missing=missing)
    assert int(table.size()) == 0
    assert not table.contains(reference.EXTREME_KEYS).numpy().any()


def test_insert_true_inserts_each_missing_key_once(make_table, hash_storage):
    table = make_table(hash_storage, 4)
    keys = np.tile(reference.EXTREME_KEYS, 10)
    rows = table.lookup(keys, insert=True)
    assert int(table.size()) == reference.EXTREME_KEYS.size
    np.testing.assert_array_equal(rows, table.lookup(keys, missing="zeros"))


def test_a_batch_large_enough_to_be_sharded(make_table, storage, rng):
    keys = reference.key_universe(storage, 40_000)
    rows = rng.normal(size=(keys.size, 17)).astype(np.float32)
    table = make_table(storage, 17, rows=keys.size)
    table.upsert(keys, rows)
    picked = rng.integers(0, keys.size, 200_000)
    np.testing.assert_array_equal(table.lookup(keys[picked]), rows[picked])


def test_int32_and_string_keys_are_the_int64_keys_of_the_same_value(make_table, hash_storage):
    table = make_table(hash_storage, 3)
    int32 = tf.constant([3, -1, 2**31 - 1], tf.int32)
    np.testing.assert_array_equal(table.lookup(int32), table.lookup(tf.cast(int32, tf.int64)))
    words = tf.constant([["a", "b"], ["", "a"]])
    fingerprints = tf.reshape(tf.bitcast(tf.fingerprint(tf.reshape(words, [-1])), tf.int64), [2, 2])
    table.lookup(fingerprints, insert=True)
    assert int(table.size()) == 3
    np.testing.assert_array_equal(table.lookup(words, missing="zeros"), table.lookup(fingerprints))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_gradient_is_indexed_slices_of_the_keys(make_table, storage, mode, rng):
    keys = reference.key_universe(storage, 20)[rng.integers(0, 20, (4, 6))]
    upstream = rng.normal(size=(4, 6, 5)).astype(np.float32)
    table = make_table(storage, 5, rows=20)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(table.lookup(tf.constant(keys)) * upstream)
        slices = tape.gradient(loss, table)
        assert isinstance(slices, tf.IndexedSlices)
        return slices.values, slices.indices, slices.dense_shape

    values, indices, dense_shape = (gradient if mode == "eager" else tf.function(gradient))()
    np.testing.assert_array_equal(values, upstream.reshape(-1, 5))
    np.testing.assert_array_equal(indices, keys.reshape(-1))
    np.testing.assert_array_equal(dense_shape, [2**62, 5])
    assert indices.dtype == tf.int64


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_gradients_of_several_lookups_add_up_per_key(make_table, hash_storage, mode):
    table = make_table(hash_storage, 2)
    batches = [[1, 2], [2, 3, 3], [-(2**63)]]

    def gradient():
        with tf.GradientTape() as tape:
            loss = sum(
                tf.reduce_sum(table.lookup(tf.constant(b, tf.int64), insert=True)) * 10.0**i
                for i, b in enumerate(batches)
            )
        slices = tape.gradient(loss, table)
        return slices.values, slices.indices

    values, indices = (gradient if mode == "eager" else tf.function(gradient))()
    unique_keys, sums = reference.reduce_by_key(indices.numpy(), values.numpy())
    assert dict(zip(unique_keys.tolist(), sums.tolist(), strict=True)) == {
        1: [1, 1],
        2: [11, 11],
        3: [20, 20],
        -(2**63): [100, 100],
    }


def test_second_derivatives_pass_through_the_gradient(make_table, storage):
    table = make_table(storage, 3, rows=10)
    keys = tf.constant([1, 2, 1], tf.int64)
    x = tf.Variable([[0.5, -1.0, 2.0]])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            rows = table.lookup(keys)
            loss = tf.reduce_sum((x * rows) ** 2)
        slices = inner.gradient(loss, table)  # 2 x^2 row
        total = tf.reduce_sum(slices.values)
    np.testing.assert_allclose(outer.gradient(total, x), 4 * x * tf.reduce_sum(rows, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "shape, expected", [([6], [6, 5]), ([None], [None, 5]), ([2, None, 4], [2, None, 4, 5]), ([], [5]), (None, None)]
)
def test_shape_function(make_table, storage, shape, expected):
    table = make_table(storage, 5)
    seen = []

    def lookup(keys):
        values = table.lookup(keys)
        seen.append(values.shape)
        return values

    tf.function(lookup, input_signature=[tf.TensorSpec(shape, tf.int64)]).get_concrete_function()
    if expected is None:
        assert seen[-1].rank is None
    else:
        assert seen[-1].as_list() == expected


def test_a_trace_with_unknown_shape_serves_every_rank(make_table, storage):
    table = make_table(storage, 2)
    call = tf.function(lambda k: table.lookup(k), input_signature=[tf.TensorSpec(None, tf.int64)])
    for keys in (5, [1, 2], [[1], [2], [1]]):
        np.testing.assert_array_equal(call(tf.constant(keys, tf.int64)), table.lookup(tf.constant(keys, tf.int64)))


@pytest.mark.parametrize("storage_name", reference.STORAGES)
@pytest.mark.parametrize("bad", [-1, 10, 2**62, -(2**63)])
@pytest.mark.parametrize("insert", [False, True])
def test_a_key_out_of_range_is_an_error_with_its_position_and_value(storage_name, bad, insert):
    table = tse.EmbeddingVariable(3, input_dim=10, storage=storage_name, seed=1)
    before = int(table.size())
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)keys.*\[?2\]?.*{bad}"):
        table.lookup(tf.constant([4, 0, bad, 9], tf.int64), insert=insert)
    assert int(table.size()) == before


def test_an_insert_beyond_max_rows_changes_nothing(make_table, hash_storage, sorted_export):
    table = make_table(hash_storage, 3, max_rows=10)
    table.lookup(np.arange(8), insert=True)
    before = sorted_export(table)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|10"):
        table.lookup(np.arange(6, 14), insert=True)
    for now, then in zip(sorted_export(table), before, strict=True):
        np.testing.assert_array_equal(now, then)
    table.lookup(np.array([0, 8, 9, 9, 8]), insert=True)
    assert int(table.size()) == 10
    assert table.lookup(np.arange(100)).shape == (100, 3)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_float_keys_are_a_type_error(make_table, storage, mode):
    table = make_table(storage, 3)
    call = table.lookup if mode == "eager" else tf.function(lambda k: table.lookup(k))
    with pytest.raises(TypeError, match="keys must be int32, int64 or string, got float32"):
        call(tf.constant([1.0]))


def test_an_unknown_missing_is_a_value_error(make_table, storage):
    with pytest.raises(ValueError, match="(?s)missing.*initial.*zeros.*nan"):
        make_table(storage, 3).lookup([1], missing="nan")


def test_jit_compile_is_an_error_that_names_the_op(make_table, storage):
    table = make_table(storage, 3)
    call = tf.function(lambda k: table.lookup(k), jit_compile=True)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="EmbeddingLookup"):
        call(tf.constant([1, 1], tf.int64))
