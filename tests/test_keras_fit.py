"""Models of every kind under fit, against keras.layers.Embedding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import initializers
from keras_cases import TOLERANCE, D, V, layer_pair, our_layer, table_rows

import tf_sparse_emb as tse


@pytest.fixture(params=["index", "dynamic"])
def table(request):
    return request.param


@pytest.fixture
def start(rng):
    return rng.normal(scale=0.7, size=(V, D)).astype(np.float32)


N, LENGTH = 32, 4


def _functional(layer, dense):
    keys = keras.Input((LENGTH,), dtype="int64")
    return keras.Model(keys, dense(keras.layers.Flatten()(layer(keys))))


def _sequential(layer, dense):
    return keras.Sequential([layer, keras.layers.Flatten(), dense])


def _sequential_with_input(layer, dense):
    return keras.Sequential([keras.Input((LENGTH,), dtype="int32"), layer, keras.layers.Flatten(), dense])


class Subclassed(keras.Model):
    def __init__(self, layer, dense):
        super().__init__()
        self.layer, self.dense = layer, dense

    def call(self, keys):
        return self.dense(tf.reshape(self.layer(keys), [-1, LENGTH * D]))


MODELS = {
    "functional": _functional,
    "sequential": _sequential,
    "sequential_with_input": _sequential_with_input,
    "subclassed": Subclassed,
}
REGULARIZED = {"embeddings_regularizer": "l2", "embeddings_constraint": "non_neg"}
FITS = [
    *[(table, kind, {}, {}) for kind in MODELS for table in ("index", "dynamic")],
    *[(table, "functional", {}, REGULARIZED) for table in ("index", "dynamic")],
    ("index", "functional", {"run_eagerly": True}, {}),
    ("dynamic", "subclassed", {"run_eagerly": True}, {}),
    ("dynamic", "functional", {"steps_per_execution": 3}, {}),
    ("dynamic", "functional", {}, {"trainable": False}),
]


@pytest.mark.parametrize("table, kind, compiling, arguments", FITS, ids=str)
def test_fit_gives_the_weights_that_keras_gives(table, kind, compiling, arguments, start, rng):
    # Every batch names every row, for the regularizer and the constraint.
    batch = np.resize(np.arange(V), 8 * LENGTH)
    x = np.concatenate([rng.permutation(batch) for _ in range(N // 8)]).reshape(N, LENGTH)
    y = rng.normal(size=(N, 1)).astype(np.float32)
    layers, histories, predictions, kernels = layer_pair(table, start, **arguments), [], [], []
    for layer in layers:
        dense = keras.layers.Dense(1, kernel_initializer=initializers.GlorotUniform(seed=2))
        model = MODELS[kind](layer, dense)
        optimizer = tse.optimizers.SGD(0.05) if isinstance(layer, tse.Embedding) else keras.optimizers.SGD(0.05)
        model.compile(optimizer, "mse", **compiling)
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, validation_data=(x, y), verbose=0).history
        histories.append([history["loss"], history["val_loss"]])
        predictions.append(model.predict(x, verbose=0))
        kernels.append(dense.get_weights()[0])
    np.testing.assert_allclose(table_rows(layers[1]), table_rows(layers[0]), **TOLERANCE)
    np.testing.assert_allclose(kernels[1], kernels[0], **TOLERANCE)
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-5, atol=1e-6)
    assert (np.abs(table_rows(layers[1]) - start).max() > 1e-3) == arguments.get("trainable", True)


def test_fit_on_a_dataset_of_ragged_batches_is_keras_fit_on_the_padded_ones(table, start, rng):
    """Keras pads with 0 and masks; bags of ragged keys need no padding."""
    lengths = rng.integers(1, 5, N)
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(1, V, lengths.sum()), lengths)
    y = rng.normal(size=(N, 1)).astype(np.float32)
    theirs, _ = layer_pair(table, start, mask_zero=True)
    ours = our_layer(table, combiner="mean")
    ours.build()
    ours.embeddings.upsert(np.arange(V), start)
    dense = [keras.layers.Dense(1, kernel_initializer=initializers.GlorotUniform(seed=2)) for _ in range(2)]
    keras_model = keras.Sequential([theirs, keras.layers.GlobalAveragePooling1D(), dense[0]])
    keras_model.compile(keras.optimizers.SGD(0.05), "mse")
    keras_model.fit(ragged.to_tensor(shape=[None, 4]).numpy(), y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    model = keras.Sequential([ours, dense[1]])
    model.compile(tse.optimizers.SGD(0.05), "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((ragged, y)).batch(8), epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(table_rows(ours), table_rows(theirs), **TOLERANCE)
    assert np.abs(table_rows(ours) - start).max() > 1e-3


def test_keys_that_keras_takes_as_they_come(table, start):
    """NumPy scalars, arrays of both int types and tensors; keras.Layer itself refuses Python's ints and lists."""
    theirs, ours = layer_pair(table, start)
    for keys in (np.int32(3), np.int64(3), np.array(3), np.array([1, 2], np.int32), tf.constant([[1, 2]])):
        np.testing.assert_array_equal(ours(keys), theirs(keys))
    for layer in (theirs, ours):
        for keys in (3, [1, 2], [[1, 2]]):
            with pytest.raises(ValueError, match="Only input tensors may be passed as positional arguments"):
                layer(keys)
