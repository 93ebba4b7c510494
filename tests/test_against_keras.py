"""The same programs on keras.layers.Embedding under keras.optimizers.SGD and on tse.Embedding under tse.optimizers.SGD.

Outputs, gradients, the table after every step, losses, masks, shapes and configs. Letters: V rows, D dim.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import initializers
from keras_cases import (
    STEPS,
    TOLERANCE,
    D,
    V,
    every_row_once,
    layer_pair,
    our_layer,
    run_and_compare,
    step_of,
    table_rows,
)

import tf_sparse_emb as tse

SHAPES = {0: (), 1: (24,), 2: (6, 5), 3: (3, 2, 4)}


@pytest.fixture(params=["index", "dynamic"])
def table(request):
    return request.param


@pytest.fixture
def start(rng):
    return rng.normal(scale=0.7, size=(V, D)).astype(np.float32)


@pytest.mark.parametrize("rank", SHAPES, ids=lambda rank: f"rank{rank}")
@pytest.mark.parametrize("dtype", [np.int32, np.int64], ids=lambda dtype: dtype.__name__)
def test_outputs_gradients_and_tables_are_equal(table, rank, dtype, start, rng):
    batches = [tf.constant(rng.integers(0, V // 2, SHAPES[rank]), dtype) for _ in range(STEPS)]
    run_and_compare(*layer_pair(table, start), batches, rng)


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_are_equal(table, seed, start):
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(8):
        shape = tuple(rng.integers(1, 6, rng.integers(0, 4)))
        batches.append(tf.constant(rng.integers(0, V, shape), rng.choice([np.int32, np.int64])))
    batches.append(tf.zeros([0, 3], tf.int64))
    run_and_compare(*layer_pair(table, start), batches, rng)


def test_a_step_in_a_tf_function_is_equal(table, start, rng):
    theirs, ours = layer_pair(table, start)
    keys = [rng.integers(0, V, (6, 5)) for _ in range(STEPS)]
    coefficients = tf.constant(rng.normal(size=(6, 5, D)), tf.float32)
    for layer, optimizer in ((theirs, keras.optimizers.SGD(0.05)), (ours, tse.optimizers.SGD(0.05))):
        optimizer.build(layer.trainable_variables)

        @tf.function
        def step(batch, layer=layer, optimizer=optimizer):
            with tf.GradientTape() as tape:
                output = layer(batch, training=True)
                loss = tf.reduce_sum(coefficients * output + 0.5 * output**2)
            optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)

        for batch in keys:
            step(tf.constant(batch))
    np.testing.assert_allclose(table_rows(ours), table_rows(theirs), **TOLERANCE)
    assert np.abs(table_rows(ours) - start).max() > 1e-2


def test_ragged_keys_give_the_rows_of_their_flat_values(table, start, rng):
    theirs, ours = layer_pair(table, start)
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, 7), [3, 0, 4])
    output = ours(ragged)
    assert isinstance(output, tf.RaggedTensor)
    np.testing.assert_array_equal(output.row_splits, ragged.row_splits)
    np.testing.assert_array_equal(output.flat_values, theirs(ragged.flat_values))


# Arguments.


@pytest.mark.parametrize("form", ["matrix", "list_of_one", "nested_lists", "tensor"])
def test_weights_are_the_rows(table, form, start):
    weights = {"matrix": start, "list_of_one": [start], "nested_lists": start.tolist(), "tensor": tf.constant(start)}
    ours = our_layer(table, weights=weights[form])
    theirs = keras.layers.Embedding(V, D, weights=start)
    np.testing.assert_array_equal(table_rows(ours), start)
    keys = np.array([[0, V - 1], [3, 3]])
    np.testing.assert_array_equal(ours(keys), theirs(keys))
    assert int(ours.embeddings.size()) == V


def test_nested_lists_of_one_row_are_a_matrix(table):
    layer = tse.Embedding(1 if table == "index" else None, 2, weights=[[1.0, 2.0]])
    np.testing.assert_array_equal(layer(np.array([0])), [[1.0, 2.0]])


@pytest.mark.parametrize("make", ["weights", "from_pretrained", "from_pretrained_with_keys", "build"])
def test_a_layer_that_has_its_rows_can_be_the_first_of_a_sequential_model(make, start):
    """Sequential without keras.Input takes the dtype of its input from the layer; it must not be that of the rows."""
    keys = np.arange(V) + (2**60 if make == "from_pretrained_with_keys" else 0)
    if make == "weights":
        layer = tse.Embedding(V, D, weights=start)
    elif make == "build":
        layer = tse.Embedding(None, D)
        layer.build()
        layer.embeddings.upsert(keys, start)
    else:
        layer = tse.Embedding.from_pretrained(start, keys if make == "from_pretrained_with_keys" else None)
    model = keras.Sequential([layer])
    np.testing.assert_array_equal(model.predict(keys[:, None], verbose=0), start[:, None])


def test_weights_train_as_in_keras(table, start, rng):
    theirs, ours = keras.layers.Embedding(V, D, weights=start), our_layer(table, weights=start)
    run_and_compare(theirs, ours, [rng.integers(0, V, (4, 3)) for _ in range(STEPS)], rng)


@pytest.mark.parametrize("how", ["constructor", "attribute"])
def test_a_layer_that_is_not_trainable_gives_the_same_and_stays(table, how, start, rng):
    frozen = {"trainable": False} if how == "constructor" else {}
    keys, y = rng.integers(0, V, (16, 3)), rng.normal(size=(16, 1)).astype(np.float32)
    predictions = []
    for layer in layer_pair(table, start, **frozen):
        layer.trainable = False
        assert layer.trainable_variables == [] and len(layer.non_trainable_variables) == 1
        flatten, dense = keras.layers.Flatten(), keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((3,), dtype="int64"), layer, flatten, dense])
        optimizer = tse.optimizers.SGD(0.1) if isinstance(layer, tse.Embedding) else keras.optimizers.SGD(0.1)
        model.compile(optimizer, "mse")
        model.fit(keys, y, epochs=2, shuffle=False, verbose=0)
        predictions.append(model.predict(keys, verbose=0))
        np.testing.assert_array_equal(table_rows(layer), start)
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "float64"])
def test_outputs_are_those_of_keras_under_a_dtype_policy(table, policy, start, rng):
    theirs, ours = layer_pair(table, start, dtype=policy)
    keys = rng.integers(0, V, (5, 4))
    want, got = theirs(keys), ours(keys)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(tf.cast(got, tf.float64), tf.cast(want, tf.float64))


def test_a_bfloat16_policy_trains_as_in_keras(table, start, rng):
    """The gradient arrives in bfloat16: Keras sums what comes for a repeated key there, so each key comes once."""
    theirs, ours = layer_pair(table, start, dtype="mixed_bfloat16")
    optimizers = keras.optimizers.SGD(0.05), tse.optimizers.SGD(0.05)
    for keys in every_row_once(rng):
        coefficients = rng.normal(size=(V, D)).astype(np.float32)
        for layer, optimizer in zip((theirs, ours), optimizers, strict=True):
            step_of(layer, optimizer, keys, coefficients)
        np.testing.assert_allclose(table_rows(ours), table_rows(theirs), rtol=1e-2, atol=1e-2)
    assert np.abs(table_rows(ours) - start).max() > 0.1


@pytest.mark.parametrize("shape", [(), (None,), (7,), (None, 5), (2, None, 3), (None, None), [None, 4]], ids=str)
def test_output_shapes_and_specs_are_those_of_keras(table, shape, start):
    theirs, ours = layer_pair(table, start)
    assert ours.compute_output_shape(shape) == theirs.compute_output_shape(shape)
    want, got = (layer.compute_output_spec(keras.KerasTensor(shape, dtype="int64")) for layer in (theirs, ours))
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    want, got = (layer(keras.KerasTensor(shape, dtype="int32")) for layer in (theirs, ours))
    assert (got.shape, got.dtype) == (want.shape, want.dtype)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_spec_of_a_layer_that_is_not_built_has_the_dtype_of_keras(table, policy):
    keys = keras.KerasTensor((None, 3), dtype="int64")
    want = keras.layers.Embedding(V, D, dtype=policy).compute_output_spec(keys)
    got = our_layer(table, dtype=policy).compute_output_spec(keys)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)


def test_positional_arguments_come_in_the_order_of_keras():
    theirs, ours = (
        [
            (name, parameter.default)
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        for cls in (keras.layers.Embedding, tse.Embedding)
    )
    assert ours[: len(theirs)] == theirs


CONFIGS = {
    "plain": {},
    "all": {
        "embeddings_initializer": initializers.GlorotUniform(seed=4),
        "embeddings_regularizer": keras.regularizers.L1L2(0.1, 0.2),
        "embeddings_constraint": keras.constraints.MaxNorm(2.0, axis=1),
        "activity_regularizer": "l2",
        "mask_zero": True,
        "name": "item",
        "trainable": False,
        "dtype": "mixed_bfloat16",
    },
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_keras_makes_the_layer(case):
    theirs = keras.layers.Embedding(V, D, **CONFIGS[case])
    ours = tse.Embedding.from_config(theirs.get_config())
    config = ours.get_config()
    assert {name: config.get(name) for name in theirs.get_config()} == theirs.get_config()
    assert (ours.input_dim, ours.output_dim, ours.storage) == (V, D, "index")
    theirs.build()
    ours.build()
    if case == "all":
        np.testing.assert_array_equal(table_rows(ours), table_rows(theirs))
    again = tse.Embedding.from_config(config)
    again.build()
    assert again.get_config() == config
    np.testing.assert_array_equal(table_rows(again), table_rows(ours))


@pytest.mark.parametrize("case", CONFIGS)
def test_the_config_of_a_layer_in_a_model_makes_the_same_model(table, case):
    kwargs = CONFIGS[case] | ({} if table == "index" else {"embeddings_initializer": "normal"})
    keys = keras.Input((3,), dtype="int64")
    model = keras.Model(keys, our_layer(table, **kwargs)(keys))
    again = keras.models.model_from_json(model.to_json())
    assert again.layers[1].get_config() == model.layers[1].get_config()
    assert again.layers[1].embeddings is not model.layers[1].embeddings
    batch = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(tf.cast(again(batch), tf.float32), tf.cast(model(batch), tf.float32))
