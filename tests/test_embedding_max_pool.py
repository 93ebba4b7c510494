"""EmbeddingMaxPool: the greatest element of each bag, which row it is of, its derivatives, shapes and errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")
UNIQUE, KEYS = 7, 23
ROW_SPLITS = {
    "bags": [0, 4, 4, 9, 10, 23],
    "empty_first_and_last": [0, 0, 12, 23, 23],
    "one_bag": [0, 23],
    "one_key_a_bag": list(range(24)),
    "many_empty_bags": [0, 0, 0, 5, 5, 5, 23, 23, 23],
}


def _max_pool(rows, inverse, row_splits):
    """values and argmax [B, D]: of equal elements the first wins, NaN wins over all, an empty bag is zeros and -1."""
    rows = np.asarray(rows)
    values = np.zeros((len(row_splits) - 1, rows.shape[1]), np.float32)
    argmax = np.full(values.shape, -1, np.int32)
    for b, (begin, end) in enumerate(zip(row_splits[:-1], row_splits[1:], strict=True)):
        for d in range(rows.shape[1]):
            for u in inverse[begin:end]:
                best, x = values[b, d], rows[u, d]
                if argmax[b, d] < 0 or x > best or (np.isnan(x) and not np.isnan(best)):
                    values[b, d], argmax[b, d] = x, u
    return values, argmax


def _max_pool_grad(grad, argmax, num_unique):
    rows = np.zeros((num_unique, grad.shape[1]))
    for b, d in np.ndindex(*grad.shape):
        if argmax[b, d] >= 0:
            rows[argmax[b, d], d] += grad[b, d]
    return rows


def _inputs(rng, dim=3):
    """Rows whose elements differ by 0.1 at least, so that numerical differences cannot change which is greatest."""
    rows = (rng.permutation(UNIQUE * dim).reshape(UNIQUE, dim) * 0.1 - 1).astype(np.float32)
    return rows, rng.integers(0, UNIQUE, KEYS).astype(np.int32)


def _assert_pooled(rows, inverse, row_splits):
    values, argmax = library.sparse_emb_embedding_max_pool(rows, inverse, row_splits)
    want_values, want_argmax = _max_pool(rows, inverse, row_splits)
    assert (values.dtype, argmax.dtype) == (tf.float32, tf.int32)
    np.testing.assert_array_equal(values, want_values)
    np.testing.assert_array_equal(argmax, want_argmax)
    np.testing.assert_array_equal(tse.ops.embedding_max_pool(rows, inverse, row_splits), want_values)


@pytest.mark.parametrize("splits", ROW_SPLITS)
def test_the_greatest_of_each_bag(dim, splits, rng):
    _assert_pooled(*_inputs(rng, dim), ROW_SPLITS[splits])


@pytest.mark.parametrize("seed", range(20))
def test_random_bags_with_many_ties(dim, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 2, (9, dim)).astype(np.float32)
    n = rng.integers(0, 60)
    row_splits = [0, *np.sort(rng.integers(0, n + 1, rng.integers(0, 12))), n]
    _assert_pooled(rows, rng.integers(0, 9, n).astype(np.int32), row_splits)


def test_of_equal_elements_the_first_wins():
    rows = np.array([[1, 5], [1, 5], [0, 7]], np.float32)
    _, argmax = library.sparse_emb_embedding_max_pool(rows, [1, 0, 2, 2, 1], [0, 2, 5])
    np.testing.assert_array_equal(argmax, [[1, 1], [1, 2]])


def test_the_zeros_are_equal_whatever_their_sign():
    values, argmax = library.sparse_emb_embedding_max_pool([[-0.0], [0.0]], [0, 1, 1, 0], [0, 2, 4])
    np.testing.assert_array_equal(argmax, [[0], [1]])
    np.testing.assert_array_equal(np.signbit(values), [[True], [False]])


def test_bags_of_negative_rows_are_negative():
    """The zeros of an empty bag do not compete."""
    rows = np.array([[-3.0], [-1e-30], [-np.inf]], np.float32)
    _assert_pooled(rows, [0, 1, 2, 2, 0], [0, 2, 4, 4, 5])


@pytest.mark.parametrize("position", range(4))
def test_nan_wins_wherever_it_stands(dim, position, rng):
    rows = rng.normal(size=(4, dim)).astype(np.float32)
    rows[position, 0] = np.nan
    rows[(position + 1) % 4, dim - 1] = np.inf
    _assert_pooled(rows, [0, 1, 2, 3, 3, 2, 1, 0], [0, 4, 8])
    rows[:, 0] = np.nan
    _assert_pooled(rows, [0, 1, 2, 3, 3, 2, 1, 0], [0, 4, 8])


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_infinities_are_compared_as_numbers(infinity, rng):
    rows = rng.normal(size=(4, 3)).astype(np.float32)
    rows[2] = infinity
    _assert_pooled(rows, [0, 2, 1, 2, 2, 3], [0, 3, 5, 6])


@pytest.mark.parametrize("num_rows, row_splits, bags", [(0, [0], 0), (0, [0, 0, 0], 2), (5, [0, 0], 1)])
def test_an_empty_batch(dim, num_rows, row_splits, bags):
    rows, inverse = tf.Variable(np.ones((num_rows, dim), np.float32)), np.zeros(0, np.int32)
    with tf.GradientTape() as tape:
        pooled = tse.ops.embedding_max_pool(rows, inverse, row_splits)
    np.testing.assert_array_equal(pooled, np.zeros((bags, dim)))
    np.testing.assert_array_equal(tape.gradient(pooled, rows), np.zeros((num_rows, dim)))


def test_a_batch_large_enough_to_be_sharded(rng):
    rows = rng.normal(size=(5000, 17)).astype(np.float32)
    inverse = rng.integers(0, 5000, 60_000).astype(np.int32)
    row_splits = np.concatenate([[0], np.sort(rng.integers(0, inverse.size, 3999)), [inverse.size]])
    pooled = tse.ops.embedding_max_pool(rows, inverse, row_splits).numpy()
    for b, (begin, end) in enumerate(zip(row_splits[:-1], row_splits[1:], strict=True)):
        want = rows[inverse[begin:end]].max(0) if end > begin else np.zeros(17)
        np.testing.assert_array_equal(pooled[b], want)


@pytest.mark.parametrize("splits", ROW_SPLITS)
@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_goes_to_the_greatest(dim, splits, mode, rng):
    rows, inverse = _inputs(rng, dim)
    rows = np.round(rows)  # some are equal
    row_splits = ROW_SPLITS[splits]
    upstream = rng.normal(size=(len(row_splits) - 1, dim)).astype(np.float32)

    def gradient(r):
        with tf.GradientTape() as tape:
            tape.watch(r)
            loss = tf.reduce_sum(tse.ops.embedding_max_pool(r, inverse, row_splits) * upstream)
        return tape.gradient(loss, r)

    got = (gradient if mode == "eager" else tf.function(gradient))(tf.constant(rows))
    want = _max_pool_grad(upstream, _max_pool(rows, inverse, row_splits)[1], UNIQUE)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_only_the_first_of_equal_elements_gets_the_gradient():
    rows = tf.Variable([[1.0, 2.0], [1.0, 2.0], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        pooled = tse.ops.embedding_max_pool(rows, [1, 2, 0, 1], [0, 4])
    np.testing.assert_array_equal(tape.gradient(pooled, rows), [[0, 0], [1, 1], [0, 0]])


def test_a_row_in_several_bags_gets_their_sum():
    rows = tf.Variable([[1.0], [2.0]])
    with tf.GradientTape() as tape:
        pooled = tse.ops.embedding_max_pool(rows, [1, 0, 1, 1, 0], [0, 2, 4, 5])
        loss = tf.reduce_sum(pooled * [[1.0], [10.0], [100.0]])
    np.testing.assert_array_equal(tape.gradient(loss, rows), [[100.0], [11.0]])


def _assert_gradients_are_numerically_right(function, arguments, tolerance=3e-3):
    theoretical, numerical = tf.test.compute_gradient(function, arguments)
    for got, want in zip(theoretical, numerical, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    assert any(np.abs(got).max() > 0 for got in theoretical)


@pytest.mark.parametrize("splits", ["bags", "one_bag", "many_empty_bags"])
def test_the_gradient_is_numerically_right(splits, rng):
    rows, inverse = _inputs(rng)
    _assert_gradients_are_numerically_right(
        lambda r: tse.ops.embedding_max_pool(r, inverse, ROW_SPLITS[splits]), [rows]
    )


@pytest.mark.parametrize("splits", ["bags", "one_bag", "many_empty_bags"])
@pytest.mark.parametrize("mode", MODES)
def test_the_second_derivative_is_numerically_right(splits, mode, rng):
    rows, inverse = _inputs(rng, dim=2)

    def first_derivative(r):
        with tf.GradientTape() as tape:
            tape.watch(r)
            loss = tf.reduce_sum(tf.sin(tse.ops.embedding_max_pool(r, inverse, ROW_SPLITS[splits])))
        return tape.gradient(loss, r)

    _assert_gradients_are_numerically_right(
        first_derivative if mode == "eager" else tf.function(first_derivative), [rows], tolerance=1e-2
    )


def test_the_third_derivative():
    rows = tf.Variable([[0.5, -1.0], [2.0, -3.0]])
    derivatives = []
    with tf.GradientTape() as third, tf.GradientTape() as second:
        with tf.GradientTape() as first:
            pooled = tse.ops.embedding_max_pool(rows, [0, 1], [0, 2, 2])
            loss = tf.reduce_sum(pooled**4)
        derivatives.append(first.gradient(loss, rows))
        derivatives.append(second.gradient(derivatives[-1], rows))
    derivatives.append(third.gradient(derivatives[-1], rows))
    np.testing.assert_allclose(derivatives[0], [[0, 4 * (-1.0) ** 3], [4 * 2.0**3, 0]])
    np.testing.assert_allclose(derivatives[1], [[0, 12], [12 * 2.0**2, 0]])
    np.testing.assert_allclose(derivatives[2], [[0, -24], [24 * 2.0, 0]])


@pytest.mark.parametrize("num_rows", [0, 3])
def test_the_second_derivative_of_empty_bags_alone_is_zeros(num_rows):
    rows = tf.Variable(np.ones((num_rows, 2), np.float32))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_sum(tse.ops.embedding_max_pool(rows, np.zeros(0, np.int32), [0, 0, 0]) ** 2)
        gradient = inner.gradient(loss, rows)
    second = outer.gradient(gradient, rows)
    np.testing.assert_array_equal(tf.convert_to_tensor(second), np.zeros((num_rows, 2)))


def test_graph_mode_equals_eager_mode(rng):
    rows, inverse = _inputs(rng)
    call = tf.function(lambda r: tse.ops.embedding_max_pool(r, inverse, ROW_SPLITS["bags"]))
    np.testing.assert_array_equal(call(rows), tse.ops.embedding_max_pool(rows, inverse, ROW_SPLITS["bags"]))


@pytest.mark.parametrize(
    "rows, splits, expected",
    [([4, 3], [3], [2, 3]), ([None, 3], [None], [None, 3]), ([4, None], [3], [2, None]), (None, None, [None, None])],
)
def test_shape_function(rows, splits, expected):
    seen = []

    def pool(r, s):
        values, argmax = library.sparse_emb_embedding_max_pool(r, tf.zeros([6], tf.int32), s)
        seen.append((values.shape.as_list(), argmax.shape.as_list()))
        return values

    signature = [tf.TensorSpec(rows, tf.float32), tf.TensorSpec(splits, tf.int64)]
    call = tf.function(pool, input_signature=signature).get_concrete_function()
    assert seen[-1] == (expected, expected)
    assert call(tf.ones([4, 3]), tf.constant([0, 4, 6], tf.int64)).shape == (2, 3)


def test_shape_function_of_the_gradient():
    seen = []

    def gradient(r):
        with tf.GradientTape() as tape:
            tape.watch(r)
            pooled = tse.ops.embedding_max_pool(r, [0, 1], [0, 2])
        seen.append(tape.gradient(pooled, r).shape.as_list())

    for shape in ([4, 3], [None, 3]):
        tf.function(gradient, input_signature=[tf.TensorSpec(shape, tf.float32)]).get_concrete_function()
        assert seen[-1] == shape


ROWS_4X2, INVERSE_3 = np.ones((4, 2), np.float32), np.array([0, 3, 1], np.int32)
BAD = {
    "inverse_too_large": (r"inverse must be in \[0, 4\), got inverse\[1\] = 4", (ROWS_4X2, [0, 4, 1], [0, 3])),
    "inverse_negative": (r"inverse must be in \[0, 4\), got inverse\[2\] = -1", (ROWS_4X2, [0, 1, -1], [0, 3])),
    "inverse_without_rows": (r"inverse must be in \[0, 0\)", (np.ones((0, 2), np.float32), [0], [0, 1])),
    "inverse_rank_2": ("inverse|rank 1", (ROWS_4X2, [[0], [1]], [0, 2])),
    "rows_rank_1": ("rows|rank 2", (np.ones(4, np.float32), INVERSE_3, [0, 3])),
    "rows_rank_3": ("rows|rank 2", (np.ones((4, 2, 1), np.float32), INVERSE_3, [0, 3])),
    "row_splits_do_not_start_at_0": ("row_splits must go from 0 to 3", (ROWS_4X2, INVERSE_3, [1, 3])),
    "row_splits_do_not_end_at_n": ("row_splits must go from 0 to 3", (ROWS_4X2, INVERSE_3, [0, 2])),
    "row_splits_end_past_n": ("row_splits must go from 0 to 3", (ROWS_4X2, INVERSE_3, [0, 4])),
    "row_splits_descend": (
        r"row_splits must not descend, got row_splits\[2\] = 1",
        (ROWS_4X2, INVERSE_3, [0, 2, 1, 3]),
    ),
    "row_splits_empty": ("row_splits|negative", (ROWS_4X2, INVERSE_3, np.zeros(0, np.int64))),
    "row_splits_rank_2": ("row_splits|rank 1", (ROWS_4X2, INVERSE_3, [[0, 3]])),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("mode", MODES)
def test_a_bad_argument_is_an_error_that_names_it(case, mode):
    match, arguments = BAD[case]

    def call():
        return tse.ops.embedding_max_pool(*arguments)

    with pytest.raises(BAD_ARGUMENT, match=match):
        (call if mode == "eager" else tf.function(call))()


BAD_GRAD = {
    "argmax_too_large": (r"argmax must be in \[-1, 4\), got 4", (np.ones((1, 2)), [[0, 4]], 4)),
    "argmax_below": (r"argmax must be in \[-1, 4\), got -2", (np.ones((1, 2)), [[-2, 0]], 4)),
    "argmax_of_another_shape": ("argmax|equal", (np.ones((1, 2)), [[0], [1]], 4)),
    "grad_rank_1": ("grad|rank 2", (np.ones(2), [[0, 1]], 4)),
    "num_unique_negative": ("num_unique|negative|>= 0", (np.ones((1, 2)), [[-1, -1]], -1)),
    "num_unique_rank_1": ("num_unique|rank 0", (np.ones((1, 2)), [[0, 0]], [4])),
}


@pytest.mark.parametrize("case", BAD_GRAD)
@pytest.mark.parametrize("mode", MODES)
def test_a_bad_argument_of_the_gradient_is_an_error_that_names_it(case, mode):
    match, (grad, argmax, num_unique) = BAD_GRAD[case]

    def call():
        return library.sparse_emb_embedding_max_pool_grad(np.float32(grad), argmax, num_unique)

    with pytest.raises(BAD_ARGUMENT, match=match):
        (call if mode == "eager" else tf.function(call))()


def test_jit_compile_is_an_error_that_names_the_op():
    call = tf.function(lambda r: tse.ops.embedding_max_pool(r, INVERSE_3, [0, 3]), jit_compile=True)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="EmbeddingMaxPool"):
        call(tf.constant(ROWS_4X2))


# The combiner of the layer.


def test_the_layer_pools_dense_keys_as_a_maximum_of_its_rows(storage, rng):
    layer = tse.Embedding(40 if storage == "index" else None, 5, storage=storage, combiner="max", seed=1)
    for shape in ((6, 4), (2, 3, 4)):
        keys = rng.integers(0, 40, shape)
        np.testing.assert_array_equal(layer(keys), tf.reduce_max(layer.embeddings.lookup(keys), -2))


def test_training_with_max_moves_the_greatest_alone():
    rows = np.array([[1.0, 4.0], [2.0, 3.0], [2.0, -5.0]], np.float32)
    layer = tse.Embedding(3, 2, combiner="max", weights=rows)
    optimizer = tse.optimizers.SGD(0.5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.array([[0, 1, 2], [2, 2, 1]]), training=True))
    optimizer.apply_gradients(
        zip(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables, strict=True)
    )
    want = rows - 0.5 * np.array([[0, 1], [1, 1], [1, 0]])
    np.testing.assert_allclose(layer.embeddings.lookup([0, 1, 2]), want)


def test_max_takes_no_weights():
    layer = tse.Embedding(None, 2, combiner="max")
    with pytest.raises(ValueError, match="(?s)weights.* need a combiner.*sum.*mean.*sqrtn.*max"):
        layer(np.array([[1, 2]]), weights=np.ones((1, 2), np.float32))


def test_max_survives_the_config():
    layer = tse.Embedding(None, 2, combiner="max", name="item")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.combiner == "max"
    np.testing.assert_array_equal(again(np.arange(6).reshape(2, 3)), layer(np.arange(6).reshape(2, 3)))


def test_the_widths_cover_every_variant_of_the_kernel():
    """Widths below, at and beyond those of vectors: each element is compared by itself."""
    rng = np.random.default_rng(1)
    for dim in (2, 4, 7, 8, 9, 15, 16, 31, 32, 33, 100):
        _assert_pooled(*_inputs(rng, dim), ROW_SPLITS["bags"])
