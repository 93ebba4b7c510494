"""tse.EmbeddingCollection as a Keras layer: configs, models, weights and static shapes."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from collection_cases import V, build_collection, table_config, table_rows, train_step

import tf_sparse_emb as tse


def _some_features():
    return [
        tse.FeatureConfig("user", "user"),
        tse.FeatureConfig("item", "item", None),
        tse.FeatureConfig("clicked", "item", "mean", max_length=4, mask_zero=True),
        tse.FeatureConfig("tags", "tag", "sqrtn"),
    ]


def _some_tables(**kwargs):
    return [table_config("user", 4, **kwargs), table_config("item", 4, **kwargs), table_config("tag", 2, V, **kwargs)]


def _some_data(rng, n=16):
    lengths = rng.integers(0, 5, n)
    return {
        "user": rng.integers(0, V, n),
        "item": rng.integers(0, V, n),
        "clicked": rng.integers(0, V, (n, 6)),
        "tags": tf.RaggedTensor.from_row_lengths(rng.integers(0, V, lengths.sum()), lengths),
    }


def test_config_round_trip_makes_the_same_layer(rng):
    layer = tse.EmbeddingCollection(
        [
            table_config(
                "item",
                4,
                embeddings_regularizer=keras.regularizers.L2(0.1),
                embeddings_constraint=keras.constraints.MaxNorm(1.0, axis=1),
                padding_idx=3,
                max_norm=2.0,
                norm_type=float("inf"),
                scale_grad_by_freq=True,
                storage="chained",
                max_rows=100,
                counts="clicked",
                count_decay=0.5,
            ),
            tse.TableConfig("tag", V, 2),
        ],
        [
            tse.FeatureConfig("clicked", "item", "sum", max_length=3, mask_zero=True),
            tse.FeatureConfig("item", "item", None),
            tse.FeatureConfig("tag", "tag"),
        ],
        concat=True,
        missing="zeros",
        name="features",
        trainable=False,
        dtype="mixed_bfloat16",
    )
    config = layer.get_config()
    again = tse.EmbeddingCollection.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert (again.name, again.concat, again.missing, again.trainable) == ("features", True, "zeros", False)
    assert [table.norm_type for table in again.table_configs] == [float("inf"), 2.0]
    third = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
    assert isinstance(third, tse.EmbeddingCollection) and third.get_config() == config
    inputs = {"clicked": rng.integers(0, V, (5, 4)), "item": rng.integers(0, V, 5), "tag": rng.integers(0, V, 5)}
    np.testing.assert_array_equal(tf.cast(again(inputs), tf.float32), tf.cast(layer(inputs), tf.float32))


def test_the_same_config_gives_the_same_rows_even_when_the_seeds_were_drawn():
    tables = [tse.TableConfig("a", None, 3), tse.TableConfig("b", None, 3)]
    layer = build_collection(tables, [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")])
    again = tse.EmbeddingCollection.from_config(layer.get_config())
    keys = {"a": np.arange(V), "b": np.arange(V)}
    outputs, same = layer(keys), again(keys)
    for name in "ab":
        np.testing.assert_array_equal(outputs[name], same[name])
    assert np.abs(outputs["a"] - outputs["b"]).max() > 0


def _inputs_of_a_model():
    return {
        "user": keras.Input((), dtype="int64", name="user"),
        "item": keras.Input((), dtype="int64", name="item"),
        "clicked": keras.Input((6,), dtype="int64", name="clicked"),
        "tags": keras.Input((None,), dtype="int64", ragged=True, name="tags"),
    }


def _functional(layer):
    inputs = _inputs_of_a_model()
    return keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))


def _functional_of_a_dict(layer):
    """The same model, of a layer that gives a dict."""
    layer.concat = False
    inputs = _inputs_of_a_model()
    outputs = layer(inputs)
    joint = keras.layers.Concatenate()([outputs[name] for name in ("user", "item", "clicked", "tags")])
    return keras.Model(inputs, keras.layers.Dense(1)(joint))


class Subclassed(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.dense = layer, keras.layers.Dense(1)

    def call(self, inputs, training=None):
        return self.dense(self.layer(inputs, training=training))


@pytest.mark.parametrize("kind", [_functional, _functional_of_a_dict, Subclassed])
@pytest.mark.parametrize("source, run_eagerly", [("arrays", False), ("arrays", True), ("dataset", False)])
def test_fit_learns_and_inserts_predict_does_not(kind, source, run_eagerly, rng):
    layer = tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True)
    model = kind(layer)
    model.compile(tse.optimizers.RowWiseAdagrad(0.2), "mse", run_eagerly=run_eagerly)
    x, y = _some_data(rng), np.sin(np.arange(16.0))[:, None]
    model.predict(x, batch_size=8, verbose=0)
    assert [int(layer.tables[name].size()) for name in ("user", "item", "tag")] == [0, 0, V]
    if source == "arrays":
        history = model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
    else:
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).prefetch(2)
        history = model.fit(data, epochs=5, shuffle=False, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    seen = {"user": x["user"], "item": [*x["item"], *x["clicked"][:, :4].reshape(-1)]}
    for name, keys in seen.items():
        # The table is shared: key 0 is padding of one of its features alone.
        want = set(np.unique(keys).tolist()) - ({0} if name == "item" and 0 not in x["item"] else set())
        assert set(layer.tables[name].export()[0].numpy().tolist()) == want
    assert model.predict(x, batch_size=8, verbose=0).shape == (16, 1)


def test_models_of_every_kind_train_alike(rng):
    x, y = _some_data(rng), np.sin(np.arange(16.0))[:, None]
    tables = []
    for kind in (_functional, _functional_of_a_dict, Subclassed):
        keras.utils.set_random_seed(3)
        layer = tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True)
        model = kind(layer)
        model.compile(tse.optimizers.RowWiseAdam(0.1), "mse")
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        tables.append([table_rows(table) for table in layer.tables.values()])
    for first, second, third in zip(*tables, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(first, third, rtol=1e-4, atol=1e-6)


def test_a_model_with_weights_and_labels_as_inputs():
    layer = tse.EmbeddingCollection(
        [table_config("t", counts="clicked")], [tse.FeatureConfig("f", "t", "sum")], concat=True
    )
    keys, weights = keras.Input((2,), dtype="int64"), keras.Input((2,), dtype="float32")
    labels = keras.Input((), dtype="float32")
    output = layer({"f": keys}, weights={"f": weights}, labels=labels)
    model = keras.Model([keys, weights, labels], keras.layers.Dense(1)(output))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    x = [np.array([[1, 2], [2, 3]]), np.ones((2, 2)), np.array([1.0, 0.0])]
    model.fit(x, np.ones((2, 1)), verbose=0)
    np.testing.assert_array_equal(layer.tables["t"].key_counts([1, 2, 3]), [[1, 1], [2, 1], [1, 0]])


def test_freeze_and_unfreeze(rng):
    layer = tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True)
    model = _functional(layer)
    x, y = _some_data(rng), np.ones((16, 1))
    layer.trainable = False
    model.compile("adam", "mse")
    before = [table_rows(table) for table in layer.tables.values()]
    model.fit(x, y, verbose=0)
    for table, rows in zip(layer.tables.values(), before, strict=True):
        np.testing.assert_array_equal(table_rows(table), rows)
    layer.trainable = True
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(x, y, verbose=0)
    for table, rows in zip(layer.tables.values(), before, strict=True):
        assert np.abs(table_rows(table) - rows).max() > 0


def test_a_keras_optimizer_is_a_type_error_that_names_tse_optimizers(rng):
    model = _functional(tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True))
    with pytest.raises(TypeError, match=r"tse\.optimizers"):
        model.compile("adam", "mse")
        model.fit(_some_data(rng), np.ones((16, 1)), verbose=0)


def test_weights_are_a_snapshot_of_each_table(rng):
    layer, other = (build_collection(_some_tables(), _some_features()) for _ in range(2))
    inputs = _some_data(rng)
    train_step(layer, inputs, tse.optimizers.SGD(0.3))
    snapshots = layer.get_weights()
    assert [type(snapshot) for snapshot in snapshots] == [tse.TableSnapshot] * 3
    other.set_weights(snapshots)
    for got, want in zip(other.get_weights(), snapshots, strict=True):
        order, want_order = np.argsort(got.keys), np.argsort(want.keys)
        np.testing.assert_array_equal(got.keys[order], want.keys[want_order])
        np.testing.assert_array_equal(got.rows[order], want.rows[want_order])
    for name, output in layer(inputs).items():
        np.testing.assert_array_equal(other(inputs)[name], output)
    assert layer.count_params() == sum(int(table.size()) * table.dim for table in layer.tables.values())


def test_symbolic_shapes():
    inputs = _inputs_of_a_model()
    features = [
        *_some_features(),
        tse.FeatureConfig("rows", "tag", None),
        tse.FeatureConfig("ragged_rows", "tag", None),
        tse.FeatureConfig("padded", "tag", None, max_length=7),
        tse.FeatureConfig("sparse", "user", "max"),
    ]
    inputs |= {
        "rows": keras.Input((5,), dtype="int32"),
        "ragged_rows": keras.Input((None,), dtype="int64", ragged=True),
        "padded": keras.Input((None,), dtype="int64", ragged=True),
        "sparse": keras.Input((None,), dtype="string", sparse=True),
        "no_feature": keras.Input((3,), dtype="float32"),
    }
    outputs = tse.EmbeddingCollection(_some_tables(), features)(inputs)
    assert {name: output.shape for name, output in outputs.items()} == {
        "user": (None, 4),
        "item": (None, 4),
        "clicked": (None, 4),
        "tags": (None, 2),
        "rows": (None, 5, 2),
        "ragged_rows": (None, None, 2),
        "padded": (None, 7, 2),
        "sparse": (None, 4),
    }
    assert [name for name, output in outputs.items() if output.ragged] == ["ragged_rows"]
    joint = tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True)(_inputs_of_a_model())
    assert joint.shape == (None, 14)
    low = tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True, dtype="mixed_bfloat16")
    assert low(_inputs_of_a_model()).dtype == "bfloat16"


@pytest.mark.parametrize("concat", [False, True])
def test_static_shapes_in_a_graph(concat):
    layer = build_collection(_some_tables(), _some_features(), concat=concat)
    seen = []

    def call(inputs):
        seen.append(layer(inputs))

    for batch in (None, 8):
        specs = {
            "user": tf.TensorSpec([batch], tf.int64),
            "item": tf.TensorSpec([batch], tf.int64),
            "clicked": tf.TensorSpec([batch, 6], tf.int64),
            "tags": tf.RaggedTensorSpec([batch, None], tf.int64),
        }
        tf.function(call).get_concrete_function(specs)
        if concat:
            assert seen[-1].shape.as_list() == [batch, 14]
        else:
            widths = {"user": 4, "item": 4, "clicked": 4, "tags": 2}
            assert {name: output.shape.as_list() for name, output in seen[-1].items()} == {
                name: [batch, width] for name, width in widths.items()
            }
