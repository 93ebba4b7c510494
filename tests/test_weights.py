"""The weights of keys that tse.Embedding takes: of every form, with their gradients."""

import numpy as np
import pytest
import tensorflow as tf
from input_cases import (
    BAD_ARGUMENT,
    FORMS,
    FORMS_AND_MODES,
    MODES,
    SOME_FORMS,
    D,
    V,
    assert_output,
    flat_values,
    make_layer,
    nested_lists,
    plain_pool,
    rank_of,
    with_flat_values,
)


def _floats_like(keys, rng):
    """Random weights of the form of keys."""

    def drawn(values):
        return tf.constant(rng.uniform(0.5, 2.0, values.shape), tf.float32)

    if isinstance(keys, tf.RaggedTensor):
        return keys.with_flat_values(drawn(keys.flat_values))
    return keys.with_values(drawn(keys.values)) if isinstance(keys, tf.SparseTensor) else drawn(keys)


def _bag_ids(keys):
    """The number of each key's bag, in order of the flat keys, and the number of bags."""
    bags = []

    def walk(nested, rank):
        if rank > 1:
            for part in nested:
                walk(part, rank - 1)
        else:
            bags.append(len(nested))

    walk(nested_lists(keys), rank_of(keys))
    return np.repeat(np.arange(len(bags)), bags), len(bags)


@pytest.mark.parametrize("form, mode", FORMS_AND_MODES)
def test_weights_of_every_form(form, combiner, mode, rng):
    layer = make_layer(combiner=combiner)
    for _ in range(2 if mode == "eager" else 1):
        keys = FORMS[form](rng)
        assert_output(layer, keys, _floats_like(keys, rng), mode)


@pytest.mark.parametrize("form", SOME_FORMS)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_weights_and_rows_of_every_form(form, combiner, mode, rng):
    layer = make_layer(combiner=combiner)
    layer.build()
    keys = FORMS[form](rng)
    flat_weights = flat_values(_floats_like(keys, rng))

    def gradients(flat_weights):
        with tf.GradientTape() as tape:
            tape.watch(flat_weights)
            output = layer(keys, weights=with_flat_values(keys, flat_weights))
            output = tf.reshape(flat_values(output), [-1, D])
            loss = tf.reduce_sum(tf.sin(output * 3.0))
        return tape.gradient(loss, [flat_weights, layer.embeddings])

    got_weights, got_rows = (gradients if mode == "eager" else tf.function(gradients))(flat_weights)
    table = tf.Variable(layer.embeddings.lookup(np.arange(V)))
    bag_ids, num_bags = _bag_ids(keys)
    with tf.GradientTape() as tape:
        tape.watch(flat_weights)
        rows = tf.gather(table, tf.reshape(flat_values(keys), [-1]))
        pooled = plain_pool(rows, tf.reshape(flat_weights, [-1]), bag_ids, num_bags, combiner)
        loss = tf.reduce_sum(tf.sin(pooled * 3.0))
    want_weights, want_rows = tape.gradient(loss, [flat_weights, table])
    assert got_weights.shape == flat_weights.shape
    np.testing.assert_allclose(got_weights, want_weights, rtol=1e-4, atol=1e-5)
    dense = np.zeros((V, D))
    np.add.at(dense, got_rows.indices.numpy(), got_rows.values.numpy())
    np.testing.assert_allclose(dense, tf.convert_to_tensor(want_rows), rtol=1e-4, atol=1e-5)


def test_weights_of_keys_that_are_left_out_do_not_count(combiner):
    layer = make_layer(combiner=combiner, mask_zero=True)
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
    layer = make_layer(combiner=combiner)
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
    layer = make_layer(combiner="mean")
    layer.build()

    def call():
        return layer(keys, weights=weights, training=True)

    with pytest.raises(error, match="weights"):
        (call if mode == "eager" else tf.function(call))()
    # In a graph, what is known at run time alone may be checked beside the lookup.
    assert mode == "graph" or int(layer.embeddings.size()) == 0


def test_dense_weights_whose_shape_is_known_at_run_time_are_checked_there(combiner):
    layer = make_layer(combiner=combiner)
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
        make_layer(combiner=pooled)(np.ones((2, 3), int), weights=np.ones((2, 3), np.float32))
