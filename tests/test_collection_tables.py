"""The tables of tse.EmbeddingCollection: shared by features, each with arguments of its own."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from collection_cases import BATCH, MODES, V, build_collection, dense_gradient, table_config, table_rows, train_step

import tf_sparse_emb as tse

# Tables shared by features.


@pytest.mark.parametrize("mode", MODES)
def test_a_shared_table_gets_the_gradient_of_all_its_features_once_for_each_key(mode):
    layer = build_collection(
        [table_config("item")],
        [tse.FeatureConfig("item", "item"), tse.FeatureConfig("clicked", "item", "sum")],
    )
    inputs = {"item": np.array([1, 2]), "clicked": tf.ragged.constant([[2, 3, 2], [1]], dtype=tf.int64)}

    def gradient():
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs["item"]) + 10 * tf.reduce_sum(outputs["clicked"])
        return tape.gradient(loss, layer.tables["item"])

    slices = (gradient if mode == "eager" else tf.function(gradient))()
    assert len(slices.indices) == 3
    got = dict(zip(slices.indices.numpy().tolist(), slices.values.numpy()[:, 0].tolist(), strict=True))
    assert got == {1: 11, 2: 21, 3: 10}
    assert int(layer.tables["item"].size()) == 3


def test_a_shared_table_is_updated_once_a_step():
    """Row-wise Adagrad is not linear: a key of two features must come to it with its summed gradient."""
    layer = build_collection([table_config("t")], [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t", None)])
    before = table_rows(layer.tables["t"])
    twin = reference.TableTwin(before, "row_wise_adagrad")
    optimizer = tse.optimizers.RowWiseAdagrad(0.1)
    for a, b in (([1, 2], [2, 3]), ([2, 2], [2, 9])):
        rows = twin.rows.copy()
        train_step(layer, {"a": np.array(a), "b": np.array(b)}, optimizer)
        twin.apply([*a, *b], 2 * rows[[*a, *b]], learning_rate=0.1)
    np.testing.assert_allclose(table_rows(layer.tables["t"]), twin.rows, rtol=1e-4, atol=1e-6)
    assert np.abs(twin.rows - before).max() > 0.05


@pytest.mark.parametrize("num_tables", [1, 2])
def test_a_tape_around_a_traced_call_gives_the_gradient_of_each_table(num_tables):
    """The forward pass in a tf.function, the gradient asked for outside of it."""
    layer = build_collection(
        [table_config(f"t{t}") for t in range(num_tables)],
        [tse.FeatureConfig("a", "t0"), tse.FeatureConfig("b", f"t{num_tables - 1}", "sum")],
    )
    call = tf.function(layer)
    with tf.GradientTape() as tape:
        outputs = call({"a": np.array([1, 2]), "b": np.array([[2, 3], [3, 3]])}, training=True)
        loss = tf.reduce_sum(outputs["a"]) + 10 * tf.reduce_sum(outputs["b"])
    gradients = [dense_gradient(g)[:, 0] for g in tape.gradient(loss, list(layer.tables.values()))]
    want_a, want_b = np.zeros(V), np.zeros(V)
    want_a[[1, 2]], want_b[[2, 3]] = 1, [10, 30]
    np.testing.assert_array_equal(gradients, [want_a + want_b] if num_tables == 1 else [want_a, want_b])


def test_equal_keys_of_different_tables_are_different_rows():
    layer = build_collection(
        [table_config("a", seed=1), table_config("b", seed=2)],
        [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")],
    )
    outputs = train_step(layer, {"a": np.array([7, 7]), "b": np.array([7, 8])}, tse.optimizers.SGD(0.1))
    assert np.abs(outputs["a"][0] - outputs["b"][0]).max() > 0
    assert {name: int(table.size()) for name, table in layer.tables.items()} == {"a": 1, "b": 2}


def test_a_table_without_features_stays_as_it_is():
    layer = build_collection([table_config("a"), table_config("unused", 2, V)], [tse.FeatureConfig("a", "a")])
    before = layer.tables["unused"].numpy()
    outputs = layer({"a": np.array([1, 2])}, training=True)
    assert list(outputs) == ["a"] and list(layer.tables) == ["a", "unused"]
    assert layer.tables["unused"].numpy() == before


@pytest.mark.parametrize("widths", [(3, 3, 3), (2, 3, 2), (4, 3, 2)], ids=str)
def test_tables_of_any_widths(widths, rng):
    tables = [table_config(f"t{t}", width, seed=t) for t, width in enumerate(widths)]
    # In an order that does not follow the widths.
    features = [tse.FeatureConfig(f"f{f}", f"t{t}") for f, t in enumerate([2, 0, 1, 0])]
    layer = build_collection(tables, features)
    inputs = {f"f{f}": rng.integers(0, V, (BATCH, 2)) for f in range(4)}
    outputs = layer(inputs)
    assert list(outputs) == ["f0", "f1", "f2", "f3"]
    for feature in features:
        rows = layer.tables[feature.table].lookup(inputs[feature.name])
        np.testing.assert_allclose(outputs[feature.name], tf.reduce_mean(rows, 1), rtol=1e-5, atol=1e-6)


# The arguments of tables.


def test_a_regularizer_is_applied_to_each_key_once_over_all_features():
    class Sum(keras.regularizers.Regularizer):
        def __init__(self, scale):
            self.scale, self.shapes = scale, []

        def __call__(self, rows):
            self.shapes.append(tuple(rows.shape))
            return self.scale * tf.reduce_sum(rows**2)

    regularizers = [Sum(1.0), Sum(10.0)]
    layer = build_collection(
        [
            table_config("a", embeddings_regularizer=regularizers[0], seed=1),
            table_config("plain", seed=2),
            table_config("b", embeddings_regularizer=regularizers[1], seed=3),
        ],
        [
            tse.FeatureConfig("a1", "a"),
            tse.FeatureConfig("a2", "a", "sum"),
            tse.FeatureConfig("p", "plain"),
            tse.FeatureConfig("b1", "b", None),
        ],
    )
    inputs = {
        "a1": np.array([1, 2]),
        "a2": np.array([[2, 3, 3], [1, 1, 2]]),
        "p": np.array([1]),
        "b1": np.array([5, 5]),
    }
    with tf.GradientTape() as tape:
        layer(inputs, training=True)
        losses = list(layer.losses)
    rows = {name: table_rows(layer.tables[name], keys) for name, keys in {"a": [1, 2, 3], "b": [5]}.items()}
    assert [r.shapes for r in regularizers] == [[(3, 3)], [(1, 3)]]
    np.testing.assert_allclose(sorted(losses), sorted([(rows["a"] ** 2).sum(), 10 * (rows["b"] ** 2).sum()]), rtol=1e-5)
    with tf.GradientTape() as tape:
        layer(inputs, training=True)
        loss = tf.add_n(layer.losses)
    gradients = tape.gradient(loss, [layer.tables["a"], layer.tables["b"]])
    np.testing.assert_allclose(dense_gradient(gradients[0])[1:4], 2 * rows["a"], rtol=1e-5)
    np.testing.assert_allclose(dense_gradient(gradients[1])[5], 20 * rows["b"][0], rtol=1e-5)
    layer.trainable = False
    layer(inputs)
    assert layer.losses == []


@pytest.mark.parametrize("mode", MODES)
def test_scale_grad_by_freq_divides_by_how_often_a_key_comes_over_all_features(mode):
    tables = [table_config("scaled", scale_grad_by_freq=True), table_config("plain")]
    features = [
        tse.FeatureConfig("a", "scaled", None),
        tse.FeatureConfig("b", "scaled", "sum"),
        tse.FeatureConfig("c", "plain", "sum"),
    ]
    layer = build_collection(tables, features)
    inputs = {"a": np.array([1, 2]), "b": np.array([[2, 2, 3], [3, 4, 4]]), "c": np.array([[1, 1], [2, 1]])}

    def gradients():
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs["a"]) + 4 * tf.reduce_sum(outputs["b"]) + tf.reduce_sum(outputs["c"])
        return tape.gradient(loss, [layer.tables["scaled"], layer.tables["plain"]])

    scaled, plain = (gradients if mode == "eager" else tf.function(gradients))()
    want = {1: 1.0, 2: (1 + 2 * 4) / 3, 3: 4.0, 4: 4.0}
    np.testing.assert_allclose(dense_gradient(scaled)[list(want), 0], list(want.values()), rtol=1e-6)
    np.testing.assert_allclose(dense_gradient(plain)[[1, 2], 0], [3, 1])


@pytest.mark.parametrize("training", [False, True])
def test_max_norm_bounds_the_rows_of_its_table_alone(training):
    layer = build_collection(
        [table_config("bounded", max_norm=0.1, seed=1), table_config("free", seed=1)],
        [tse.FeatureConfig("b", "bounded", None), tse.FeatureConfig("f", "free", None)],
    )
    keys = np.arange(V)
    for table in layer.tables.values():
        table.upsert(keys, np.ones((V, 3), np.float32))
    outputs = layer({"b": keys, "f": keys}, training=training)
    np.testing.assert_allclose(np.linalg.norm(outputs["b"], axis=1), 0.1, rtol=1e-4)
    np.testing.assert_array_equal(outputs["f"], np.ones((V, 3)))
    stored = np.asarray(layer.tables["bounded"].export()[1])
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 0.1 if training else np.sqrt(3), rtol=1e-4)


def test_the_arguments_of_tables_reach_their_variables():
    constraint = keras.constraints.NonNeg()
    layer = build_collection(
        [
            table_config("a", storage="chained", seed=5, max_rows=3),
            table_config("b", 3, V, max_norm=2.0, norm_type="inf", padding_idx=2, embeddings_constraint=constraint),
        ],
        [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")],
    )
    a, b = layer.tables["a"], layer.tables["b"]
    assert (a.storage, a.seed, a.max_rows, a.input_dim, a.dim) == ("chained", 5, 3, None, 3)
    assert (b.storage, b.input_dim, b.max_norm, b.norm_type, b.padding_key) == ("index", V, 2.0, float("inf"), 2)
    train_step(layer, {"a": np.array([1]), "b": np.array([1])}, tse.optimizers.SGD(0.6))
    assert table_rows(b, [1]).min() >= 0
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|3"):
        layer({"a": np.arange(4), "b": np.array([1])}, training=True)


def test_missing_zeros_reads_unknown_keys_as_zeros_unless_it_trains():
    layer = build_collection([table_config("t")], [tse.FeatureConfig("f", "t")], missing="zeros")
    keys = {"f": np.array([1, 2])}
    np.testing.assert_array_equal(layer(keys)["f"], np.zeros((2, 3)))
    trained = layer(keys, training=True)["f"]
    assert np.abs(trained).min() > 0
    np.testing.assert_array_equal(layer(keys)["f"], trained)


@pytest.mark.parametrize("training, inserted", [(True, 2), (False, 0), (None, 0)])
def test_only_training_inserts(training, inserted):
    layer = build_collection(
        [table_config("a"), table_config("b", 2)], [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")]
    )
    layer({"a": np.array([1, 2, 1]), "b": np.array([3, 4, 3])}, training=training)
    assert [int(table.size()) for table in layer.tables.values()] == [inserted, inserted]


def test_a_frozen_collection_inserts_and_counts_nothing():
    layer = build_collection([table_config("a", counts="seen")], [tse.FeatureConfig("a", "a")], trainable=False)
    layer({"a": np.array([1, 2])}, training=True)
    assert int(layer.tables["a"].size()) == 0
    assert layer.trainable_variables == [] and len(layer.non_trainable_variables) == 1
    layer.trainable = True
    layer({"a": np.array([1, 2])}, training=True)
    assert int(layer.tables["a"].size()) == 2
    np.testing.assert_array_equal(layer.tables["a"].key_counts([1, 2]), [[1], [1]])
    assert len(layer.trainable_variables) == 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_the_output_dtype_is_the_compute_dtype(policy):
    features = [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t", None, max_length=3)]
    layer = build_collection([table_config("t")], features, dtype=policy)
    outputs = layer({"a": np.array([[1, 2]]), "b": np.array([[1, 2]])})
    assert {output.dtype for output in outputs.values()} == {tf.as_dtype(layer.compute_dtype)}
    assert layer.tables["t"].lookup([1]).dtype == tf.float32
