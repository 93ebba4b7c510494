"""The mask of key 0, against keras.layers.Embedding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_cases import TOLERANCE, D, V, layer_pair, our_layer, table_rows

import tf_sparse_emb as tse


@pytest.fixture(params=["index", "dynamic"])
def table(request):
    return request.param


@pytest.fixture
def start(rng):
    return rng.normal(scale=0.7, size=(V, D)).astype(np.float32)


MASKED_KEYS = np.array([[3, 0, 5, 0], [0, 0, 0, 7], [1, 2, 3, 4], [0, 6, 0, 0]])


@pytest.mark.parametrize("keys", [MASKED_KEYS[0], MASKED_KEYS, MASKED_KEYS.reshape(2, 2, 4)], ids=lambda k: str(k.ndim))
def test_the_mask_is_that_of_keras(table, keys, start):
    masks = [layer.compute_mask(tf.constant(keys)) for layer in layer_pair(table, start, mask_zero=True)]
    assert masks[1].dtype == tf.bool
    np.testing.assert_array_equal(masks[1], masks[0])


def test_without_mask_zero_there_is_no_mask(table, start):
    for layer in layer_pair(table, start):
        assert layer.compute_mask(tf.constant(MASKED_KEYS)) is None
        assert layer.supports_masking is False


DOWNSTREAM = {
    "LSTM": lambda: keras.layers.LSTM(3),
    "GRU_sequences": lambda: keras.layers.GRU(3, return_sequences=True),
    "GlobalAveragePooling1D": lambda: keras.layers.GlobalAveragePooling1D(),
    "Attention": lambda: keras.layers.MultiHeadAttention(2, 3),
}


def _with_downstream(layer, downstream):
    if isinstance(downstream, keras.layers.MultiHeadAttention):
        return lambda keys: (lambda x: downstream(x, x))(layer(keys))
    return lambda keys: downstream(layer(keys))


@pytest.mark.parametrize("mode", ["eager", "function", "functional"])
@pytest.mark.parametrize("downstream", DOWNSTREAM)
def test_the_mask_reaches_the_layer_downstream(table, downstream, mode, start):
    theirs, ours = layer_pair(table, start, mask_zero=True)
    layer = DOWNSTREAM[downstream]()
    want = _with_downstream(theirs, layer)(MASKED_KEYS)
    call = _with_downstream(ours, layer)
    if mode == "function":
        call = tf.function(call)
    elif mode == "functional":
        keys = keras.Input((4,), dtype="int64")
        call = keras.Model(keys, call(keys))
    np.testing.assert_allclose(call(tf.constant(MASKED_KEYS)), want, **TOLERANCE)
    unmasked = _with_downstream(layer_pair(table, start)[1], layer)(MASKED_KEYS)
    assert np.abs(np.asarray(unmasked) - want).max() > 1e-3


@pytest.mark.parametrize("kind", ["sequential", "sequential_with_input"])
def test_the_mask_reaches_the_next_layer_of_a_sequential_model(table, kind, start):
    theirs, ours = layer_pair(table, start, mask_zero=True)
    lstm = keras.layers.LSTM(3)
    want = lstm(theirs(MASKED_KEYS))
    inputs = [keras.Input((4,), dtype="int64")] if kind == "sequential_with_input" else []
    model = keras.Sequential([*inputs, ours, lstm])
    np.testing.assert_allclose(model(MASKED_KEYS), want, **TOLERANCE)
    np.testing.assert_allclose(model.predict(MASKED_KEYS, verbose=0), want, **TOLERANCE)


@pytest.mark.parametrize("copy", ["json", "clone"])
def test_a_model_with_a_mask_can_be_made_again(table, copy, start):
    """As with Keras' layer, whose mask is a part of the model's graph."""
    _, ours = layer_pair(table, start, mask_zero=True)
    keys = keras.Input((4,), dtype="int64")
    model = keras.Model(keys, keras.layers.LSTM(3)(ours(keys)))
    again = keras.models.model_from_json(model.to_json()) if copy == "json" else keras.models.clone_model(model)
    (layer,) = (layer for layer in again.layers if isinstance(layer, tse.Embedding))
    layer.embeddings.upsert(np.arange(V), start)
    again.layers[-1].set_weights(model.layers[-1].get_weights())
    np.testing.assert_allclose(again(MASKED_KEYS), model(MASKED_KEYS), **TOLERANCE)


def test_a_layer_with_a_mask_that_is_shared_trains_as_in_keras(table, start, rng):
    x = [rng.integers(0, V, (16, 4)) for _ in range(2)]
    y = rng.normal(size=(16, 1)).astype(np.float32)
    weights = None
    layers, models = layer_pair(table, start, mask_zero=True), []
    for layer, optimizer in zip(layers, (keras.optimizers.SGD(0.1), tse.optimizers.SGD(0.1)), strict=True):
        inputs = [keras.Input((4,), dtype="int64") for _ in range(2)]
        dense = keras.layers.Dense(1)
        pooled = [keras.layers.GlobalAveragePooling1D()(layer(i)) for i in inputs]
        model = keras.Model(inputs, dense(keras.layers.Concatenate()(pooled)))
        weights = weights or dense.get_weights()
        dense.set_weights(weights)
        model.compile(optimizer, "mse")
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    np.testing.assert_allclose(table_rows(layers[1]), table_rows(layers[0]), **TOLERANCE)
    np.testing.assert_allclose(models[1].predict(x, verbose=0), models[0].predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_mean_with_mask_zero_is_keras_masked_average_where_a_row_has_a_key(table, start):
    theirs, _ = layer_pair(table, start, mask_zero=True)
    ours = our_layer(table, mask_zero=True, combiner="mean")
    ours.build()
    ours.embeddings.upsert(np.arange(V), start)
    want = keras.layers.GlobalAveragePooling1D()(theirs(MASKED_KEYS))
    np.testing.assert_allclose(ours(MASKED_KEYS), want, **TOLERANCE)
    np.testing.assert_array_equal(ours(np.zeros((2, 4), np.int64)), np.zeros((2, D)))
    assert ours.compute_mask(MASKED_KEYS) is None
    deep = MASKED_KEYS.reshape(2, 2, 4) * np.array([1, 0])[:, None, None]
    np.testing.assert_array_equal(ours.compute_mask(deep), [[True, True], [False, False]])
