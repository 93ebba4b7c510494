"""The keys that tse.Embedding takes: dense, ragged and sparse, of every dtype and size."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from input_cases import (
    ALL_COMBINERS,
    FORMS,
    FORMS_AND_MODES,
    MODES,
    SOME_FORMS,
    D,
    V,
    assert_output,
    flat_values,
    forms_and_combiners,
    make_layer,
    nested_lists,
    rank_of,
    table_rows_of,
    with_flat_values,
)

import tf_sparse_emb as tse


@pytest.fixture(params=["slab", "index"])
def storage(request):
    """Two of the storages: what is tested here lies above them."""
    return request.param


UNPOOLED = [form for form in FORMS if not form.startswith("sparse")]


@pytest.mark.parametrize("form, mode", FORMS_AND_MODES)
@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_keys_of_every_form_are_pooled_along_the_last_axis(form, pooled, mode, rng):
    layer = make_layer(combiner=pooled)
    for _ in range(3 if mode == "eager" else 1):
        keys = FORMS[form](rng)
        output = assert_output(layer, keys, mode=mode)
        assert output.shape.rank == rank_of(keys)
        is_ragged = isinstance(keys, tf.RaggedTensor) and rank_of(keys) > 2
        assert isinstance(output, tf.RaggedTensor) == is_ragged


@pytest.mark.parametrize("form", [*UNPOOLED, "dense_0", "dense_1"])
@pytest.mark.parametrize("mode", MODES)
def test_keys_of_every_form_have_a_row_each_without_a_combiner(storage, form, mode, rng):
    layer = make_layer(storage)
    layer.build()
    for _ in range(3 if mode == "eager" else 1):
        if form in FORMS:
            keys = FORMS[form](rng)
        else:
            keys = tf.constant(rng.integers(0, V, {"dense_0": (), "dense_1": (6,)}[form]))
        output = (layer if mode == "eager" else tf.function(layer))(keys)
        assert type(output) is type(keys)
        assert output.shape.rank == keys.shape.rank + 1
        flat = [x.flat_values if isinstance(x, tf.RaggedTensor) else x for x in (keys, output)]
        np.testing.assert_array_equal(flat[1], layer.embeddings.lookup(flat[0]))
        if isinstance(keys, tf.RaggedTensor):
            for got, want in zip(output.nested_row_splits, keys.nested_row_splits, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("form", FORMS)
def test_the_storages_pool_alike(storage, form, rng):
    assert_output(make_layer(storage, combiner="mean"), FORMS[form](rng))


@pytest.mark.parametrize("form, pooled", forms_and_combiners(SOME_FORMS, [None, "sum"]))
@pytest.mark.parametrize("dtype", ["int32", "string"])
@pytest.mark.parametrize("mode", MODES)
def test_int32_and_string_keys_of_every_form(form, pooled, dtype, mode, rng):
    layer = make_layer(combiner=pooled)
    layer.build()
    keys = FORMS[form](rng)

    def with_values(values_of):
        if isinstance(keys, tf.RaggedTensor):
            return keys.with_flat_values(values_of(keys.flat_values))
        return keys.with_values(values_of(keys.values)) if isinstance(keys, tf.SparseTensor) else values_of(keys)

    def fingerprint(values):
        bits = tf.bitcast(tf.fingerprint(tf.reshape(tf.as_string(values), [-1])), tf.int64)
        return tf.reshape(bits, tf.shape(values))

    cast = {"int32": lambda v: tf.cast(v, tf.int32), "string": tf.as_string}[dtype]
    call = layer if mode == "eager" else tf.function(layer)
    got = call(with_values(cast), training=True)
    want = layer(keys if dtype == "int32" else with_values(fingerprint))
    assert nested_lists(got) == nested_lists(want)
    flat = keys.flat_values if isinstance(keys, tf.RaggedTensor) else getattr(keys, "values", keys)
    assert int(layer.embeddings.size()) == len(np.unique(flat))


@pytest.mark.parametrize("form", ["dense_2", "ragged_1", "sparse_2"])
def test_extreme_keys_of_every_form_keep_all_their_bits(form):
    values = np.concatenate([reference.EXTREME_KEYS, [2**53, 2**53 + 1, 2**62, 2**62 + 1]])
    keys = {
        "dense_2": tf.constant(values.reshape(2, 4)),
        "ragged_1": tf.RaggedTensor.from_row_lengths(values, [3, 0, 5]),
        "sparse_2": tf.SparseTensor([[0, i] for i in range(8)], values, [2, 8]),
    }[form]
    layer = make_layer(combiner="sum")
    layer(keys, training=True)
    np.testing.assert_array_equal(np.sort(layer.embeddings.export()[0]), np.sort(values))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_row_splits_of_both_dtypes(dtype):
    keys = tf.RaggedTensor.from_row_splits(np.arange(6), np.array([0, 2, 2, 6], dtype))
    assert_output(make_layer(combiner="sqrtn"), keys)
    output = make_layer()(keys)
    assert output.row_splits.dtype == keys.row_splits.dtype


def test_the_offsets_of_torch_are_row_starts(rng):
    layer = make_layer(combiner="sum")
    keys = rng.integers(0, V, 8)
    output = layer(tf.RaggedTensor.from_row_starts(keys, [0, 3, 3, 7]))
    rows = table_rows_of(layer)(keys)
    want = [rows[:3].sum(0), np.zeros(D), rows[3:7].sum(0), rows[7:].sum(0)]
    np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-6)


def test_a_slice_of_ragged_keys(rng):
    keys = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, 12), [3, 0, 4, 1, 4])
    for part in (keys[1:4], keys[::2], keys[:, :2], keys[:0]):
        assert_output(make_layer(combiner="mean"), part)
        assert nested_lists(make_layer()(part)) == [
            make_layer()(np.array(bag, np.int64)).numpy().tolist() for bag in nested_lists(part)
        ]


@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_key_0_is_left_out_of_bags_with_mask_zero(pooled):
    layer = make_layer(combiner=pooled, mask_zero=True)
    cells = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    values = np.array([0, 3, 5, 0, 0, 0])
    want = layer(tf.ragged.constant([[3, 5], []], dtype=tf.int64))
    for keys in (
        tf.constant(values.reshape(2, 3)),
        tf.RaggedTensor.from_row_lengths(values, [3, 3]),
        tf.SparseTensor(cells, values, [2, 3]),
    ):
        np.testing.assert_array_equal(layer(keys), want)
    np.testing.assert_array_equal(want[1], np.zeros(D))


# What is refused.


def test_sparse_keys_without_a_combiner_are_a_value_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="(?s)sparse keys need a combiner.*from_sparse.*to_dense"):
        make_layer()(tf.sparse.from_dense([[1, 2]]))


def test_sparse_keys_out_of_order_are_an_error(combiner):
    keys = tf.SparseTensor([[1, 0], [0, 0]], np.array([1, 2]), [2, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="row-major order; see tf.sparse.reorder"):
        make_layer(combiner=combiner)(keys)


@pytest.mark.parametrize("form", ["ragged_1", "sparse_2"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.uint64])
def test_keys_of_another_dtype_are_a_type_error_that_names_it(form, dtype, rng):
    keys = FORMS[form](rng)
    keys = with_flat_values(keys, tf.cast(flat_values(keys), dtype))
    with pytest.raises(TypeError, match=f"must be int32, int64 or string, got {dtype.name}"):
        make_layer(combiner="sum")(keys)


OUT_OF_RANGE = {
    "dense": (np.array([[1, 2], [3, V]]), r"keys\[1, 1\]"),
    "ragged": (tf.ragged.constant([[1, 2], [], [3, 4, V]]), r"keys\[2, 2\]"),
    "sparse": (tf.SparseTensor([[0, 0], [2, 7]], np.array([1, V]), [3, 9]), r"keys\[2, 0\]"),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_a_key_out_of_range_is_an_error_with_position_value_and_layer(case):
    keys, where = OUT_OF_RANGE[case]
    layer = make_layer("index", combiner="mean", name="item")
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"\[0, {V}\), got {where} = {V} .*'item'"):
        layer(keys, training=True)


# Sizes.


EMPTY_BATCHES = {
    "dense_without_rows": np.zeros((0, 4), np.int64),
    "dense_without_keys": np.zeros((3, 0), np.int64),
    "dense_3_without_rows": np.zeros((0, 2, 4), np.int64),
    "ragged_without_rows": tf.RaggedTensor.from_row_splits(np.zeros(0, np.int64), [0]),
    "ragged_without_keys": tf.RaggedTensor.from_row_splits(np.zeros(0, np.int64), [0, 0, 0]),
    "ragged_2_without_rows": tf.RaggedTensor.from_nested_row_splits(np.zeros(0, np.int64), [[0], [0]]),
    "ragged_2_without_keys": tf.RaggedTensor.from_nested_row_splits(np.zeros(0, np.int64), [[0, 1, 2], [0, 0, 0]]),
    "ragged_of_uniform_inner_without_rows": tf.RaggedTensor.from_row_splits(np.zeros((0, 3), np.int64), [0]),
    "sparse_without_rows": tf.SparseTensor(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), [0, 4]),
    "sparse_without_keys": tf.SparseTensor(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), [3, 4]),
    "sparse_without_columns": tf.SparseTensor(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), [3, 0]),
    "sparse_3_without_rows": tf.SparseTensor(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), [0, 2, 4]),
    "sparse_3_without_bags": tf.SparseTensor(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), [3, 0, 4]),
    "sparse_3_without_keys": tf.SparseTensor(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), [3, 2, 4]),
}


@pytest.mark.parametrize("case, pooled", forms_and_combiners(EMPTY_BATCHES, [None, "mean", "max"]))
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_without_keys_gives_zeros_and_no_gradient(case, pooled, mode):
    keys = EMPTY_BATCHES[case]
    layer = make_layer(combiner=pooled)
    layer.build()

    def call():
        with tf.GradientTape() as tape:
            output = layer(keys, training=True)
            loss = tf.reduce_sum(flat_values(output))
        gradient = tape.gradient(loss, layer.embeddings)
        return output, gradient.values, gradient.indices

    output, values, indices = (call if mode == "eager" else tf.function(call))()
    shape = keys.shape if pooled is None else keys.shape[:-1]
    assert output.shape.is_compatible_with([*shape, D])
    np.testing.assert_array_equal(flat_values(output), np.zeros(flat_values(output).shape))
    assert values.shape == (0, D) and indices.shape == (0,)
    assert int(layer.embeddings.size()) == 0


@pytest.mark.parametrize(
    "keys",
    [
        np.array([[7]]),
        tf.ragged.constant([[7]], dtype=tf.int64),
        tf.ragged.constant([[[7]]], dtype=tf.int64),
        tf.SparseTensor([[0, 0]], np.array([7]), [1, 1]),
        tf.SparseTensor([[0, 0, 0]], np.array([7]), [1, 1, 1]),
    ],
    ids=["dense", "ragged", "ragged_2", "sparse", "sparse_3"],
)
@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_a_batch_of_one_key_is_its_row(keys, pooled):
    layer = make_layer(combiner=pooled)
    output = layer(keys, training=True)
    np.testing.assert_array_equal(np.reshape(flat_values(output), [1, D]), layer.embeddings.lookup([7]))
    assert int(layer.embeddings.size()) == 1


def test_ten_million_keys_in_one_call():
    unique, n = 200_000, 10_000_000
    keys = np.resize(np.arange(unique) * 0x9E3779B97F4A7C1, n)
    table = tse.Embedding(None, 2, embeddings_initializer="normal", seed=1)
    output = table(tf.constant(keys), training=True).numpy()
    assert output.shape == (n, 2) and int(table.embeddings.size()) == unique
    rows = table.embeddings.lookup(keys[:unique]).numpy()
    assert (output.reshape(-1, unique, 2) == rows).all()
    pooled = tse.Embedding(None, 2, embeddings_initializer="normal", seed=1, combiner="sum")
    # Each bag holds 50 keys that follow one another in a circle of `unique`.
    ragged = tf.RaggedTensor.from_row_splits(keys, np.arange(0, n + 1, 50))
    sums = pooled(ragged).numpy().reshape(-1, unique // 50, 2)
    want = rows.astype(np.float64).reshape(-1, 50, 2).sum(1)
    np.testing.assert_allclose(sums[0], want, rtol=1e-4, atol=1e-5)
    assert (sums == sums[0]).all()
