"""What would go wrong in silence is refused, or does what Keras does."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

ROW_WISE = [tse.optimizers.RowWiseAdagrad, tse.optimizers.RowWiseAdam]


def _model(layer):
    return keras.Sequential([keras.Input([2], dtype="int64"), layer, keras.layers.Dense(1)])


@pytest.mark.parametrize("freeze", ["constructor", "layer", "model"])
def test_a_layer_that_was_built_frozen_trains_once_it_is_unfrozen(freeze):
    layer = tse.Embedding(None, 4, combiner="sum", seed=1, trainable=freeze != "constructor")
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    if freeze == "layer":
        layer.trainable = False
    elif freeze == "model":
        model.trainable = False
    x, y = np.arange(8).reshape(4, 2), np.ones((4, 1))
    model(x)
    assert layer.built and not layer.trainable_variables
    model.trainable = layer.trainable = True
    before = layer.embeddings.lookup(np.arange(8)).numpy()
    model.compile(tse.optimizers.SGD(0.5), "mse")
    model.fit(x, y, epochs=2, verbose=0)
    assert any(v is layer.embeddings for v in model.trainable_variables)
    assert (np.abs(layer.embeddings.lookup(np.arange(8)).numpy() - before).max(axis=1) > 1e-4).all()


def test_a_callable_learning_rate_is_asked_once_a_step():
    asked = []

    def rate():
        asked.append(1)
        return 0.1 * len(asked)

    table = tse.EmbeddingVariable(2, initializer="zeros")
    variables = [table, keras.Variable([0.0]), keras.Variable([[0.0]])]
    optimizer = tse.optimizers.SGD(rate)
    optimizer.build(variables)
    asked.clear()
    grads = [tf.IndexedSlices(tf.ones([1, 2]), tf.constant([5], tf.int64)), tf.ones([1]), tf.ones([1, 1])]
    optimizer.apply_gradients(zip(grads, variables, strict=True))
    assert len(asked) == 1
    np.testing.assert_allclose(table.lookup([5]), [[-0.1, -0.1]], rtol=1e-6)
    np.testing.assert_allclose([float(v.numpy().item()) for v in variables[1:]], [-0.1, -0.1], rtol=1e-6)


def test_update_step_uses_the_rate_that_it_is_given():
    variable = keras.Variable([1.0])
    optimizer = tse.optimizers.SGD(0.5)
    optimizer.build([variable])
    optimizer.update_step(tf.ones([1]), variable, 0.0)
    assert float(variable.numpy()[0]) == 1.0


@pytest.mark.parametrize("use", [tf.convert_to_tensor, tf.reduce_sum, lambda v: tf.matmul(tf.ones([2, 3]), v)])
def test_a_table_does_not_become_a_dense_tensor(use):
    with pytest.raises(TypeError, match="is an embedding table"):
        use(tse.EmbeddingVariable(3))


def test_a_table_is_not_copied():
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.deepcopy(tse.EmbeddingVariable(3))


def test_a_gradient_whose_norm_overflows_is_refused_before_anything_changes():
    table, dense = tse.EmbeddingVariable(2, seed=1), keras.Variable([1.0, 2.0])
    optimizer = tse.optimizers.SGD(1.0, global_clipnorm=1.0)
    rows = table.lookup([5], insert=True).numpy()
    grads = [tf.IndexedSlices(tf.fill([1, 2], 1e20), tf.constant([5], tf.int64)), tf.fill([2], 1e20)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?i)nan"):
        optimizer.apply_gradients(zip(grads, [table, dense], strict=True))
    np.testing.assert_array_equal(table.lookup([5]), rows)
    np.testing.assert_array_equal(dense.numpy(), [1.0, 2.0])


@pytest.mark.parametrize("cls", ROW_WISE)
@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_an_epsilon_that_makes_nan_of_a_zero_gradient_is_refused(cls, epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive"):
        cls(epsilon=epsilon)


@pytest.mark.parametrize("cls", ROW_WISE)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["kernel", "embeddings"])
def test_a_zero_gradient_leaves_half_variables_finite(cls, dtype, name):
    variable = keras.Variable(np.ones((2, 3)), dtype=dtype, name=name)
    optimizer = cls(0.1)
    optimizer.apply_gradients([(tf.cast([[0, 0, 0], [1, 1, 0]], dtype), variable)])
    value = np.asarray(tf.cast(variable.value, tf.float32))
    np.testing.assert_allclose(value, [[1, 1, 1], [0.9, 0.9, 1]] if name == "kernel" else value, atol=0.01)
    assert np.isfinite(value).all()


def test_an_index_table_by_any_keras_initializer_follows_its_seed():
    def rows(**arguments):
        layer = tse.Embedding(4, 3, **arguments)
        layer.build()
        return layer.embeddings.lookup(np.arange(4)).numpy()

    first = rows(embeddings_initializer="glorot_uniform", seed=7)
    np.testing.assert_array_equal(rows(embeddings_initializer="glorot_uniform", seed=7), first)
    assert (rows(embeddings_initializer="glorot_uniform", seed=8) != first).all()
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(rows(embeddings_initializer=keras.initializers.Constant(weights)), weights)
    with pytest.raises(ValueError, match="initializer must be one of Zeros"):
        tse.EmbeddingVariable(3, initializer=keras.initializers.Constant(weights))


def test_variables_that_are_overwritten_with_their_gradient_are_refused():
    variable = keras.Variable([1.0], name="scale")
    variable.overwrite_with_gradient = True
    with pytest.raises(ValueError, match="overwritten with their gradient .* got 'scale'"):
        tse.optimizers.SGD(0.1).apply_gradients([(tf.ones([1]), variable)])


def test_a_combiner_does_not_pool_the_batch_of_a_model():
    with pytest.raises(ValueError, match=r"must be \[batch, ..., keys\], got shape \(None,\)"):
        tse.Embedding(None, 2, combiner="sum")(keras.Input([], dtype="int64"))


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="row_splits must be int32 or int64, got float32"):
        tse.ops.embedding_duplicate([[1.0]], [0], row_splits=[0.0, 1.0], combiner="sum")
    with pytest.raises(ValueError, match="max_rows must be at least input_dim = 10"):
        tse.EmbeddingVariable(2, input_dim=10, max_rows=5)
    with pytest.raises(ValueError, match="row_wise_variables must be a regular expression"):
        tse.optimizers.RowWiseAdam(row_wise_variables="(")
    table = tse.EmbeddingVariable(2)
    table.bind("sgd")
    with pytest.raises(tf.errors.InvalidArgumentError, match="learning_rate of rule sgd must be finite, got nan"):
        tse.ops.embedding_update(table, [1], [[1.0, 1.0]], "sgd", learning_rate=np.nan)
    assert int(table.size()) == 0


def test_mixed_float16_is_refused_by_a_message_that_names_the_wrapper():
    model = _model(tse.Embedding(None, 2, combiner="sum", dtype="mixed_float16"))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model.compile(tse.optimizers.RowWiseAdam(), "mse", auto_scale_loss=True)
        wrapped = keras.optimizers.LossScaleOptimizer(tse.optimizers.RowWiseAdam())
        model.compile(wrapped, "mse")
        with pytest.raises((TypeError, ValueError), match="LossScaleOptimizer|IndexedSlices"):
            model.fit(np.arange(8).reshape(4, 2), np.ones((4, 1)), verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
