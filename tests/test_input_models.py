"""Keys of every form as inputs of models: trained, from tf.data, and symbolic."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from input_cases import TARGETS, D, V, make_layer, nested_lists, plain_pool

import tf_sparse_emb as tse

RAGGED_KEYS = tf.ragged.constant([[1, 2, 3], [], [4], [5, 6, 5, 1], [2, 2], [7], [], [8, 1, 9]] * 2, dtype=tf.int64)


def _as_form(form, ragged):
    return ragged.to_sparse() if form == "sparse" else ragged


def _model(form, pooled="mean", weighted=False, optimizer=None, layer=None):
    layer = layer or make_layer(combiner=pooled)
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
        return plain_pool(x, flat, bags.value_rowids(), bags.nrows(), pooled) @ kernel + bias

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
    layer = make_layer(combiner="sum")
    inputs = keras.Input((None,), dtype="string", ragged=True)
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((words, np.ones((4, 1)))).batch(2), shuffle=False, verbose=0)
    assert int(layer.embeddings.size()) == 3


def test_a_functional_model_without_a_combiner_gives_ragged_rows():
    layer = make_layer()
    inputs = keras.Input((None,), dtype="int64", ragged=True)
    output = layer(inputs)
    assert output.shape == (None, None, D) and output.ragged
    model = keras.Model(inputs, output)
    for got in (model(RAGGED_KEYS), model.predict(RAGGED_KEYS, batch_size=4, verbose=0)):
        assert isinstance(got, tf.RaggedTensor)
        assert nested_lists(got) == nested_lists(layer(RAGGED_KEYS))


def test_symbolic_shapes_of_ragged_and_sparse_inputs():
    for form in ("ragged", "sparse"):
        output = make_layer(combiner="sum")(keras.Input((None,), dtype="int64", **{form: True}))
        assert output.shape == (None, D) and not output.ragged and not output.sparse
    output = make_layer(combiner="sum")(keras.Input((None, None), dtype="int64", ragged=True))
    assert output.shape == (None, None, D) and output.ragged
    output = make_layer(combiner="sum")(keras.Input((5, None), dtype="string", sparse=True))
    assert output.shape == (None, 5, D) and not output.sparse


def test_a_symbolic_sparse_input_without_a_combiner_is_a_value_error():
    with pytest.raises(ValueError, match="sparse keys need a combiner"):
        make_layer()(keras.Input((None,), dtype="int64", sparse=True))


def test_batches_of_any_size_in_one_model(rng):
    model, layer = _model("ragged")
    for lengths in ([0], [0, 0, 0], [5], [1, 0, 2, 7]):
        keys = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, sum(lengths)), lengths)
        model.train_on_batch(keys, np.ones((len(lengths), 1)))
        assert model.predict_on_batch(keys).shape == (len(lengths), 1)
