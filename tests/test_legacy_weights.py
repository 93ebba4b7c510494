"""What tf_keras does with the weights of a layer of tse.legacy: lists, snapshots, configs; and what saving refuses."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from legacy_cases import assert_same_tables, data, embedding, model_of, sorted_content

import tf_sparse_emb as tse


class Nested(tf_keras.layers.Layer):
    """A layer of the user's, in which the table is."""

    def __init__(self):
        super().__init__()
        self.inner = embedding(tse.legacy)

    def call(self, inputs):
        return self.inner(inputs)


def _trained(rng, layer=None):
    keys, answers = data(rng)
    model = model_of(tf_keras, layer or embedding(tse.legacy))
    model.compile(tse.legacy.Adam(0.05), "mse")
    model.fit(keys, answers, batch_size=16, verbose=0)
    return model, keys, answers


def test_the_table_is_the_one_weight_of_the_layer():
    layer = embedding(tse.legacy)
    layer.build()
    table = layer.embeddings
    layer.build((None, 3))
    assert layer.embeddings is table
    assert isinstance(table, tse.EmbeddingVariable)
    for weights in (layer.weights, layer.variables, layer.trainable_weights, layer.trainable_variables):
        (weight,) = weights
        assert isinstance(weight, tf.Variable)
        assert weight.table is table
        assert (weight.name, tuple(weight.shape), weight.dtype) == ("user/embeddings:0", (0, 4), tf.float32)
        assert weight.handle is table.value.handle
    assert layer.non_trainable_weights == []


def test_a_tape_takes_what_trainable_variables_lists():
    layer = embedding(tse.legacy, combiner=None)
    for persistent in (True, False):
        with tf.GradientTape(persistent=persistent, watch_accessed_variables=persistent) as tape:
            layer.build()
            tape.watch(layer.trainable_variables)
            loss = tf.reduce_sum(layer(np.array([7, 2**40, 7]), training=True))
        (gradient,) = tape.gradient(loss, layer.trainable_variables)
        assert isinstance(gradient, tf.IndexedSlices)
        np.testing.assert_array_equal(gradient.indices, [7, 2**40])
        np.testing.assert_array_equal(gradient.values, [[2.0] * 4, [1.0] * 4])


@pytest.mark.parametrize("make", [lambda: embedding(tse.legacy), Nested], ids=["layer", "nested"])
def test_weights_of_a_model_hold_the_rows_and_the_state(make, rng):
    model, keys, answers = _trained(rng, make())
    layer = model.layers[0] if isinstance(model.layers[0], tse.legacy.Embedding) else model.layers[0].inner
    weights, content = model.get_weights(), sorted_content(layer.embeddings)
    assert [type(weight) for weight in weights] == [tse.TableSnapshot, np.ndarray, np.ndarray]
    assert weights[0] == layer.get_weights()[0]
    want = model.predict(keys, verbose=0)
    model.fit(keys + 1, answers, verbose=0)
    assert np.abs(model.predict(keys, verbose=0) - want).max() > 1e-4
    model.set_weights(weights)
    np.testing.assert_array_equal(model.predict(keys, verbose=0), want)
    for got, expected in zip(sorted_content(layer.embeddings), content, strict=True):
        np.testing.assert_array_equal(got, expected)
    other = model_of(tf_keras, make())
    other.set_weights(weights)
    np.testing.assert_array_equal(other.predict(keys, verbose=0), want)


def test_early_stopping_restores_the_rows(rng):
    model, keys, answers = _trained(rng)
    before = model.predict(keys, verbose=0)
    first = []
    record = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: first or first.append(model.predict(keys, verbose=0))
    )
    # No improvement is great enough after the first epoch.
    stop = tf_keras.callbacks.EarlyStopping("loss", patience=1, min_delta=1e9, restore_best_weights=True)
    model.fit(keys, answers, epochs=5, verbose=0, callbacks=[record, stop])
    np.testing.assert_array_equal(model.predict(keys, verbose=0), first[0])
    assert np.abs(first[0] - before).max() > 1e-4


def test_set_weights_refuses_what_is_no_content_and_changes_nothing(rng):
    model, _, _ = _trained(rng)
    layer = model.layers[0]
    before = layer.get_weights()[0]
    with pytest.raises(TypeError, match="it can be assigned a tse.TableSnapshot, got ndarray"):
        layer.set_weights([np.zeros((0, 4))])
    with pytest.raises(TypeError, match="it can be assigned a tse.TableSnapshot, got ndarray"):
        model.set_weights([np.zeros((0, 4)), *model.get_weights()[1:]])
    with pytest.raises(ValueError, match="weights must be a list of 1"):
        layer.set_weights([])
    with pytest.raises(ValueError, match="was expecting 3 weights"):
        model.set_weights([before])
    assert layer.get_weights()[0] == before
    with pytest.raises(ValueError, match="no weights before it is built"):
        embedding(tse.legacy).set_weights([before])


def test_a_bounded_table_takes_the_matrix_of_a_tf_keras_embedding(rng):
    theirs = tf_keras.layers.Embedding(9, 4)
    theirs.build(None)
    layer = tse.legacy.Embedding(9, 4)
    layer.build()
    layer.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(layer(np.arange(9)), theirs(np.arange(9)))


def test_a_summary_counts_the_rows_that_are_there(rng):
    model, keys, _ = _trained(rng)
    assert model.layers[0].count_params() == len(np.unique(keys)) * 4
    lines = []
    model.summary(print_fn=lines.append)
    assert any("user (Embedding)" in line and str(len(np.unique(keys)) * 4) in line for line in lines)


CONFIGS = {
    "plain": {},
    "initializer": {"embeddings_initializer": tf_keras.initializers.TruncatedNormal(stddev=0.1), "mask_zero": True},
    "regularizer": {
        "embeddings_regularizer": tf_keras.regularizers.L2(0.1),
        "embeddings_constraint": "non_neg",
        "counts": "seen",
    },
    "norms": {"dtype": "mixed_bfloat16", "padding_idx": -2, "max_norm": 2.0, "norm_type": np.inf, "storage": "chained"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_makes_the_same_layer_by_each_way_of_tf_keras(name):
    layer = embedding(tse.legacy, trainable=False, **CONFIGS[name])
    config = layer.get_config()
    ways = [
        tse.legacy.Embedding.from_config(config),
        tf_keras.layers.deserialize(tf_keras.layers.serialize(layer)),
        tf_keras.saving.deserialize_keras_object(tf_keras.saving.serialize_keras_object(layer)),
    ]
    model = model_of(tf_keras, layer)
    ways += [
        made.layers[0]
        for made in (tf_keras.models.clone_model(model), tf_keras.models.model_from_json(model.to_json()))
    ]
    keys = np.array([[1, 2, 0], [2**40, 5, 0]])
    for again in ways:
        assert type(again) is tse.legacy.Embedding
        assert again.get_config() == config
        assert (again.seed, again.trainable) == (3, False)
        np.testing.assert_array_equal(tf.cast(again(keys), tf.float32), tf.cast(layer(keys), tf.float32))


def test_building_again_with_the_same_seed_gives_the_same_rows_as_keras_3():
    ours, theirs = embedding(tse), embedding(tse.legacy)
    keys = np.arange(30).reshape(10, 3)
    ours(keys, training=True)
    theirs(keys, training=True)
    assert_same_tables(theirs.embeddings, ours.embeddings)


SAVERS = {
    "keras": lambda model, path: model.save(path + ".keras"),
    "h5": lambda model, path: model.save(path + ".h5"),
    "weights.h5": lambda model, path: model.save_weights(path + ".weights.h5"),
    "weights of h5": lambda model, path: model.save_weights(path + ".h5"),
    "weights of a checkpoint": lambda model, path: model.save_weights(path),
    "saved model": lambda model, path: model.save(path, save_format="tf"),
    "tf.saved_model": lambda model, path: tf.saved_model.save(model, path),
    "export": lambda model, path: model.export(path),
    "checkpoint": lambda model, path: tf.train.Checkpoint(model=model).write(path),
    "checkpoint with optimizer": lambda model, path: tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(
        path
    ),
}


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("make", [lambda: embedding(tse.legacy), Nested], ids=["layer", "nested"])
def test_no_format_loses_rows_in_silence(name, make, rng, tmp_path):
    model, _, _ = _trained(rng, make())
    with pytest.raises(TypeError, match="the rows of an embedding table cannot be saved by tf_keras yet"):
        SAVERS[name](model, str(tmp_path / "saved"))


def test_the_table_of_a_layer_is_saved_by_its_own_means(rng, tmp_path):
    layer = embedding(tse.legacy)
    _trained(rng, layer)
    content = sorted_content(layer.embeddings)

    layer.embeddings.save(tmp_path / "table")
    other = embedding(tse.legacy)
    other.build()
    other.embeddings.load(tmp_path / "table")
    np.testing.assert_equal(sorted_content(other.embeddings), content)

    tse.saving.IncrementalCheckpoint(tmp_path / "saves", table=layer.embeddings).save()
    other = embedding(tse.legacy)
    other.build()
    tse.saving.IncrementalCheckpoint(tmp_path / "saves", table=other.embeddings).restore()
    np.testing.assert_equal(sorted_content(other.embeddings), content)


def test_an_optimizer_with_state_in_tables_is_not_saved_alone(rng, tmp_path):
    model, _, _ = _trained(rng)
    with pytest.raises(TypeError, match="a part of it is in the rows of embedding tables"):
        tf.train.Checkpoint(optimizer=model.optimizer).write(str(tmp_path / "checkpoint"))


def test_an_optimizer_without_tables_is_saved_with_its_slots(rng, tmp_path):
    variables, optimizers = [], []
    for _ in range(2):
        variables.append(tf.Variable(rng.normal(size=(3, 2)), dtype=tf.float32))
        optimizers.append(tse.legacy.Adam(0.1))
    grad = tf.constant(rng.normal(size=(3, 2)), tf.float32)
    optimizers[0].apply_gradients([(grad, variables[0])])
    first, second = (
        tf.train.Checkpoint(optimizer=optimizer, variable=variable)
        for optimizer, variable in zip(optimizers, variables, strict=True)
    )
    second.read(first.write(str(tmp_path / "checkpoint")))
    for optimizer, variable in zip(optimizers, variables, strict=True):
        optimizer.apply_gradients([(grad, variable)])
    np.testing.assert_array_equal(variables[0].numpy(), variables[1].numpy())
    np.testing.assert_array_equal(
        optimizers[0].get_slot(variables[0], "velocity").numpy(),
        optimizers[1].get_slot(variables[1], "velocity").numpy(),
    )


@pytest.mark.parametrize(
    "read", [lambda w: w.numpy(), np.asarray, tf.convert_to_tensor, lambda w: w.read_value(), lambda w: w.value()]
)
def test_a_table_among_the_weights_is_no_array(read):
    layer = embedding(tse.legacy)
    layer.build()
    with pytest.raises(TypeError, match="'user/embeddings'.* (would be lost|is an embedding table, no dense tensor)"):
        read(layer.weights[0])
