"""EmbeddingGradReduce: the gradient summed per unique key, the transpose of EmbeddingDuplicate."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
UNIQUE, KEYS = 7, 23
ROW_SPLITS = [0, 4, 4, 9, 10, 23, 23]
BAGS = len(ROW_SPLITS) - 1
KEY_CASES = {
    "empty": np.array([], np.int64),
    "one": np.array([-3], np.int64),
    "repeated": np.array([5, 5, 5, 5], np.int64),
    "extreme": np.tile(reference.EXTREME_KEYS, 5),
    "mixed": np.array([9, -1, 9, 2**62, -1, -1, 0, 9], np.int64),
}


def _inverse_and_weights(rng):
    return rng.integers(0, UNIQUE, KEYS).astype(np.int32), rng.uniform(0.5, 2.0, KEYS).astype(np.float32)


def _pooled(combiner, weights=None):
    return {"row_splits": ROW_SPLITS, "combiner": combiner, "weights": weights}


@pytest.mark.parametrize("case", KEY_CASES)
def test_with_keys_it_sums_per_key_in_order_of_occurrence(case, dim, rng):
    keys = KEY_CASES[case]
    grad = (rng.normal(size=(keys.size, dim)) * 10.0 ** rng.integers(-4, 4, (keys.size, 1))).astype(np.float32)
    grad_uxd, unique_keys = tse.ops.embedding_grad_reduce(grad, keys)
    want_keys, want = reference.reduce_by_key(keys, grad)
    np.testing.assert_array_equal(unique_keys, want_keys)
    np.testing.assert_array_equal(grad_uxd, want)
    assert (grad_uxd.dtype, unique_keys.dtype) == (tf.float32, tf.int64)


def test_with_inverse_it_sums_per_unique_key(dim, rng):
    inverse, _ = _inverse_and_weights(rng)
    grad = rng.normal(size=(KEYS, dim)).astype(np.float32)
    grad_uxd = tse.ops.embedding_grad_reduce(grad, inverse=inverse, num_unique=UNIQUE)
    want = np.zeros((UNIQUE, dim), np.float32)
    np.add.at(want, inverse, grad)
    np.testing.assert_array_equal(grad_uxd, want)


def test_a_unique_key_that_no_key_names_gets_zeros():
    grad_uxd = tse.ops.embedding_grad_reduce(
        np.ones((2, 3), np.float32), inverse=np.array([4, 4], np.int32), num_unique=6
    )
    np.testing.assert_array_equal(grad_uxd, 2.0 * (np.arange(6)[:, None] == 4) * np.ones(3))


@pytest.mark.parametrize("weighted", [False, True])
def test_pooled_gradients(dim, combiner, weighted, rng):
    inverse, weights = _inverse_and_weights(rng)
    weights = weights if weighted else None
    grad = rng.normal(size=(BAGS, dim)).astype(np.float32)
    grad_uxd = tse.ops.embedding_grad_reduce(grad, inverse=inverse, num_unique=UNIQUE, **_pooled(combiner, weights))
    want = reference.grad_reduce(grad, inverse, UNIQUE, ROW_SPLITS, weights, combiner)
    np.testing.assert_allclose(grad_uxd, want, rtol=1e-5, atol=1e-6)


def test_pooled_gradients_with_keys(combiner, rng):
    keys = rng.permutation(np.repeat(reference.EXTREME_KEYS, 6))[:KEYS]
    grad = rng.normal(size=(BAGS, 3)).astype(np.float32)
    grad_uxd, unique_keys = tse.ops.embedding_grad_reduce(grad, keys, **_pooled(combiner))
    want_keys, inverse, _ = reference.key_dedup(keys)
    np.testing.assert_array_equal(unique_keys, want_keys)
    want = reference.grad_reduce(grad, inverse, len(want_keys), ROW_SPLITS, None, combiner)
    np.testing.assert_allclose(grad_uxd, want, rtol=1e-5, atol=1e-6)


def test_int32_and_string_keys(rng):
    grad = rng.normal(size=(3, 2)).astype(np.float32)
    grad_uxd, unique_keys = tse.ops.embedding_grad_reduce(grad, np.array([-1, 4, -1], np.int32))
    np.testing.assert_array_equal(unique_keys, [-1, 4])
    np.testing.assert_array_equal(grad_uxd, [grad[0] + grad[2], grad[1]])
    words = tf.constant(["x", "y", "x"])
    by_word, fingerprints = tse.ops.embedding_grad_reduce(grad, words)
    np.testing.assert_array_equal(by_word, grad_uxd)
    np.testing.assert_array_equal(fingerprints, tse.ops.embedding_key_dedup(words).unique_keys)


def test_a_batch_large_enough_to_be_sharded(rng):
    keys = (rng.zipf(1.2, 200_000) % 30_000).astype(np.int64) - 15_000
    grad = rng.normal(size=(keys.size, 17)).astype(np.float32)
    grad_uxd, unique_keys = tse.ops.embedding_grad_reduce(grad, keys)
    want_keys, want = reference.reduce_by_key(keys, grad)
    np.testing.assert_array_equal(unique_keys, want_keys)
    np.testing.assert_array_equal(grad_uxd, want)


@pytest.mark.parametrize("pooled", [None, *reference.COMBINERS])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_transpose_of_duplicate(dim, pooled, weighted, rng):
    """<duplicate(rows), grad> = <rows, grad_reduce(grad)> for every rows and grad."""
    inverse, weights = _inverse_and_weights(rng)
    bags = {} if pooled is None else _pooled(pooled, weights if weighted else None)
    rows = rng.normal(size=(UNIQUE, dim)).astype(np.float32)
    grad = rng.normal(size=(KEYS if pooled is None else BAGS, dim)).astype(np.float32)
    forward = tse.ops.embedding_duplicate(rows, inverse, **bags).numpy().astype(np.float64)
    backward = tse.ops.embedding_grad_reduce(grad, inverse=inverse, num_unique=UNIQUE, **bags).numpy()
    scale = np.abs(forward * grad).sum()
    assert np.sum(forward * grad) == pytest.approx(np.sum(rows.astype(np.float64) * backward), abs=1e-5 * scale)


@pytest.mark.parametrize("pooled", [None, *reference.COMBINERS])
def test_each_is_the_gradient_of_the_other(pooled, rng):
    inverse, weights = _inverse_and_weights(rng)
    bags = {} if pooled is None else _pooled(pooled, weights)
    rows = tf.constant(rng.normal(size=(UNIQUE, 3)).astype(np.float32))
    grad = tf.constant(rng.normal(size=(KEYS if pooled is None else BAGS, 3)).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([rows, grad])
        forward = tse.ops.embedding_duplicate(rows, inverse, **bags)
        backward = tse.ops.embedding_grad_reduce(grad, inverse=inverse, num_unique=UNIQUE, **bags)
    np.testing.assert_allclose(tape.gradient(forward, rows, output_gradients=grad), backward, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(backward, grad, output_gradients=rows), forward, rtol=1e-5, atol=1e-6)


def _assert_gradients_are_numerically_right(function, arguments, tolerance=3e-3):
    theoretical, numerical = tf.test.compute_gradient(function, arguments)
    for got, want in zip(theoretical, numerical, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    assert any(np.abs(got).max() > 0 for got in theoretical)


def test_the_gradient_with_keys_is_numerically_right(rng):
    grad = rng.normal(size=(8, 3)).astype(np.float32)
    _assert_gradients_are_numerically_right(lambda g: tse.ops.embedding_grad_reduce(g, KEY_CASES["mixed"])[0], [grad])


def test_the_gradients_of_the_pooled_form_are_numerically_right(combiner, rng):
    inverse, weights = _inverse_and_weights(rng)
    grad = rng.normal(size=(BAGS, 2)).astype(np.float32)
    _assert_gradients_are_numerically_right(
        lambda g, w: tse.ops.embedding_grad_reduce(g, inverse=inverse, num_unique=UNIQUE, **_pooled(combiner, w)),
        [grad, weights],
    )


@pytest.mark.parametrize("of", ["grad", "weights"])
def test_the_second_derivatives_are_numerically_right(combiner, of, rng):
    inverse, weights = _inverse_and_weights(rng)
    grad = rng.normal(size=(BAGS, 2)).astype(np.float32)

    def first_derivative(g, w):
        with tf.GradientTape() as tape:
            tape.watch([g, w])
            grad_uxd = tse.ops.embedding_grad_reduce(g, inverse=inverse, num_unique=UNIQUE, **_pooled(combiner, w))
            loss = tf.reduce_sum(tf.sin(grad_uxd))
        return tape.gradient(loss, g if of == "grad" else w)

    _assert_gradients_are_numerically_right(first_derivative, [grad, weights], tolerance=1e-2)


@pytest.mark.parametrize("with_bags", [False, True])
def test_an_empty_batch(dim, with_bags):
    bags = {"row_splits": [0], "combiner": "sum"} if with_bags else {}
    grad, keys = np.zeros((0, dim), np.float32), np.zeros(0, np.int64)
    grad_uxd, unique_keys = tse.ops.embedding_grad_reduce(grad, keys, **bags)
    assert (grad_uxd.shape, unique_keys.shape) == ((0, dim), (0,))
    by_inverse = tse.ops.embedding_grad_reduce(grad, inverse=keys.astype(np.int32), num_unique=3, **bags)
    np.testing.assert_array_equal(by_inverse, np.zeros((3, dim)))


@pytest.mark.parametrize(
    "grad, keys, dim_expected",
    [([6, 3], [6], 3), ([None, 3], [None], 3), ([6, None], [None], None), (None, None, None)],
)
def test_shape_function_with_keys(grad, keys, dim_expected):
    seen = []

    def reduce(g, k):
        grad_uxd, unique_keys = tse.ops.embedding_grad_reduce(g, k)
        seen.append((grad_uxd.shape.as_list(), unique_keys.shape.as_list()))
        return grad_uxd

    signature = [tf.TensorSpec(grad, tf.float32), tf.TensorSpec(keys, tf.int64)]
    call = tf.function(reduce, input_signature=signature).get_concrete_function()
    assert seen[-1] == ([None, dim_expected], [None])
    np.testing.assert_array_equal(call(tf.ones([6, 3]), tf.ones([6], tf.int64)), np.full((1, 3), 6.0))


@pytest.mark.parametrize("num_unique, expected", [(5, [5, 3]), ("tensor", [None, 3])])
def test_shape_function_with_inverse(num_unique, expected):
    seen = []

    def reduce(g, i, u):
        u = u if num_unique == "tensor" else num_unique
        grad_uxd = tse.ops.embedding_grad_reduce(g, inverse=i, num_unique=u)
        seen.append(grad_uxd.shape.as_list())
        return grad_uxd

    signature = [tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)]
    call = tf.function(reduce, input_signature=signature).get_concrete_function()
    assert seen[-1] == expected
    assert call(tf.ones([6, 3]), tf.ones([6], tf.int32), tf.constant(5)).shape == (5, 3)


GRAD_3X2, KEYS_3, INVERSE_3 = np.ones((3, 2), np.float32), np.array([7, 8, 7]), np.array([0, 1, 0], np.int32)
BAD = {
    "grad_and_keys_differ": ("grad|keys", (GRAD_3X2, [1, 2]), {}),
    "grad_rank_1": ("grad", (np.ones(3, np.float32), KEYS_3), {}),
    "keys_rank_2": ("keys", (GRAD_3X2, [[1], [2], [3]]), {}),
    "neither_keys_nor_inverse": ("keys", (GRAD_3X2,), {}),
    "both_keys_and_inverse": ("keys", (GRAD_3X2, KEYS_3), {"inverse": INVERSE_3, "num_unique": 2}),
    "inverse_without_num_unique": ("num_unique", (GRAD_3X2,), {"inverse": INVERSE_3}),
    "inverse_too_large": ("inverse", (GRAD_3X2,), {"inverse": [0, 2, 1], "num_unique": 2}),
    "inverse_negative": ("inverse", (GRAD_3X2,), {"inverse": [0, -1, 1], "num_unique": 2}),
    "num_unique_negative": ("num_unique", (GRAD_3X2,), {"inverse": INVERSE_3, "num_unique": -1}),
    "bags_differ": ("grad|row_splits", (GRAD_3X2, KEYS_3), {"row_splits": [0, 3], "combiner": "sum"}),
    "row_splits_past_n": ("row_splits", (GRAD_3X2, KEYS_3), {"row_splits": [0, 1, 2, 4], "combiner": "sum"}),
    "row_splits_descend": ("row_splits", (GRAD_3X2, KEYS_3), {"row_splits": [0, 2, 1, 3], "combiner": "sum"}),
    "combiner_without_row_splits": ("row_splits", (GRAD_3X2, KEYS_3), {"combiner": "sum"}),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_bad_argument_is_an_error_that_names_it(case, mode):
    name, arguments, keywords = BAD[case]

    def call():
        return tse.ops.embedding_grad_reduce(*arguments, **keywords)

    with pytest.raises(BAD_ARGUMENT, match=name):
        (call if mode == "eager" else tf.function(call))()


def test_float_keys_are_a_type_error():
    with pytest.raises(TypeError, match="keys must be int32, int64 or string, got float32"):
        tse.ops.embedding_grad_reduce(GRAD_3X2, np.ones(3, np.float32))


def test_an_unknown_combiner_is_a_value_error_that_lists_the_known():
    with pytest.raises(ValueError, match="(?s)combiner.*sum.*mean.*sqrtn.*max"):
        tse.ops.embedding_grad_reduce(GRAD_3X2, KEYS_3, row_splits=[0, 1, 2, 3], combiner="max")


def test_jit_compile_is_an_error_that_names_the_op():
    call = tf.function(lambda g: tse.ops.embedding_grad_reduce(g, KEYS_3)[0], jit_compile=True)
    with pytest.raises(
        (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="EmbeddingGradReduce|Dedup"
    ):
        call(tf.constant(GRAD_3X2))
