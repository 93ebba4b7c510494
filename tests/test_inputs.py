"""What tse.Embedding takes: keys, weights and labels, dense, ragged and sparse, in layers and in models."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")
ALL_COMBINERS = (*reference.COMBINERS, "max")
V, D = 30, 3


@pytest.fixture(params=["slab", "index"])
def storage(request):
    """Two of the storages: what is tested here lies above them."""
    return request.param


def _layer(storage="slab", **kwargs):
    kwargs = {"embeddings_initializer": keras.initializers.RandomNormal(), "seed": 3} | kwargs
    return tse.Embedding(V if storage == "index" else None, D, storage=storage, **kwargs)


# The forms of keys, each as a function of random numbers; `_nested` makes Python lists of any of them.


def _ragged(rng, *lengths, inner=()):
    """Rows of 0 to 3 values, axis by axis: ragged_rank is the number of `lengths` (of upper bounds)."""
    splits, rows = [], rng.integers(2, 6)
    for bound in lengths:
        lengths_of_rows = rng.integers(0, bound, rows)
        splits.append(np.concatenate([[0], np.cumsum(lengths_of_rows)]))
        rows = splits[-1][-1]
    return tf.RaggedTensor.from_nested_row_splits(rng.integers(0, V, (rows, *inner)), splits)


def _sparse(rng, rank):
    shape = rng.integers(2, 5, rank)
    cells = np.argwhere(rng.random(shape) < 0.5)
    return tf.SparseTensor(cells, rng.integers(0, V, len(cells)), shape)


FORMS = {
    "dense_2": lambda rng: tf.constant(rng.integers(0, V, (5, 4))),
    "dense_3": lambda rng: tf.constant(rng.integers(0, V, (2, 3, 4))),
    "dense_4": lambda rng: tf.constant(rng.integers(0, V, (2, 1, 3, 2))),
    "ragged_1": lambda rng: _ragged(rng, 5),
    "ragged_2": lambda rng: _ragged(rng, 4, 4),
    "ragged_3": lambda rng: _ragged(rng, 3, 3, 4),
    "ragged_1_of_uniform_inner": lambda rng: _ragged(rng, 4, inner=(3,)),
    "ragged_2_of_uniform_inner": lambda rng: _ragged(rng, 3, 4, inner=(2,)),
    "ragged_1_of_two_uniform_inner": lambda rng: _ragged(rng, 4, inner=(2, 3)),
    "uniform_rows_of_ragged": lambda rng: tf.RaggedTensor.from_uniform_row_length(
        tf.RaggedTensor.from_row_lengths(rng.integers(0, V, 9), [2, 0, 3, 1, 0, 3]), 2
    ),
    "sparse_2": lambda rng: _sparse(rng, 2),
    "sparse_3": lambda rng: _sparse(rng, 3),
    "sparse_4": lambda rng: _sparse(rng, 4),
}
UNPOOLED = [form for form in FORMS if not form.startswith("sparse")]
SOME_FORMS = ["dense_2", "dense_3", "ragged_1", "ragged_2", "ragged_1_of_uniform_inner", "sparse_2", "sparse_3"]
FORMS_AND_MODES = [*((form, "eager") for form in FORMS), *((form, "graph") for form in SOME_FORMS)]


def _forms_and_combiners(forms, combiners):
    """Their product, but that sparse keys need a combiner."""
    return [(f, c) for f in forms for c in combiners if c is not None or not f.startswith("sparse")]


def _nested(values):
    """Python lists of the values; of sparse ones those that are there, the last axis ragged."""
    if isinstance(values, tf.RaggedTensor):
        return values.to_list()
    if not isinstance(values, tf.SparseTensor):
        return values.numpy().tolist()
    bags = np.empty(values.shape[:-1], object)
    for cell in np.ndindex(bags.shape):
        bags[cell] = []
    for cell, value in zip(values.indices.numpy(), values.values.numpy().tolist(), strict=True):
        bags[tuple(cell[:-1])].append(value)
    return bags.tolist()


def _rank(keys):
    return len(keys.shape)


def _pool(rows, weights, combiner):
    """The pooled row of one bag [n, D], in float64."""
    if combiner == "max":
        return rows.max(0) if len(rows) else np.zeros(rows.shape[1])
    c = reference.bag_coefficients([0, len(rows)], weights, combiner)
    return c @ rows if len(rows) else np.zeros(rows.shape[1])


def _twin(keys, weights, rank, rows_of, combiner):
    """The layer's output as nested lists: of nested lists of keys, their axes down to the last in lists."""
    if rank > 1:
        weights = [None] * len(keys) if weights is None else weights
        return [_twin(k, w, rank - 1, rows_of, combiner) for k, w in zip(keys, weights, strict=True)]
    rows = rows_of(keys)
    if combiner is None:
        return rows.tolist()
    return _pool(rows, np.ones(len(keys)) if weights is None else weights, combiner).tolist()


def _assert_nested(got, want):
    """Nested lists of equal shape and of nearly equal numbers."""
    if not isinstance(want, list):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-6)
        return
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        _assert_nested(g, w)


def _rows_of(layer):
    table = layer.embeddings.lookup(np.arange(V)).numpy().astype(np.float64)
    return lambda keys: table[np.array(keys, np.int64)].reshape(-1, D)


def _assert_output(layer, keys, weights=None, mode="eager"):
    layer.build()
    call = layer if mode == "eager" else tf.function(layer)
    output = call(keys) if weights is None else call(keys, weights=weights)
    want = _twin(
        _nested(keys), None if weights is None else _nested(weights), _rank(keys), _rows_of(layer), layer.combiner
    )
    _assert_nested(_nested(output), want)
    return output


@pytest.mark.parametrize("form, mode", FORMS_AND_MODES)
@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_keys_of_every_form_are_pooled_along_the_last_axis(form, pooled, mode, rng):
    layer = _layer(combiner=pooled)
    for _ in range(3 if mode == "eager" else 1):
        keys = FORMS[form](rng)
        output = _assert_output(layer, keys, mode=mode)
        assert output.shape.rank == _rank(keys)
        is_ragged = isinstance(keys, tf.RaggedTensor) and _rank(keys) > 2
        assert isinstance(output, tf.RaggedTensor) == is_ragged


@pytest.mark.parametrize("form", [*UNPOOLED, "dense_0", "dense_1"])
@pytest.mark.parametrize("mode", MODES)
def test_keys_of_every_form_have_a_row_each_without_a_combiner(storage, form, mode, rng):
    layer = _layer(storage)
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
    _assert_output(_layer(storage, combiner="mean"), FORMS[form](rng))


@pytest.mark.parametrize("form, pooled", _forms_and_combiners(SOME_FORMS, [None, "sum"]))
@pytest.mark.parametrize("dtype", ["int32", "string"])
@pytest.mark.parametrize("mode", MODES)
def test_int32_and_string_keys_of_every_form(form, pooled, dtype, mode, rng):
    layer = _layer(combiner=pooled)
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
    assert _nested(got) == _nested(want)
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
    layer = _layer(combiner="sum")
    layer(keys, training=True)
    np.testing.assert_array_equal(np.sort(layer.embeddings.export()[0]), np.sort(values))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_row_splits_of_both_dtypes(dtype):
    keys = tf.RaggedTensor.from_row_splits(np.arange(6), np.array([0, 2, 2, 6], dtype))
    _assert_output(_layer(combiner="sqrtn"), keys)
    output = _layer()(keys)
    assert output.row_splits.dtype == keys.row_splits.dtype


def test_the_offsets_of_torch_are_row_starts(rng):
    layer = _layer(combiner="sum")
    keys = rng.integers(0, V, 8)
    output = layer(tf.RaggedTensor.from_row_starts(keys, [0, 3, 3, 7]))
    rows = _rows_of(layer)(keys)
    want = [rows[:3].sum(0), np.zeros(D), rows[3:7].sum(0), rows[7:].sum(0)]
    np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-6)


def test_a_slice_of_ragged_keys(rng):
    keys = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, 12), [3, 0, 4, 1, 4])
    for part in (keys[1:4], keys[::2], keys[:, :2], keys[:0]):
        _assert_output(_layer(combiner="mean"), part)
        assert _nested(_layer()(part)) == [_layer()(np.array(bag, np.int64)).numpy().tolist() for bag in _nested(part)]


@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_key_0_is_left_out_of_bags_with_mask_zero(pooled):
    layer = _layer(combiner=pooled, mask_zero=True)
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


# Weights.


def _floats_like(keys, rng):
    """Random weights of the form of keys."""

    def drawn(values):
        return tf.constant(rng.uniform(0.5, 2.0, values.shape), tf.float32)

    if isinstance(keys, tf.RaggedTensor):
        return keys.with_flat_values(drawn(keys.flat_values))
    return keys.with_values(drawn(keys.values)) if isinstance(keys, tf.SparseTensor) else drawn(keys)


def _flat(values):
    if isinstance(values, tf.RaggedTensor):
        return values.flat_values
    return values.values if isinstance(values, tf.SparseTensor) else values


def _with_flat(like, values):
    if isinstance(like, tf.RaggedTensor):
        return like.with_flat_values(values)
    return like.with_values(values) if isinstance(like, tf.SparseTensor) else values


def _bag_ids(keys):
    """The number of each key's bag, in order of the flat keys, and the number of bags."""
    bags = []

    def walk(nested, rank):
        if rank > 1:
            for part in nested:
                walk(part, rank - 1)
        else:
            bags.append(len(nested))

    walk(_nested(keys), _rank(keys))
    return np.repeat(np.arange(len(bags)), bags), len(bags)


def _plain_pool(rows, weights, bag_ids, num_bags, combiner):
    """rows [n, D] pooled by TensorFlow's plain ops."""
    sums = tf.math.unsorted_segment_sum(rows * weights[:, tf.newaxis], bag_ids, num_bags)
    if combiner == "sum":
        return sums
    squares = weights if combiner == "mean" else weights**2
    divisor = tf.math.unsorted_segment_sum(squares, bag_ids, num_bags)[:, tf.newaxis]
    divisor = tf.where(divisor == 0, 1.0, divisor)
    return sums / (divisor if combiner == "mean" else tf.sqrt(divisor))


@pytest.mark.parametrize("form, mode", FORMS_AND_MODES)
def test_weights_of_every_form(form, combiner, mode, rng):
    layer = _layer(combiner=combiner)
    for _ in range(2 if mode == "eager" else 1):
        keys = FORMS[form](rng)
        _assert_output(layer, keys, _floats_like(keys, rng), mode)


@pytest.mark.parametrize("form", SOME_FORMS)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_weights_and_rows_of_every_form(form, combiner, mode, rng):
    layer = _layer(combiner=combiner)
    layer.build()
    keys = FORMS[form](rng)
    flat_weights = _flat(_floats_like(keys, rng))

    def gradients(flat_weights):
        with tf.GradientTape() as tape:
            tape.watch(flat_weights)
            output = layer(keys, weights=_with_flat(keys, flat_weights))
            output = tf.reshape(_flat(output), [-1, D])
            loss = tf.reduce_sum(tf.sin(output * 3.0))
        return tape.gradient(loss, [flat_weights, layer.embeddings])

    got_weights, got_rows = (gradients if mode == "eager" else tf.function(gradients))(flat_weights)
    table = tf.Variable(layer.embeddings.lookup(np.arange(V)))
    bag_ids, num_bags = _bag_ids(keys)
    with tf.GradientTape() as tape:
        tape.watch(flat_weights)
        rows = tf.gather(table, tf.reshape(_flat(keys), [-1]))
        pooled = _plain_pool(rows, tf.reshape(flat_weights, [-1]), bag_ids, num_bags, combiner)
        loss = tf.reduce_sum(tf.sin(pooled * 3.0))
    want_weights, want_rows = tape.gradient(loss, [flat_weights, table])
    assert got_weights.shape == flat_weights.shape
    np.testing.assert_allclose(got_weights, want_weights, rtol=1e-4, atol=1e-5)
    dense = np.zeros((V, D))
    np.add.at(dense, got_rows.indices.numpy(), got_rows.values.numpy())
    np.testing.assert_allclose(dense, tf.convert_to_tensor(want_rows), rtol=1e-4, atol=1e-5)


def test_weights_of_keys_that_are_left_out_do_not_count(combiner):
    layer = _layer(combiner=combiner, mask_zero=True)
    keys, weights = np.array([[0, 3, 0, 5]]), tf.constant([[7.0, 0.5, 9.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        output = layer(keys, weights=weights)
    want = layer(np.array([[3, 5]]), weights=np.array([[0.5, 2.0]], np.float32))
    np.testing.assert_array_equal(output, want)
    gradient = tape.gradient(output, weights).numpy()
    np.testing.assert_array_equal(gradient[0, [0, 2]], 0)
    assert np.abs(gradient[0, [1, 3]]).min() > 0


def test_the_weight_of_a_single_key(combiner):
    """A bag of one key is weighed too; mean and sqrtn cancel it."""
    layer = _layer(combiner=combiner)
    output = layer(np.array([[4]]), weights=np.array([[2.0]], np.float32))
    scale = 2.0 if combiner == "sum" else 1.0
    np.testing.assert_allclose(output, scale * layer.embeddings.lookup([4]), rtol=1e-6)


BAD_WEIGHTS = {
    # keys, weights, the error
    "dense_of_another_shape": (np.ones((2, 3), int), np.ones((2, 2), np.float32), BAD_ARGUMENT),
    "dense_that_would_broadcast": (np.ones((2, 3), int), np.ones((2, 1), np.float32), BAD_ARGUMENT),
    "dense_of_one_for_each_bag": (np.ones((2, 3), int), np.ones(2, np.float32), BAD_ARGUMENT),
    "ints": (np.ones((2, 3), int), np.ones((2, 3), int), TypeError),
    "ragged_for_dense": (np.ones((1, 2), int), tf.ragged.constant([[1.0, 2.0]]), (TypeError, ValueError)),
    "sparse_for_dense": (np.ones((1, 2), int), tf.sparse.from_dense([[1.0, 2.0]]), (TypeError, ValueError)),
    "dense_for_ragged": (tf.ragged.constant([[1, 2]]), np.ones((1, 2), np.float32), TypeError),
    "other_row_splits": (tf.ragged.constant([[1, 2], [3]]), tf.ragged.constant([[1.0], [2.0, 3.0]]), BAD_ARGUMENT),
    "another_ragged_rank": (tf.ragged.constant([[[1, 2]]]), tf.ragged.constant([[1.0, 2.0]]), BAD_ARGUMENT),
    "fewer_inner_axes": (
        tf.RaggedTensor.from_row_lengths(np.ones((3, 2), int), [2, 1]),
        tf.ragged.constant([[1.0, 2.0], [3.0]]),
        BAD_ARGUMENT,
    ),
    "dense_for_sparse": (tf.sparse.from_dense([[1, 2]]), np.ones((1, 2), np.float32), TypeError),
    "other_indices": (tf.sparse.from_dense([[1, 0, 2]]), tf.sparse.from_dense([[1.0, 2.0, 0.0]]), BAD_ARGUMENT),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@pytest.mark.parametrize("mode", MODES)
def test_weights_that_are_not_like_the_keys_are_an_error(case, mode):
    keys, weights, error = BAD_WEIGHTS[case]
    layer = _layer(combiner="mean")
    layer.build()

    def call():
        return layer(keys, weights=weights, training=True)

    with pytest.raises(error, match="weights"):
        (call if mode == "eager" else tf.function(call))()
    # In a graph, what is known at run time alone may be checked beside the lookup.
    assert mode == "graph" or int(layer.embeddings.size()) == 0


def test_dense_weights_whose_shape_is_known_at_run_time_are_checked_there(combiner):
    layer = _layer(combiner=combiner)
    layer.build()
    specs = [tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None, None], tf.float32)]
    call = tf.function(lambda keys, weights: layer(keys, weights=weights), input_signature=specs)
    assert call(tf.ones([2, 3], tf.int64), tf.ones([2, 3])).shape == (2, D)
    for shape in ([2, 2], [2, 1], [3, 2], [1, 6]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="weights.* must have the shape of the keys"):
            call(tf.ones([2, 3], tf.int64), tf.ones(shape))


@pytest.mark.parametrize("pooled", [None, "max"])
def test_weights_without_a_combiner_that_takes_them_are_a_value_error(pooled):
    with pytest.raises(ValueError, match="(?s)weights.* need a combiner.*sum.*mean.*sqrtn"):
        _layer(combiner=pooled)(np.ones((2, 3), int), weights=np.ones((2, 3), np.float32))


# What is refused.


def test_sparse_keys_without_a_combiner_are_a_value_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="(?s)sparse keys need a combiner.*from_sparse.*to_dense"):
        _layer()(tf.sparse.from_dense([[1, 2]]))


def test_sparse_keys_out_of_order_are_an_error(combiner):
    keys = tf.SparseTensor([[1, 0], [0, 0]], np.array([1, 2]), [2, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="row-major order; see tf.sparse.reorder"):
        _layer(combiner=combiner)(keys)


@pytest.mark.parametrize("form", ["ragged_1", "sparse_2"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.uint64])
def test_keys_of_another_dtype_are_a_type_error_that_names_it(form, dtype, rng):
    keys = FORMS[form](rng)
    keys = _with_flat(keys, tf.cast(_flat(keys), dtype))
    with pytest.raises(TypeError, match=f"must be int32, int64 or string, got {dtype.name}"):
        _layer(combiner="sum")(keys)


OUT_OF_RANGE = {
    "dense": (np.array([[1, 2], [3, V]]), r"keys\[1, 1\]"),
    "ragged": (tf.ragged.constant([[1, 2], [], [3, 4, V]]), r"keys\[2, 2\]"),
    "sparse": (tf.SparseTensor([[0, 0], [2, 7]], np.array([1, V]), [3, 9]), r"keys\[2, 0\]"),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_a_key_out_of_range_is_an_error_with_position_value_and_layer(case):
    keys, where = OUT_OF_RANGE[case]
    layer = _layer("index", combiner="mean", name="item")
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


@pytest.mark.parametrize("case, pooled", _forms_and_combiners(EMPTY_BATCHES, [None, "mean", "max"]))
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_without_keys_gives_zeros_and_no_gradient(case, pooled, mode):
    keys = EMPTY_BATCHES[case]
    layer = _layer(combiner=pooled)
    layer.build()

    def call():
        with tf.GradientTape() as tape:
            output = layer(keys, training=True)
            loss = tf.reduce_sum(_flat(output))
        gradient = tape.gradient(loss, layer.embeddings)
        return output, gradient.values, gradient.indices

    output, values, indices = (call if mode == "eager" else tf.function(call))()
    shape = keys.shape if pooled is None else keys.shape[:-1]
    assert output.shape.is_compatible_with([*shape, D])
    np.testing.assert_array_equal(_flat(output), np.zeros(_flat(output).shape))
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
    layer = _layer(combiner=pooled)
    output = layer(keys, training=True)
    np.testing.assert_array_equal(np.reshape(_flat(output), [1, D]), layer.embeddings.lookup([7]))
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


# Models.

RAGGED_KEYS = tf.ragged.constant([[1, 2, 3], [], [4], [5, 6, 5, 1], [2, 2], [7], [], [8, 1, 9]] * 2, dtype=tf.int64)
TARGETS = np.sin(np.arange(16.0)).astype(np.float32)[:, None]


def _as_form(form, ragged):
    return ragged.to_sparse() if form == "sparse" else ragged


def _model(form, pooled="mean", weighted=False, optimizer=None, layer=None):
    layer = layer or _layer(combiner=pooled)
    inputs = [keras.Input((None,), dtype="int64", **{form: True})]
    if weighted:
        inputs.append(keras.Input((None,), dtype="float32", **{form: True}))
    output = layer(inputs[0], weights=inputs[1]) if weighted else layer(inputs[0])
    output = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=2))(output)
    model = keras.Model(inputs, output)
    model.compile(optimizer or tse.optimizers.SGD(0.2), "mse")
    return model, layer


def _twin_model(pooled, rows, learning_rate, epochs, batch_size, weights=None):
    """The rows and predictions of the same model made of plain variables and trained by plain SGD."""
    table = tf.Variable(rows)
    kernel = tf.Variable(keras.initializers.GlorotUniform(seed=2)((D, 1)))
    bias = tf.Variable(tf.zeros([1]))

    def predict(begin, end):
        bags = RAGGED_KEYS[begin:end]
        flat = tf.ones_like(bags.flat_values, tf.float32) if weights is None else weights[begin:end].flat_values
        x = tf.gather(table, bags.flat_values)
        return _plain_pool(x, flat, bags.value_rowids(), bags.nrows(), pooled) @ kernel + bias

    for _ in range(epochs):
        for begin in range(0, 16, batch_size):
            with tf.GradientTape() as tape:
                end = begin + batch_size
                loss = tf.reduce_mean((predict(begin, end) - TARGETS[begin:end]) ** 2)
            variables = [table, kernel, bias]
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
                variable.assign_sub(learning_rate * tf.convert_to_tensor(gradient))
    return table.numpy(), predict(0, 16).numpy()


@pytest.mark.parametrize(
    "form, source, weighted, pooled",
    [
        *[("ragged", "arrays", True, pooled) for pooled in reference.COMBINERS],
        *[("sparse", "dataset", True, pooled) for pooled in reference.COMBINERS],
        ("ragged", "dataset", False, "mean"),
        ("sparse", "arrays", False, "mean"),
    ],
)
def test_ragged_and_sparse_inputs_of_functional_models_train_as_plain_variables_do(form, source, weighted, pooled):
    weights = tf.cast(RAGGED_KEYS, tf.float32) * 0.2 + 0.5
    model, layer = _model(form, pooled, weighted)
    layer.embeddings.lookup(np.arange(V), insert=True)
    rows = layer.embeddings.lookup(np.arange(V)).numpy()
    x = [_as_form(form, RAGGED_KEYS), _as_form(form, weights)] if weighted else _as_form(form, RAGGED_KEYS)
    if source == "arrays":
        model.fit(x, TARGETS, batch_size=4, epochs=2, shuffle=False, verbose=0)
        predictions = model.predict(x, batch_size=4, verbose=0)
    else:
        data = tf.data.Dataset.from_tensor_slices((tuple(x) if weighted else x, TARGETS)).batch(4)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        predictions = model.predict(data, verbose=0)
    want_rows, want = _twin_model(pooled, rows, 0.2, 2, 4, weights if weighted else None)
    np.testing.assert_allclose(layer.embeddings.lookup(np.arange(V)), want_rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predictions, want, rtol=1e-4, atol=1e-6)
    assert np.abs(want_rows - rows).max() > 1e-3


@pytest.mark.parametrize("form", ["ragged", "sparse"])
@pytest.mark.parametrize("pooled, run_eagerly", [("mean", True), ("max", False)])
def test_fit_learns_and_inserts_predict_does_not(form, pooled, run_eagerly):
    model, layer = _model(form, pooled, optimizer=tse.optimizers.RowWiseAdagrad(0.2))
    model.compile(model.optimizer, "mse", run_eagerly=run_eagerly)
    keys = _as_form(form, RAGGED_KEYS)
    model.predict(keys, verbose=0)
    assert int(layer.embeddings.size()) == 0
    losses = model.fit(keys, TARGETS, batch_size=4, epochs=5, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert int(layer.embeddings.size()) == 9


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("how", ["batch", "ragged_batch", "generator", "map"])
def test_a_tf_data_pipeline_of_ragged_batches(how):
    rows = RAGGED_KEYS.to_list()
    if how == "batch":
        data = tf.data.Dataset.from_tensor_slices((RAGGED_KEYS, TARGETS)).batch(4)
    elif how == "map":
        data = tf.data.Dataset.from_tensor_slices((RAGGED_KEYS, TARGETS)).batch(4)
        data = data.map(lambda k, y: (tf.RaggedTensor.from_row_splits(k.values, k.row_splits), y))
    else:
        data = tf.data.Dataset.from_generator(
            lambda: zip(rows, TARGETS, strict=True),
            output_signature=(tf.TensorSpec([None], tf.int64), tf.TensorSpec([1], tf.float32)),
        )
        data = data.ragged_batch(4) if how == "ragged_batch" else data.apply(_dense_to_ragged(4))
    model, layer = _model("ragged")
    model.fit(data.prefetch(2), epochs=2, shuffle=False, verbose=0)
    other_model, other = _model("ragged")
    other_model.fit(RAGGED_KEYS, TARGETS, batch_size=4, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(layer(RAGGED_KEYS), other(RAGGED_KEYS), rtol=1e-6)
    assert int(layer.embeddings.size()) == 9


def _dense_to_ragged(batch_size):
    return tf.data.experimental.dense_to_ragged_batch(batch_size)


def test_string_keys_from_a_tf_data_pipeline():
    words = tf.ragged.constant([["a", "b"], [], ["c"], ["a", "a"]])
    layer = _layer(combiner="sum")
    inputs = keras.Input((None,), dtype="string", ragged=True)
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((words, np.ones((4, 1)))).batch(2), shuffle=False, verbose=0)
    assert int(layer.embeddings.size()) == 3


def test_a_functional_model_without_a_combiner_gives_ragged_rows():
    layer = _layer()
    inputs = keras.Input((None,), dtype="int64", ragged=True)
    output = layer(inputs)
    assert output.shape == (None, None, D) and output.ragged
    model = keras.Model(inputs, output)
    for got in (model(RAGGED_KEYS), model.predict(RAGGED_KEYS, batch_size=4, verbose=0)):
        assert isinstance(got, tf.RaggedTensor)
        assert _nested(got) == _nested(layer(RAGGED_KEYS))


def test_symbolic_shapes_of_ragged_and_sparse_inputs():
    for form in ("ragged", "sparse"):
        output = _layer(combiner="sum")(keras.Input((None,), dtype="int64", **{form: True}))
        assert output.shape == (None, D) and not output.ragged and not output.sparse
    output = _layer(combiner="sum")(keras.Input((None, None), dtype="int64", ragged=True))
    assert output.shape == (None, None, D) and output.ragged
    output = _layer(combiner="sum")(keras.Input((5, None), dtype="string", sparse=True))
    assert output.shape == (None, 5, D) and not output.sparse


def test_a_symbolic_sparse_input_without_a_combiner_is_a_value_error():
    with pytest.raises(ValueError, match="sparse keys need a combiner"):
        _layer()(keras.Input((None,), dtype="int64", sparse=True))


def test_batches_of_any_size_in_one_model(rng):
    model, layer = _model("ragged")
    for lengths in ([0], [0, 0, 0], [5], [1, 0, 2, 7]):
        keys = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, sum(lengths)), lengths)
        model.train_on_batch(keys, np.ones((len(lengths), 1)))
        assert model.predict_on_batch(keys).shape == (len(lengths), 1)


# Counts.


class CountsTwin:
    """{key: [seen, clicked]}, decayed at every update."""

    def __init__(self, decay=1.0):
        self.decay, self.counts = decay, {}

    def count(self, keys, labels=None):
        for n, key in enumerate(keys):
            counts = self.counts.setdefault(key, np.zeros(2))
            counts += [1.0, 0.0 if labels is None else labels[n]]

    def update(self):
        for counts in self.counts.values():
            counts *= self.decay

    def of(self, keys, width):
        return np.array([self.counts.get(key, np.zeros(2))[:width] for key in keys]).reshape(-1, width)


def _assert_counts(layer, twin, rtol=1e-12):
    keys = np.arange(-1, V + 1) if layer.input_dim is None else np.arange(V)
    width = {"seen": 1, "clicked": 2}[layer.counts]
    np.testing.assert_allclose(layer.embeddings.key_counts(keys), twin.of(keys.tolist(), width), rtol=rtol)


@pytest.mark.parametrize("counts", ["seen", "clicked"])
@pytest.mark.parametrize("form, pooled", _forms_and_combiners(SOME_FORMS, [None, "mean"]))
@pytest.mark.parametrize("mode", MODES)
def test_training_counts_each_occurrence_of_a_key(counts, form, pooled, mode, rng):
    layer, twin = _layer(counts=counts, combiner=pooled), CountsTwin()
    layer.build()
    call = layer if mode == "eager" else tf.function(layer)
    for _ in range(2):
        keys = FORMS[form](rng)
        call(keys, training=True)
        twin.count(np.reshape(_flat(keys), -1).tolist())
    _assert_counts(layer, twin)


LABELS = {
    # keys, labels, the label of each of the flat keys
    "dense_2_rows": ([[3, 4], [4, 4]], [1.0, 2.0], [1, 1, 2, 2]),
    "dense_2_all": ([[3, 4], [4, 4]], [[1.0, 2.0], [3.0, 4.0]], [1, 2, 3, 4]),
    "dense_2_rows_as_keras_has_them": ([[3, 4], [4, 4]], [[1.0], [2.0]], [1, 1, 2, 2]),
    "dense_2_of_one_key_each": ([[3], [4]], [[1.0], [2.0]], [1, 2]),
    "dense_3_rows": ([[[3, 4]], [[4, 4]]], [1.0, 2.0], [1, 1, 2, 2]),
    "dense_3_bags": ([[[3, 4], [5, 6]]], [[1.0, 2.0]], [1, 1, 2, 2]),
    "dense_3_all": ([[[3, 4], [5, 6]]], [[[1.0, 2.0], [3.0, 4.0]]], [1, 2, 3, 4]),
    "ragged_rows": (tf.ragged.constant([[3, 4], [], [4]]), [1.0, 7.0, 2.0], [1, 1, 2]),
    "ragged_rows_as_keras_has_them": (tf.ragged.constant([[3, 4], [], [4]]), [[1.0], [7.0], [2.0]], [1, 1, 2]),
    "ragged_all": (tf.ragged.constant([[3, 4], [], [4]]), tf.ragged.constant([[1.0, 2.0], [], [3.0]]), [1, 2, 3]),
    "ragged_2_rows": (tf.ragged.constant([[[3, 4], [5]], [[]], [[4]]]), [1.0, 7.0, 2.0], [1, 1, 1, 2]),
    "ragged_2_bags": (
        tf.ragged.constant([[[3, 4], [5]], [[]], [[4]]]),
        tf.ragged.constant([[1.0, 2.0], [7.0], [3.0]]),
        [1, 1, 2, 3],
    ),
    "ragged_2_all": (
        tf.ragged.constant([[[3, 4], [5]], [[]], [[4]]]),
        tf.ragged.constant([[[1.0, 2.0], [3.0]], [[]], [[4.0]]]),
        [1, 2, 3, 4],
    ),
    "ragged_of_uniform_inner_rows": (
        tf.RaggedTensor.from_row_lengths([[3, 4], [5, 6], [4, 4]], [2, 1]),
        [1.0, 2.0],
        [1, 1, 1, 1, 2, 2],
    ),
    "ragged_of_uniform_inner_bags": (
        tf.RaggedTensor.from_row_lengths([[3, 4], [5, 6], [4, 4]], [2, 1]),
        tf.ragged.constant([[1.0, 2.0], [3.0]]),
        [1, 1, 2, 2, 3, 3],
    ),
    "sparse_rows": (tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [3, 4, 4], [4, 2]), [1.0, 7.0, 2.0, 7.0], [1, 1, 2]),
    "sparse_rows_as_keras_has_them": (
        tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [3, 4, 4], [4, 2]),
        [[1.0], [7.0], [2.0], [7.0]],
        [1, 1, 2],
    ),
    "sparse_all": (
        tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [3, 4, 4], [4, 2]),
        tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [1.0, 2.0, 3.0], [4, 2]),
        [1, 2, 3],
    ),
    "sparse_3_rows": (tf.SparseTensor([[0, 0, 0], [0, 1, 1], [1, 0, 0]], [3, 4, 4], [2, 2, 2]), [1.0, 2.0], [1, 1, 2]),
    "sparse_3_bags": (
        tf.SparseTensor([[0, 0, 0], [0, 1, 1], [1, 0, 0]], [3, 4, 4], [2, 2, 2]),
        [[1.0, 2.0], [3.0, 7.0]],
        [1, 2, 3],
    ),
}


@pytest.mark.parametrize(
    "case, pooled, mode",
    [
        *((case, pooled, "eager") for case, pooled in _forms_and_combiners(LABELS, [None, "mean"])),
        *((case, "mean", "graph") for case in LABELS),
    ],
)
def test_labels_of_keys_or_of_their_leading_axes_are_added_up(case, pooled, mode):
    keys, labels, of_each = LABELS[case]
    layer, twin = _layer(counts="clicked", combiner=pooled), CountsTwin()
    layer.build()
    if isinstance(keys, list):
        keys = np.array(keys)
    if isinstance(labels, list):
        labels = np.array(labels, np.float32)

    def call():
        return layer(keys, labels=labels, training=True)

    for _ in range(2):
        (call if mode == "eager" else tf.function(call))()
        twin.count(np.reshape(_flat(keys), -1).tolist(), of_each)
    _assert_counts(layer, twin)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64, np.float16, bool])
def test_labels_of_any_number(dtype):
    layer = _layer(counts="clicked")
    layer(np.array([[3, 4], [3, 3]]), labels=np.array([1, 0], dtype), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([3, 4]), [[3, 1], [1, 1]])


def test_labels_keep_their_bits_under_a_low_precision_policy():
    layer = _layer(counts="clicked", dtype="mixed_bfloat16")
    layer(np.array([3]), labels=np.array([1.0009765625], np.float32), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([3]), [[1, 1.0009765625]])


BAD_LABELS = {
    "dense_of_another_batch": (np.ones((3, 2), int), np.ones(2)),
    "dense_of_one": (np.ones((3, 2), int), np.ones(1)),
    "dense_of_another_shape": (np.ones((3, 2), int), np.ones((3, 3))),
    "dense_with_a_last_axis_of_one_of_another_batch": (np.ones((3, 2), int), np.ones((2, 1))),
    "ragged_of_another_batch": (tf.ragged.constant([[3, 4], [4]]), np.ones(3)),
    "ragged_of_one": (tf.ragged.constant([[3, 4], [4]]), np.ones(1)),
    "other_row_splits": (tf.ragged.constant([[3, 4], [4]]), tf.ragged.constant([[1.0], [2.0, 3.0]])),
    "sparse_of_fewer_rows": (tf.SparseTensor([[0, 0], [2, 0]], [3, 4], [3, 1]), np.ones(2)),
    "sparse_of_more_rows": (tf.SparseTensor([[0, 0], [2, 0]], [3, 4], [3, 1]), np.ones(4)),
    "other_indices": (
        tf.SparseTensor([[0, 0], [2, 0]], [3, 4], [3, 1]),
        tf.SparseTensor([[0, 0], [1, 0]], [1.0, 1.0], [3, 1]),
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
@pytest.mark.parametrize("mode", MODES)
def test_labels_that_do_not_fit_the_keys_are_an_error(case, mode):
    keys, labels = BAD_LABELS[case]
    layer = _layer(counts="clicked", combiner="sum")
    layer.build()

    def call():
        return layer(keys, labels=labels, training=True)

    with pytest.raises((*BAD_ARGUMENT, TypeError)):
        (call if mode == "eager" else tf.function(call))()
    assert mode == "graph" or int(layer.embeddings.size()) == 0


@pytest.mark.parametrize("counts", [None, "seen"])
def test_labels_of_a_table_that_does_not_count_them_are_a_value_error(counts):
    with pytest.raises(ValueError, match="labels need counts='clicked'"):
        _layer(counts=counts)(np.array([1]), labels=np.array([1.0]), training=True)


@pytest.mark.parametrize("training", [False, None])
def test_nothing_is_counted_outside_of_training(storage, training):
    layer = _layer(storage, counts="clicked")
    layer(np.array([1, 2]), training=True)
    layer(np.array([1, 2]), labels=np.array([1.0, 1.0]), training=training)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2, 3]), [[1, 0], [1, 0], [0, 0]])


def test_a_frozen_layer_counts_nothing(storage):
    layer = _layer(storage, counts="seen")
    layer(np.array([1, 2]), training=True)
    layer.trainable = False
    layer(np.array([1, 2]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2]), [[1], [1]])


@pytest.mark.parametrize("pooled", [None, "mean", "max"])
def test_a_padding_key_is_not_counted(storage, pooled):
    layer = _layer(storage, counts="clicked", padding_idx=5, combiner=pooled)
    layer(np.array([[1, 5], [5, 5]]), labels=np.array([1.0, 1.0]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 5]), [[1, 1], [0, 0]])


def test_key_0_is_not_counted_where_bags_leave_it_out(storage):
    layer = _layer(storage, counts="clicked", mask_zero=True, combiner="sum")
    layer(np.array([[0, 1], [0, 2]]), labels=np.array([[7.0, 1.0], [7.0, 2.0]]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([0, 1, 2]), [[0, 0], [1, 1], [1, 2]])


@pytest.mark.parametrize("optimizer", ["SGD", "RowWiseAdagrad", "RowWiseAdam"])
@pytest.mark.parametrize("counts", ["seen", "clicked"])
@pytest.mark.parametrize("mode", MODES)
def test_counts_decay_at_every_step_of_the_optimizer(storage, optimizer, counts, mode, rng):
    decay = 0.75  # exact in float32
    layer, twin = _layer(storage, counts=counts, count_decay=decay, combiner="mean"), CountsTwin(decay)
    layer.build()
    optimizer = getattr(tse.optimizers, optimizer)(0.1)
    optimizer.build([layer.embeddings])

    def step(keys, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(keys, labels=labels, training=True) ** 2)
        optimizer.apply_gradients([(tape.gradient(loss, layer.embeddings), layer.embeddings)])

    step = step if mode == "eager" else tf.function(step)
    for _ in range(6):
        # From step to step other keys: most miss several steps, and are decayed when they are read.
        keys, labels = rng.integers(0, V, (3, 2)), rng.integers(0, 2, 3).astype(np.float32)
        step(tf.constant(keys), tf.constant(labels) if counts == "clicked" else None)
        twin.count(keys.reshape(-1).tolist(), np.repeat(labels, 2))
        twin.update()
        _assert_counts(layer, twin)
    keys, rows, got = (np.asarray(x) for x in layer.embeddings.export(with_counts=True))
    assert len(keys) == len(rows) == (V if storage == "index" else len(twin.counts))
    np.testing.assert_allclose(got, twin.of(keys.tolist(), got.shape[1]), rtol=1e-12)


def test_a_decay_that_float32_does_not_hold_is_the_one_given():
    """After many steps a decay rounded to float32 would be off by as many roundings."""
    layer = tse.Embedding(10, 2, counts="seen", count_decay=0.999)
    layer(np.array([1]), training=True)
    optimizer = tse.optimizers.SGD(0.1)
    optimizer.build([layer.embeddings])
    step = tf.function(lambda: optimizer.apply_gradients([(gradient, layer.embeddings)]))
    gradient = tf.IndexedSlices(tf.zeros([1, 2]), tf.constant([2], tf.int64), tf.constant([2**62, 2], tf.int64))
    for _ in range(300):
        step()
    np.testing.assert_allclose(layer.embeddings.key_counts([1]), [[0.999**300]], rtol=1e-9)


def test_two_calls_in_a_step_are_counted_both():
    layer, twin = _layer(counts="seen", count_decay=0.5), CountsTwin(0.5)
    optimizer = tse.optimizers.SGD(0.1)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(np.array([1, 2, 1]), training=True)) + tf.reduce_sum(
                layer(np.array([[2, 3]]), training=True)
            )
        optimizer.apply_gradients([(tape.gradient(loss, layer.embeddings), layer.embeddings)])
        twin.count([1, 2, 1, 2, 3])
        twin.update()
    _assert_counts(layer, twin)


def test_fit_counts_every_key_of_every_epoch(storage, rng):
    keys = rng.integers(0, V, (16, 3))
    layer, twin = _layer(storage, counts="seen", combiner="mean"), CountsTwin()
    inputs = keras.Input((3,), dtype="int64")
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(keys, TARGETS, batch_size=4, epochs=3, verbose=0)
    model.predict(keys, verbose=0)
    twin.count(np.tile(keys.reshape(-1), 3).tolist())
    _assert_counts(layer, twin)


def test_labels_as_an_input_of_a_functional_model():
    layer = _layer(counts="clicked", combiner="sum")
    keys, labels = keras.Input((2,), dtype="int64"), keras.Input((), dtype="float32")
    model = keras.Model([keys, labels], keras.layers.Dense(1)(layer(keys, labels=labels)))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit([np.array([[1, 2], [2, 3]]), np.array([1.0, 0.0])], np.ones((2, 1)), verbose=0)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2, 3]), [[1, 1], [2, 1], [1, 0]])


def test_key_counts_have_the_shape_of_the_keys(storage):
    layer = _layer(storage, counts="clicked")
    layer(np.array([1, 1, 2]), labels=np.array([1.0, 0.0, 3.0]), training=True)
    counts = layer.embeddings.key_counts(tf.constant([[1, 2], [3, 1]], tf.int32))
    assert counts.dtype == tf.float64
    np.testing.assert_array_equal(counts, [[[2, 1], [1, 3]], [[0, 0], [2, 1]]])
    assert layer.embeddings.key_counts(np.zeros((0, 4), np.int64)).shape == (0, 4, 2)


def test_the_counts_of_a_table_that_counts_nothing_are_a_value_error(storage):
    layer = _layer(storage)
    layer(np.array([1]), training=True)
    with pytest.raises(ValueError, match="(?s)counts nothing.*seen.*clicked"):
        layer.embeddings.key_counts([1, 2])


def test_counts_do_not_change_what_is_learned(rng):
    tables = []
    for counts in (None, "seen", "clicked"):
        layer = _layer(counts=counts, combiner="mean")
        inputs = keras.Input((3,), dtype="int64")
        dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
        model = keras.Model(inputs, dense(layer(inputs)))
        model.compile(tse.optimizers.RowWiseAdam(0.1), "mse")
        model.fit(np.arange(48).reshape(16, 3) % V, TARGETS, batch_size=4, shuffle=False, verbose=0)
        tables.append(layer.embeddings.lookup(np.arange(V)).numpy())
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])
