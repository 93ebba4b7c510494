"""EmbeddingDuplicate: the gather and the pooled rows, their derivatives, shapes and errors."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
UNIQUE, KEYS = 7, 23
ROW_SPLITS = {
    "bags": [0, 4, 4, 9, 10, 23],
    "empty_first_and_last": [0, 0, 12, 23, 23],
    "one_bag": [0, 23],
    "one_key_a_bag": list(range(24)),
}


def _inputs(rng, dim=3, weighted=True):
    rows = rng.normal(size=(UNIQUE, dim)).astype(np.float32)
    inverse = rng.integers(0, UNIQUE, KEYS).astype(np.int32)
    weights = rng.uniform(0.5, 2.0, KEYS).astype(np.float32) if weighted else None
    return rows, inverse, weights


def test_the_gather_is_exact(dim, rng):
    rows, inverse, _ = _inputs(rng, dim)
    values = tse.ops.embedding_duplicate(rows, inverse)
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, rows[inverse])


@pytest.mark.parametrize("splits", ROW_SPLITS)
@pytest.mark.parametrize("splits_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_pooled_rows(dim, combiner, splits, splits_dtype, weighted, rng):
    rows, inverse, weights = _inputs(rng, dim, weighted)
    row_splits = np.array(ROW_SPLITS[splits], splits_dtype)
    pooled = tse.ops.embedding_duplicate(rows, inverse, row_splits=row_splits, weights=weights, combiner=combiner)
    want = reference.duplicate(rows, inverse, row_splits, weights, combiner)
    assert pooled.shape == want.shape
    np.testing.assert_allclose(pooled, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("num_features", [1, 2, 6])
def test_features_side_by_side(dim, combiner, pooled, num_features, rng):
    rows, weights = rng.normal(size=(UNIQUE, dim)).astype(np.float32), rng.uniform(0.5, 2.0, 24).astype(np.float32)
    inverse = rng.integers(0, UNIQUE, 24).astype(np.int32)
    bags = {"row_splits": [0, 4, 4, 9, 10, 11, 24], "weights": tf.Variable(weights), "combiner": combiner}
    bags = bags if pooled else {}
    with tf.GradientTape(persistent=True) as tape:
        variables = [tf.Variable(rows), *(bags[name] for name in bags if name == "weights")]
        apart = tse.ops.embedding_duplicate(variables[0], inverse, **bags)
        apart = tf.concat(tf.split(apart, num_features), 1)
        beside = tse.ops.embedding_duplicate(variables[0], inverse, **bags, num_features=num_features)
        factors = tf.constant(rng.normal(size=apart.shape), tf.float32)
        losses = [tf.reduce_sum(factors * values) for values in (apart, beside)]
    assert beside.shape == ((6 if pooled else 24) // num_features, num_features * dim)
    np.testing.assert_array_equal(beside, apart)
    for want, got in zip(*(tape.gradient(loss, variables) for loss in losses), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("bags", [{}, {"row_splits": [0, 4, 9, 12, 20, 23], "combiner": "sum"}])
@pytest.mark.parametrize("in_graph", [False, True])
def test_features_of_unlike_size_are_refused(bags, in_graph, rng):
    rows, inverse, _ = _inputs(rng)

    def duplicate():
        return tse.ops.embedding_duplicate(rows, inverse, **bags, num_features=2)

    with pytest.raises(BAD_ARGUMENT, match="as many (keys|bags) of each of num_features = 2|evenly"):
        tf.function(duplicate)() if in_graph else duplicate()


@pytest.mark.parametrize("weighted", [False, True])
def test_an_empty_bag_is_zeros(combiner, weighted, rng):
    rows, inverse, weights = _inputs(rng, weighted=weighted)
    pooled = tse.ops.embedding_duplicate(
        rows, inverse, row_splits=[0, 0, 23, 23], weights=weights, combiner=combiner
    ).numpy()
    np.testing.assert_array_equal(pooled[[0, 2]], np.zeros((2, 3)))
    assert np.abs(pooled[1]).max() > 0


def test_weights_of_zero_give_zeros_and_finite_gradients(combiner, rng):
    rows, inverse, _ = _inputs(rng)
    weights = tf.Variable(np.where(np.arange(KEYS) < 10, 0.0, 1.0).astype(np.float32))
    rows = tf.Variable(rows)
    with tf.GradientTape() as tape:
        pooled = tse.ops.embedding_duplicate(rows, inverse, row_splits=[0, 10, 23], weights=weights, combiner=combiner)
    np.testing.assert_array_equal(pooled[0], np.zeros(3))
    for gradient in tape.gradient(pooled, [rows, weights]):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("num_rows, row_splits, bags", [(0, [0], 0), (0, [0, 0, 0], 2), (5, [0, 0], 1)])
def test_an_empty_batch(dim, combiner, num_rows, row_splits, bags):
    rows, inverse = np.ones((num_rows, dim), np.float32), np.zeros(0, np.int32)
    assert tse.ops.embedding_duplicate(rows, inverse).shape == (0, dim)
    pooled = tse.ops.embedding_duplicate(rows, inverse, row_splits=row_splits, combiner=combiner)
    np.testing.assert_array_equal(pooled, np.zeros((bags, dim)))


def test_a_batch_large_enough_to_be_sharded(combiner, rng):
    rows = rng.normal(size=(5000, 17)).astype(np.float32)
    inverse = rng.integers(0, 5000, 120_000).astype(np.int32)
    weights = rng.uniform(0.5, 2.0, inverse.size).astype(np.float32)
    row_splits = np.concatenate([[0], np.sort(rng.integers(0, inverse.size, 3999)), [inverse.size]])
    np.testing.assert_array_equal(tse.ops.embedding_duplicate(rows, inverse), rows[inverse])
    pooled = tse.ops.embedding_duplicate(rows, inverse, row_splits=row_splits, weights=weights, combiner=combiner)
    want = reference.duplicate(rows, inverse, row_splits, weights, combiner)
    np.testing.assert_allclose(pooled, want, rtol=1e-4, atol=1e-5)


def test_graph_mode_equals_eager_mode(combiner, rng):
    rows, inverse, weights = _inputs(rng)

    def pool(r, w):
        return tse.ops.embedding_duplicate(r, inverse, row_splits=[0, 4, 23], weights=w, combiner=combiner)

    np.testing.assert_array_equal(tf.function(pool)(rows, weights), pool(rows, weights))


def _assert_gradients_are_numerically_right(function, arguments, tolerance=3e-3):
    theoretical, numerical = tf.test.compute_gradient(function, arguments)
    for got, want in zip(theoretical, numerical, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    assert any(np.abs(got).max() > 0 for got in theoretical)


def test_the_gradient_of_the_gather_is_numerically_right(dim, rng):
    rows, inverse, _ = _inputs(rng, dim)
    _assert_gradients_are_numerically_right(lambda r: tse.ops.embedding_duplicate(r, inverse), [rows])


@pytest.mark.parametrize("splits", ["bags", "one_bag"])
def test_the_gradients_of_the_pooled_rows_are_numerically_right(combiner, splits, rng):
    rows, inverse, weights = _inputs(rng)
    _assert_gradients_are_numerically_right(
        lambda r, w: tse.ops.embedding_duplicate(
            r, inverse, row_splits=ROW_SPLITS[splits], weights=w, combiner=combiner
        ),
        [rows, weights],
    )


def test_the_gradient_without_weights_is_numerically_right(combiner, rng):
    rows, inverse, _ = _inputs(rng)
    _assert_gradients_are_numerically_right(
        lambda r: tse.ops.embedding_duplicate(r, inverse, row_splits=ROW_SPLITS["bags"], combiner=combiner), [rows]
    )


@pytest.mark.parametrize("of", ["rows", "weights"])
def test_the_second_derivatives_are_numerically_right(combiner, of, rng):
    """The gradient of a loss that is not linear, differentiated once more in rows and in weights."""
    rows, inverse, weights = _inputs(rng, dim=2)

    def first_derivative(r, w):
        with tf.GradientTape() as tape:
            tape.watch([r, w])
            pooled = tse.ops.embedding_duplicate(
                r, inverse, row_splits=ROW_SPLITS["bags"], weights=w, combiner=combiner
            )
            loss = tf.reduce_sum(tf.sin(pooled))
        return tape.gradient(loss, r if of == "rows" else w)

    _assert_gradients_are_numerically_right(first_derivative, [rows, weights], tolerance=1e-2)


def test_the_second_derivative_of_the_gather_is_numerically_right(rng):
    rows, inverse, _ = _inputs(rng, dim=2)

    def first_derivative(r):
        with tf.GradientTape() as tape:
            tape.watch(r)
            loss = tf.reduce_sum(tf.sin(tse.ops.embedding_duplicate(r, inverse)))
        return tape.gradient(loss, r)

    _assert_gradients_are_numerically_right(first_derivative, [rows], tolerance=1e-2)


@pytest.mark.parametrize(
    "rows, inverse, expected",
    [([4, 3], [6], [6, 3]), ([None, 3], [None], [None, 3]), ([None, None], [6], [6, None]), (None, None, [None, None])],
)
def test_shape_function_of_the_gather(rows, inverse, expected):
    seen = []

    def gather(r, i):
        values = tse.ops.embedding_duplicate(r, i)
        seen.append(values.shape.as_list())
        return values

    signature = [tf.TensorSpec(rows, tf.float32), tf.TensorSpec(inverse, tf.int32)]
    call = tf.function(gather, input_signature=signature).get_concrete_function()
    assert seen[-1] == expected
    values = call(tf.ones([4, 3]), tf.zeros([6], tf.int32))
    np.testing.assert_array_equal(values, np.ones((6, 3)))


@pytest.mark.parametrize(
    "rows, splits, expected",
    [([4, 3], [3], [2, 3]), ([None, 3], [None], [None, 3]), ([4, None], [3], [2, None]), (None, None, [None, None])],
)
def test_shape_function_of_the_pooled_rows(rows, splits, expected, combiner):
    seen = []

    def pool(r, s):
        pooled = tse.ops.embedding_duplicate(r, tf.zeros([6], tf.int32), row_splits=s, combiner=combiner)
        seen.append(pooled.shape.as_list())
        return pooled

    signature = [tf.TensorSpec(rows, tf.float32), tf.TensorSpec(splits, tf.int64)]
    call = tf.function(pool, input_signature=signature).get_concrete_function()
    assert seen[-1] == expected
    assert call(tf.ones([4, 3]), tf.constant([0, 4, 6], tf.int64)).shape == (2, 3)


ROWS_4X2, INVERSE_3 = np.ones((4, 2), np.float32), np.array([0, 3, 1], np.int32)
BAD = {
    "inverse_too_large": ("inverse", (ROWS_4X2, [0, 4, 1]), {}),
    "inverse_negative": ("inverse", (ROWS_4X2, [0, -1, 1]), {}),
    "inverse_rank_2": ("inverse", (ROWS_4X2, [[0], [1]]), {}),
    "rows_rank_1": ("rows", (np.ones(4, np.float32), INVERSE_3), {}),
    "rows_rank_3": ("rows", (np.ones((4, 2, 1), np.float32), INVERSE_3), {}),
    "row_splits_do_not_start_at_0": (
        "row_splits",
        (ROWS_4X2, INVERSE_3),
        {"row_splits": [1, 3], "combiner": "sum"},
    ),
    "row_splits_do_not_end_at_n": ("row_splits", (ROWS_4X2, INVERSE_3), {"row_splits": [0, 2], "combiner": "sum"}),
    "row_splits_end_past_n": ("row_splits", (ROWS_4X2, INVERSE_3), {"row_splits": [0, 4], "combiner": "sum"}),
    "row_splits_descend": ("row_splits", (ROWS_4X2, INVERSE_3), {"row_splits": [0, 2, 1, 3], "combiner": "mean"}),
    "row_splits_empty": (
        "row_splits",
        (ROWS_4X2, INVERSE_3),
        {"row_splits": np.zeros(0, np.int64), "combiner": "sum"},
    ),
    "row_splits_rank_2": ("row_splits", (ROWS_4X2, INVERSE_3), {"row_splits": [[0, 3]], "combiner": "sum"}),
    "weights_too_short": (
        "weights",
        (ROWS_4X2, INVERSE_3),
        {"row_splits": [0, 3], "combiner": "sum", "weights": [1.0, 2.0]},
    ),
    "weights_rank_2": (
        "weights",
        (ROWS_4X2, INVERSE_3),
        {"row_splits": [0, 3], "combiner": "sum", "weights": [[1.0], [2.0], [3.0]]},
    ),
    "combiner_without_row_splits": ("row_splits", (ROWS_4X2, INVERSE_3), {"combiner": "sum"}),
    "row_splits_without_combiner": ("row_splits", (ROWS_4X2, INVERSE_3), {"row_splits": [0, 3]}),
    "weights_without_combiner": ("weights", (ROWS_4X2, INVERSE_3), {"weights": [1.0, 1.0, 1.0]}),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_bad_argument_is_an_error_that_names_it(case, mode):
    name, arguments, keywords = BAD[case]

    def call():
        return tse.ops.embedding_duplicate(*arguments, **keywords)

    with pytest.raises(BAD_ARGUMENT, match=name):
        (call if mode == "eager" else tf.function(call))()


def test_an_unknown_combiner_is_a_value_error_that_lists_the_known():
    with pytest.raises(ValueError, match="(?s)combiner.*sum.*mean.*sqrtn.*median"):
        tse.ops.embedding_duplicate(ROWS_4X2, INVERSE_3, row_splits=[0, 3], combiner="median")


@pytest.mark.parametrize("keywords", [{}, {"row_splits": [0, 3], "combiner": "sum"}], ids=["gather", "pooled"])
def test_jit_compile_is_an_error_that_names_the_op(keywords):
    call = tf.function(lambda r: tse.ops.embedding_duplicate(r, INVERSE_3, **keywords), jit_compile=True)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="EmbeddingDuplicate"):
        call(tf.constant(ROWS_4X2))
