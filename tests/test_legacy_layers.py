"""The layers of tse.legacy give what those of Keras 3 give, for keys of every form, and train alike."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from input_cases import FORMS, V, flat_values, forms_and_combiners, nested_lists, with_flat_values
from legacy_cases import assert_same_tables, data, embedding, make_pair, model_of, prints

import tf_sparse_emb as tse


def _assert_same_values(got, want):
    assert type(got) is type(want)
    assert got.dtype == want.dtype
    assert got.shape.as_list() == want.shape.as_list()
    assert nested_lists(got) == nested_lists(want)


def _pair(**kwargs):
    return tse.Embedding(None, 3, seed=3, **kwargs), tse.legacy.Embedding(None, 3, seed=3, **kwargs)


@pytest.mark.parametrize("form, combiner", forms_and_combiners(FORMS, [None, "mean", "max"]))
def test_keys_of_every_form_give_what_tse_embedding_gives(form, combiner, rng):
    ours, theirs = _pair(combiner=combiner)
    keys = FORMS[form](rng)
    for layer in (ours, theirs):
        layer(tf.range(0, V, 2), training=True) if combiner is None else layer(tf.range(0, V, 2)[None], training=True)
    _assert_same_values(theirs(keys), ours(keys))
    _assert_same_values(tf.function(theirs)(keys), tf.function(ours)(keys))
    assert_same_tables(theirs.embeddings, ours.embeddings)


@pytest.mark.parametrize("form", ["dense_2", "dense_3", "ragged_1", "ragged_2", "sparse_2", "sparse_3"])
@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_weights_of_every_form_give_what_tse_embedding_gives(form, combiner, rng):
    ours, theirs = _pair(combiner=combiner)
    keys = FORMS[form](rng)
    weights = with_flat_values(keys, tf.constant(rng.normal(size=flat_values(keys).shape), tf.float32))
    _assert_same_values(theirs(keys, weights=weights), ours(keys, weights=weights))


def test_strings_int32_and_lists_of_keys_are_taken():
    ours, theirs = _pair()
    for keys in (tf.constant([["a", "b"], ["a", ""]]), tf.constant([1, 2, 1], tf.int32), np.array([2**62, -5])):
        _assert_same_values(theirs(keys, training=True), ours(keys, training=True))
    assert_same_tables(theirs.embeddings, ours.embeddings)


# What changes an output or a step.
ARGUMENTS = {
    "plain": {},
    "input_dim": {"input_dim": 20},
    "regularizer": {"embeddings_regularizer": "l2"},
    "regularizer of tf_keras": {"embeddings_regularizer": tf_keras.regularizers.L1(0.1)},
    "constraint": {"embeddings_constraint": keras.constraints.MaxNorm(0.1, axis=1)},
    "constraint of tf_keras": {"embeddings_constraint": tf_keras.constraints.MaxNorm(0.1, axis=1)},
    "initializer": {"embeddings_initializer": keras.initializers.RandomNormal(stddev=0.5)},
    "initializer of tf_keras": {"embeddings_initializer": tf_keras.initializers.RandomNormal(stddev=0.5)},
    "table's initializer of tf_keras": {"input_dim": 20, "embeddings_initializer": tf_keras.initializers.Orthogonal()},
    "mask_zero": {"mask_zero": True},
    "padding_idx": {"padding_idx": 3},
    "max_norm": {"max_norm": 0.05, "norm_type": 1.0},
    "scale_grad_by_freq": {"scale_grad_by_freq": True},
    "counts": {"counts": "seen", "count_decay": 0.5},
    "storage": {"storage": "chained", "max_rows": 100, "missing": "zeros"},
    "weights": {"weights": np.linspace(-1, 1, 60).reshape(20, 3)},
    "combiner": {"combiner": "sqrtn", "padding_idx": 3},
    "dtype": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_every_argument_trains_as_in_tse_embedding(name, mode, rng):
    arguments = {"input_dim": None, "output_dim": 3, "seed": 3} | ARGUMENTS[name]
    ours, theirs = tse.Embedding(**arguments), tse.legacy.Embedding(**arguments)
    steps = []
    for layer, optimizer in zip((ours, theirs), make_pair("RowWiseAdagrad"), strict=True):
        layer.build((None, 4))

        def step(keys, layer=layer, optimizer=optimizer):
            with tf.GradientTape() as tape:
                output = layer(keys, training=True)
                loss = tf.reduce_sum(tf.cast(output, tf.float32) ** 2) + sum(layer.losses)
            variables = layer.trainable_variables
            sources = [v.value for v in variables] if layer is ours else variables
            optimizer.apply_gradients(zip(tape.gradient(loss, sources), variables, strict=True))
            return output, loss

        steps.append((lambda s: s if mode == "eager" else tf.function(lambda keys: s(keys)))(step))
    for _ in range(3):
        keys = tf.constant(rng.integers(0, 12, (5, 4)))
        (our_output, our_loss), (their_output, their_loss) = (step(keys) for step in steps)
        _assert_same_values(their_output, our_output)
        assert float(their_loss) == pytest.approx(float(our_loss), rel=1e-6)
    assert_same_tables(theirs.embeddings, ours.embeddings, rtol=1e-6, atol=1e-7)
    if "counts" in arguments:
        np.testing.assert_array_equal(
            theirs.embeddings.key_counts(np.arange(12)), ours.embeddings.key_counts(np.arange(12))
        )


def test_labels_are_counted():
    layer = tse.legacy.Embedding(None, 2, counts="clicked")
    layer(np.array([[1, 2], [1, 3]]), labels=np.array([1.0, 0.0]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2, 3]), [[2, 1], [1, 1], [1, 0]])


@pytest.mark.parametrize("combiner", [None, "mean"])
def test_masks_and_shapes_are_those_of_tse_embedding(combiner):
    ours, theirs = _pair(combiner=combiner, mask_zero=True)
    keys = tf.constant([[[1, 0], [0, 0]], [[2, 3], [0, 4]]], tf.int64)
    np.testing.assert_array_equal(theirs.compute_mask(keys), ours.compute_mask(keys))
    np.testing.assert_array_equal(theirs(keys)._keras_mask, ours.compute_mask(keys))
    assert theirs.compute_mask(tf.RaggedTensor.from_tensor(keys)) is None
    assert tuple(theirs.compute_output_shape((None, 5))) == ours.compute_output_shape((None, 5))
    assert isinstance(theirs.compute_output_shape(tf.TensorShape([2, 5])), tf.TensorShape)


def test_a_mask_reaches_the_next_layer(rng):
    keys, answers = np.array([[1, 2, 0], [3, 0, 0]]), np.ones((2, 1))
    inputs = tf_keras.Input([3], dtype="int64")
    hidden = tse.legacy.Embedding(None, 4, mask_zero=True, seed=1)(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(tf_keras.layers.LSTM(3)(hidden)))
    model.compile(tse.legacy.Adam(0.1), "mse")
    model.fit(keys, answers, verbose=0)
    padded = model.predict(np.concatenate([keys, np.zeros((2, 0), np.int64)], 1), verbose=0)
    np.testing.assert_allclose(padded[1], model.predict(np.array([[3, 0, 0]]), verbose=0)[0], rtol=1e-6)
    model.layers[1].embeddings.upsert([0], np.full((1, 4), 9.0))
    np.testing.assert_allclose(model.predict(keys, verbose=0), padded, rtol=1e-6)


INPUTS = {
    "dense": (lambda: tf_keras.Input([None], dtype="int64"), lambda rng: tf.constant(rng.integers(0, 9, (8, 3)))),
    "ragged": (
        lambda: tf_keras.Input([None], dtype="int64", ragged=True),
        lambda rng: tf.RaggedTensor.from_row_lengths(rng.integers(0, 9, 12), [3, 0, 2, 1, 1, 0, 4, 1]),
    ),
    "sparse": (
        lambda: tf_keras.Input([4], dtype="int64", sparse=True),
        lambda rng: tf.sparse.from_dense(rng.integers(0, 3, (8, 4))),
    ),
    "string": (
        lambda: tf_keras.Input([None], dtype="string"),
        lambda rng: tf.as_string(rng.integers(0, 9, (8, 3))),
    ),
}


@pytest.mark.parametrize("form", INPUTS)
def test_functional_models_take_keys_of_every_form(form, rng):
    make_input, make_keys = INPUTS[form]
    inputs, keys = make_input(), make_keys(rng)
    layer = embedding(tse.legacy)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(layer(inputs)))
    model.compile(tse.legacy.RowWiseAdam(0.1), "mse")
    twin = embedding(tse)
    before = model.predict(keys, verbose=0)
    np.testing.assert_allclose(before, model.layers[-1](twin(keys)), rtol=1e-5, atol=1e-6)
    assert int(layer.embeddings.size()) == 0
    model.fit(keys, np.ones((8, 1)), batch_size=4, verbose=0)
    flat = flat_values(keys) if not isinstance(keys, tf.RaggedTensor) else keys.values
    assert int(layer.embeddings.size()) == len(np.unique(flat.numpy()))
    assert np.abs(model.predict(keys, verbose=0) - before).max() > 1e-3


def test_weights_and_labels_may_be_inputs_of_a_functional_model(rng):
    keys, weights = tf_keras.Input([3], dtype="int64"), tf_keras.Input([3])
    layer = embedding(tse.legacy)
    model = tf_keras.Model([keys, weights], layer(keys, weights=weights))
    arrays = rng.integers(0, 9, (4, 3)), rng.random((4, 3)).astype(np.float32)
    want = embedding(tse)(arrays[0], weights=arrays[1])
    np.testing.assert_allclose(model.predict(list(arrays), verbose=0), want, rtol=1e-5, atol=1e-7)


def test_a_layer_that_is_called_twice_gets_the_sum_of_the_gradients(rng):
    """In a subclassed model, as DIN looks up the candidate and the history."""

    class Twice(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.item = tse.legacy.Embedding(None, 2, "zeros")

        def call(self, inputs):
            return tf.reduce_sum(self.item(inputs[:, :1]), [1, 2]) + 3 * tf.reduce_sum(self.item(inputs[:, 1:]), [1, 2])

    model = Twice()
    model.compile(tse.legacy.SGD(1.0), lambda answers, output: -tf.reduce_sum(output))
    model.fit(np.array([[5, 5, 2**40], [6, 5, 6]]), np.zeros(2), verbose=0)
    # 5: once as the first key, twice as another; 6: once each.
    np.testing.assert_allclose(model.item.embeddings.lookup([5, 6, 2**40])[:, 0], [1 + 3 + 3, 1 + 3, 3])


def test_a_frozen_layer_neither_trains_nor_inserts(rng):
    layer = embedding(tse.legacy)
    model = model_of(tf_keras, layer)
    layer.embeddings.upsert([1, 2], np.ones((2, 4)))
    layer.trainable = False
    model.compile(tse.legacy.SGD(0.5), "mse")
    model.fit(np.array([[1, 2, 3]] * 4), np.ones((4, 1)), verbose=0)
    assert int(layer.embeddings.size()) == 2
    np.testing.assert_array_equal(layer.embeddings.lookup([1, 2]), np.ones((2, 4)))
    assert len(layer.trainable_variables) == 0
    assert len(layer.non_trainable_variables) == 1
    layer.trainable = True
    model.compile(tse.legacy.SGD(0.5), "mse")
    model.fit(np.array([[1, 2, 3]] * 4), np.ones((4, 1)), verbose=0)
    assert int(layer.embeddings.size()) == 3
    assert (layer.embeddings.lookup([1, 2]).numpy() != 1).all()


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_sequential_model_without_input_takes_64_bit_keys(run_eagerly):
    keys = np.array([[2**62 + 1], [2**62], [-1]])
    model = tf_keras.Sequential([tse.legacy.Embedding(None, 2, combiner="sum"), tf_keras.layers.Dense(1)])
    model.compile(tse.legacy.SGD(0.1), "mse", run_eagerly=run_eagerly)
    model.fit(keys, np.ones((3, 1)), verbose=0)
    np.testing.assert_array_equal(np.sort(model.layers[0].embeddings.export()[0]), np.sort(keys[:, 0]))


def test_from_pretrained_holds_the_rows_and_is_frozen():
    layer = tse.legacy.Embedding.from_pretrained([[1.0, 2.0], [3.0, 4.0]], keys=[10, 2**50])
    np.testing.assert_array_equal(layer(np.array([2**50, 10])), [[3.0, 4.0], [1.0, 2.0]])
    assert layer.trainable_variables == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_precision_model_trains(policy, rng):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = model_of(tf_keras, embedding(tse.legacy))
        model.compile(tse.legacy.RowWiseAdam(0.05), "mse")
        keys = rng.integers(0, 9, (32, 3))
        losses = model.fit(keys, np.ones((32, 1)), batch_size=8, epochs=3, verbose=0).history["loss"]
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    layer = model.layers[0]
    assert losses[-1] < losses[0]
    assert layer(keys).dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert layer.embeddings.lookup(keys).dtype == tf.float32


STRATEGIES = {
    "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0"]),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_of_one_replica_trains_as_none(name, rng):
    keys, answers = data(rng)
    models = []
    for scope in (contextlib.nullcontext, STRATEGIES[name]().scope):
        with scope():
            models.append(model_of(tf_keras, embedding(tse.legacy)))
            models[-1].compile(tse.legacy.RowWiseAdam(0.05), "mse")
        models[-1].fit(keys, answers, batch_size=16, shuffle=False, verbose=0)
    assert_same_tables(models[1].layers[0].embeddings, models[0].layers[0].embeddings, rtol=1e-5, atol=1e-6)
    for got, want in zip(models[1].get_weights()[1:], models[0].get_weights()[1:], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_several_replicas_are_refused_because_each_would_update_the_table():
    script = """
import numpy as np, tensorflow as tf, tf_keras
import tf_sparse_emb as tse
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    layer = tse.legacy.Embedding(None, 2, "zeros", combiner="sum", name="user")
    model = tf_keras.Sequential([tf_keras.Input((1,), dtype="int64"), layer])
    model.compile(tse.legacy.SGD(1.0), "mse")
try:
    model.fit(np.arange(4)[:, None], np.ones((4, 2)), verbose=0)
except ValueError as error:
    print(str(error).splitlines()[-1].strip(), not layer.embeddings.lookup([0, 1, 2, 3]).numpy().any())
"""
    want = (
        "embedding table 'user/embeddings' must be trained by one replica at a time, got a tf.distribute strategy of 2"
    )
    assert prints(script).endswith(f"{want} replicas True")


COLLECTION = [
    [tse.TableConfig("item", None, 4, seed=1), tse.TableConfig("country", 20, 3, seed=2)],
    [
        tse.FeatureConfig("item", "item", combiner=None),
        tse.FeatureConfig("clicked", "item", combiner="mean", max_length=2),
        tse.FeatureConfig("country", "country"),
    ],
]


@pytest.mark.parametrize("concat", [False, True])
def test_a_collection_trains_as_in_keras_3(concat, rng):
    keys = {
        "item": rng.integers(0, 9, 8),
        "clicked": tf.RaggedTensor.from_row_lengths(rng.integers(0, 9, 12), [3, 0, 2, 1, 1, 0, 4, 1]),
        "country": rng.integers(0, 20, 8),
    }
    ours, theirs = (module.EmbeddingCollection(*COLLECTION, concat=concat) for module in (tse, tse.legacy))
    for layer, optimizer in zip((ours, theirs), make_pair("Adam"), strict=True):
        for _ in range(3):
            with tf.GradientTape() as tape:
                outputs = layer(keys, training=True)
                loss = sum(tf.reduce_sum(output**2) for output in tf.nest.flatten(outputs))
            sources = [v.value for v in layer.variables] if layer is ours else layer.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, sources), layer.trainable_variables, strict=True))
    got, want = theirs(keys), ours(keys)
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        _assert_same_values(a, b)
    for name in ("item", "country"):
        assert_same_tables(theirs.tables[name], ours.tables[name])
    again = tse.legacy.EmbeddingCollection.from_config(theirs.get_config())
    again.build()
    again.set_weights(theirs.get_weights())
    for a, b in zip(tf.nest.flatten(again(keys)), tf.nest.flatten(got), strict=True):
        _assert_same_values(a, b)
    shapes = {name: tf.TensorShape([8]) for name in keys}
    assert tf.nest.map_structure(tuple, theirs.compute_output_shape(shapes)) == ours.compute_output_shape(shapes)


def test_a_collection_fits_in_a_functional_model(rng):
    inputs = {name: tf_keras.Input([], dtype="int64", name=name) for name in ("item", "clicked", "country")}
    layer = tse.legacy.EmbeddingCollection(*COLLECTION, concat=True)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(layer(inputs)))
    model.compile(tse.legacy.RowWiseAdam(0.05), "mse")
    keys = {name: rng.integers(0, 9, 32) for name in inputs}
    losses = model.fit(keys, np.ones((32, 1)), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert int(layer.tables["item"].size()) == len(np.unique([keys["item"], keys["clicked"]]))
    assert [weight.name for weight in layer.trainable_variables] == [f"{layer.name}/item:0", f"{layer.name}/country:0"]


REFUSED = {
    "input_shape": (
        lambda: tse.legacy.Embedding(9, 2, input_shape=(3,)),
        ValueError,
        "input_shape would make .* floats",
    ),
    "lora": (lambda: tse.legacy.Embedding(9, 2, lora_rank=2), ValueError, "does not support lora_rank, got 2"),
    "combiner": (lambda: tse.legacy.Embedding(9, 2, combiner="min"), ValueError, "combiner must be .* got 'min'"),
    "dtype": (lambda: tse.legacy.Embedding(9, 2, dtype="int32"), ValueError, "dtype must be a float dtype"),
    "floats": (lambda: tse.legacy.Embedding(9, 2)(np.ones(3)), TypeError, "must be int32, int64 or string, got float"),
    "symbolic floats": (lambda: tse.legacy.Embedding(9, 2)(tf_keras.Input([3])), TypeError, "int32, int64 or string"),
    "range": (lambda: tse.legacy.Embedding(9, 2)(np.array([9])), tf.errors.InvalidArgumentError, r"\[0, 9\)"),
    "labels": (lambda: tse.legacy.Embedding(9, 2)(np.ones(2, int), labels=[1, 2]), ValueError, "labels need counts"),
    "unknown": (lambda: tse.legacy.Embedding(9, 2, depth=3), TypeError, "depth"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_refused_by_name(name):
    make, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        make()
