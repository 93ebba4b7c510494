"""tse.EmbeddingCollection: many features as so many tse.Embedding layers would do, in few ops."""

import json

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

MODES = ("eager", "graph")
ALL_COMBINERS = (*reference.COMBINERS, "max")
V, BATCH = 20, 5


def _table(name, output_dim=3, input_dim=None, **kwargs):
    kwargs = {"embeddings_initializer": keras.initializers.RandomNormal(), "seed": 7} | kwargs
    return tse.TableConfig(name, input_dim, output_dim, **kwargs)


def _collection(tables, features, **kwargs):
    layer = tse.EmbeddingCollection(tables, features, **kwargs)
    layer.build()
    return layer


def _flat(values):
    if isinstance(values, tf.RaggedTensor):
        return values.flat_values
    return values.values if isinstance(values, tf.SparseTensor) else values


def _with_flat(like, values):
    if isinstance(like, tf.RaggedTensor):
        return like.with_flat_values(values)
    return like.with_values(values) if isinstance(like, tf.SparseTensor) else values


def _rows(table, keys=range(V)):
    return table.lookup(np.array(keys)).numpy()


def _dense_gradient(gradient):
    """IndexedSlices of keys 0 to V - 1 as a matrix; None as zeros."""
    dense = np.zeros((V, gradient.values.shape[1]))
    np.add.at(dense, gradient.indices.numpy(), gradient.values.numpy())
    return dense


def _step(layer, inputs, optimizer, **call):
    """One step that makes all outputs smaller; returns the outputs."""
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=True, **call)
        loss = sum(tf.reduce_sum(_flat(output) ** 2) for output in outputs.values())
    variables = layer.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    return outputs


# The twin: each table as a tse.Embedding of its own, called once for each feature, with bags made in Python and pooled
# by TensorFlow's plain ops.


class SeparateLayers:
    def __init__(self, tables, features):
        self.features = features
        self.tables = {table.name: table for table in tables}
        self.layers = {}
        for table in tables:
            config = table.get_config()
            self.layers[config.pop("name")] = tse.Embedding(**config)
        for layer in self.layers.values():
            layer.build()
        self.variables = [layer.embeddings for layer in self.layers.values()]

    def __call__(self, inputs, weights=None, training=None):
        return {
            feature.name: self._output(feature, inputs[feature.name], (weights or {}).get(feature.name), training)
            for feature in self.features
        }

    def _output(self, feature, keys, weights, training):
        layer, table = self.layers[feature.table], self.tables[feature.table]
        skipped = ({0} if feature.mask_zero else set()) | {table.padding_idx}
        bags, position = _bags(keys), 0
        kept = []  # for each bag the positions of its keys that count
        for bag in bags:
            kept.append(
                [
                    position + i
                    for i, key in enumerate(bag[: feature.max_length])
                    if feature.combiner is None or key not in skipped
                ]
            )
            position += len(bag)
        lengths = [len(bag) for bag in kept]
        at = np.array([p for bag in kept for p in bag], np.int64)
        rows = layer(tf.gather(tf.reshape(_flat(keys), [-1]), at), training=training)
        if feature.combiner is None:
            ragged = tf.RaggedTensor.from_row_lengths(rows, lengths)
            if keys.shape.rank == 1:
                return rows
            if feature.max_length is not None:
                return ragged.to_tensor(shape=[None, feature.max_length, None])
            return ragged if isinstance(keys, tf.RaggedTensor) else ragged.to_tensor(shape=[*keys.shape, None])
        at_weights = tf.ones([len(at)]) if weights is None else tf.gather(tf.reshape(_flat(weights), [-1]), at)
        return _plain_pool(rows, at_weights, np.repeat(np.arange(len(bags)), lengths), len(bags), feature.combiner)


def _bags(keys):
    """The keys of each bag as lists."""
    if isinstance(keys, tf.RaggedTensor):
        return keys.to_list()
    if isinstance(keys, tf.SparseTensor):
        bags = [[] for _ in range(keys.shape[0])]
        for (row, _), key in zip(keys.indices.numpy(), keys.values.numpy().tolist(), strict=True):
            bags[row].append(key)
        return bags
    return [[key] if np.ndim(key) == 0 else key for key in keys.numpy().tolist()]


def _plain_pool(rows, weights, bag_ids, num_bags, combiner):
    if combiner == "max":
        greatest = tf.math.unsorted_segment_max(rows, bag_ids, num_bags)
        empty = tf.math.unsorted_segment_sum(tf.ones([len(bag_ids)]), bag_ids, num_bags) == 0
        return tf.where(empty[:, tf.newaxis], 0.0, greatest)
    sums = tf.math.unsorted_segment_sum(rows * weights[:, tf.newaxis], bag_ids, num_bags)
    if combiner == "sum":
        return sums
    divisor = tf.math.unsorted_segment_sum(weights if combiner == "mean" else weights**2, bag_ids, num_bags)
    divisor = tf.where(divisor == 0, 1.0, divisor)[:, tf.newaxis]
    return sums / (divisor if combiner == "mean" else tf.sqrt(divisor))


def _random_keys(rng, form, batch=BATCH):
    if form == "single":
        return tf.constant(rng.integers(0, V, batch))
    if form == "dense":
        return tf.constant(rng.integers(0, V, (batch, rng.integers(1, 5))))
    lengths = rng.integers(0, 5, batch)
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, lengths.sum()), lengths)
    return ragged if form == "ragged" else ragged.to_sparse()


def _random_features(rng, tables, count):
    features, inputs, weights = [], {}, {}
    for f in range(count):
        form = str(rng.choice(["single", "dense", "ragged", "sparse"]))
        combiners = [*ALL_COMBINERS, *([] if form == "sparse" else [None])]
        combiner = combiners[rng.integers(len(combiners))]
        feature = tse.FeatureConfig(
            f"f{f}",
            tables[rng.integers(len(tables))].name,
            combiner,
            max_length=None if rng.random() < 0.5 else int(rng.integers(1, 4)),
            mask_zero=rng.random() < 0.3,
        )
        features.append(feature)
        inputs[feature.name] = _random_keys(rng, form)
        if combiner in reference.COMBINERS and rng.random() < 0.5:
            keys = inputs[feature.name]
            drawn = rng.uniform(0.5, 2.0, _flat(keys).shape).astype(np.float32)
            weights[feature.name] = _with_flat(keys, tf.constant(drawn))
    return features, inputs, weights


def _random_case(seed):
    rng = np.random.default_rng(seed)
    tables = [
        _table(
            f"t{t}",
            int(rng.integers(2, 4)),
            input_dim=V if rng.random() < 0.4 else None,
            padding_idx=None if rng.random() < 0.6 else int(rng.integers(0, V)),
            seed=t,
        )
        for t in range(rng.integers(1, 5))
    ]
    return tables, *_random_features(rng, tables, rng.integers(1, 9))


def _weigh(outputs):
    """A loss that weighs each element of the outputs differently."""
    total = 0.0
    for name in sorted(outputs):
        elements = tf.reshape(_flat(outputs[name]), [-1])
        total += tf.reduce_sum(elements**2 * tf.sin(1.0 + tf.range(tf.size(elements), dtype=tf.float32)))
    return total


def _as_dense(values):
    return values.to_tensor() if isinstance(values, tf.RaggedTensor) else values


@pytest.mark.parametrize(
    "seed, mode", [*((seed, "eager") for seed in range(25)), *((seed, "graph") for seed in range(25, 33))]
)
def test_outputs_gradients_and_steps_are_those_of_separate_layers(seed, mode):
    tables, features, inputs, weights = _random_case(seed)
    layer, twin = _collection(tables, features), SeparateLayers(tables, features)
    variables = [layer.tables[table.name] for table in tables]
    used = [t for t, table in enumerate(tables) if any(feature.table == table.name for feature in features)]
    flat_weights = {name: _flat(value) for name, value in weights.items()}

    def evaluate(call, call_variables, flat_weights):
        with tf.GradientTape() as tape:
            tape.watch(flat_weights)
            call_weights = {name: _with_flat(inputs[name], values) for name, values in flat_weights.items()}
            outputs = call(inputs, weights=call_weights, training=True)
            loss = _weigh(outputs)
        gradients, of_weights = tape.gradient(loss, [[call_variables[t] for t in used], flat_weights])
        return outputs, gradients, {name: tf.convert_to_tensor(g) for name, g in of_weights.items()}

    def ours(flat_weights):
        return evaluate(layer, variables, flat_weights)

    ours = ours if mode == "eager" else tf.function(ours)
    optimizers = [tse.optimizers.RowWiseAdagrad(0.1) for _ in range(2)]
    used_variables = [variables[t] for t in used], [twin.variables[t] for t in used]
    for optimizer, call_variables in zip(optimizers, used_variables, strict=True):
        optimizer.build(call_variables)
    for _ in range(2):
        got, got_gradients, got_weights = ours(flat_weights)
        want, want_gradients, want_weights = evaluate(twin, twin.variables, flat_weights)
        assert list(got) == [feature.name for feature in features]
        for feature in features:
            g, w = got[feature.name], want[feature.name]
            assert type(g) is type(w) or not isinstance(g, tf.RaggedTensor)
            np.testing.assert_allclose(_as_dense(g), _as_dense(w), rtol=1e-4, atol=1e-5, err_msg=repr(feature))
        for g, w in zip(got_gradients, want_gradients, strict=True):
            np.testing.assert_allclose(_dense_gradient(g), _dense_gradient(w), rtol=1e-4, atol=1e-5)
        for name, w in want_weights.items():
            np.testing.assert_allclose(got_weights[name], w, rtol=1e-4, atol=1e-5)
        for optimizer, gradients, call_variables in zip(
            optimizers, (got_gradients, want_gradients), used_variables, strict=True
        ):
            optimizer.apply_gradients(zip(gradients, call_variables, strict=True))
        for ours_table, twin_table in zip(*used_variables, strict=True):
            np.testing.assert_allclose(_rows(ours_table), _rows(twin_table), rtol=1e-3, atol=1e-4)
            assert int(ours_table.size()) == int(twin_table.size())


@pytest.mark.parametrize("optimizer", ["SGD", "RowWiseAdagrad", "RowWiseAdam"])
def test_upserted_rows_train_as_those_of_separate_layers(optimizer, rng):
    tables = [_table("a", 4), _table("b", 4, V), _table("c", 2)]
    features = [
        tse.FeatureConfig("a1", "a", "sum"),
        tse.FeatureConfig("a2", "a"),
        tse.FeatureConfig("b1", "b", None),
        tse.FeatureConfig("c1", "c", "sqrtn"),
    ]
    layer = _collection(tables, features)
    separate = {f.name: tse.Embedding(None, {"a": 4, "b": 4, "c": 2}[f.table], combiner=f.combiner) for f in features}
    for name, table in layer.tables.items():
        rows = rng.normal(size=(V, table.dim)).astype(np.float32)
        table.upsert(np.arange(V), rows)
        for feature in features:
            if feature.table == name:
                separate[feature.name].build()
                separate[feature.name].embeddings.upsert(np.arange(V), rows)
    optimizers = {name: getattr(tse.optimizers, optimizer)(0.1) for name in [*separate, "all"]}
    # Those of table a share no key, so that each may have a table of its own.
    inputs = {
        "a1": np.array([[1, 2], [3, 1]]),
        "a2": np.array([[4, 5, 5], [6, 7, 4]]),
        "b1": np.array([1, 2]),
        "c1": np.array([[9], [8]]),
    }
    for _ in range(3):
        outputs = _step(layer, inputs, optimizers["all"])
        for name, one in separate.items():
            with tf.GradientTape() as tape:
                want = one(inputs[name], training=True)
                loss = tf.reduce_sum(want**2)
            gradient = tape.gradient(loss, one.embeddings)
            optimizers[name].apply_gradients([(gradient, one.embeddings)])
            np.testing.assert_allclose(outputs[name], want, rtol=1e-5, atol=1e-6)
    for feature in features:
        keys = np.unique(inputs[feature.name])
        got, want = _rows(layer.tables[feature.table], keys), _rows(separate[feature.name].embeddings, keys)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


# Tables shared by features.


@pytest.mark.parametrize("mode", MODES)
def test_a_shared_table_gets_the_gradient_of_all_its_features_once_for_each_key(mode):
    layer = _collection(
        [_table("item")],
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
    layer = _collection([_table("t")], [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t", None)])
    before = _rows(layer.tables["t"])
    twin = reference.TableTwin(before, "row_wise_adagrad")
    optimizer = tse.optimizers.RowWiseAdagrad(0.1)
    for a, b in (([1, 2], [2, 3]), ([2, 2], [2, 9])):
        rows = twin.rows.copy()
        _step(layer, {"a": np.array(a), "b": np.array(b)}, optimizer)
        twin.apply([*a, *b], 2 * rows[[*a, *b]], learning_rate=0.1)
    np.testing.assert_allclose(_rows(layer.tables["t"]), twin.rows, rtol=1e-4, atol=1e-6)
    assert np.abs(twin.rows - before).max() > 0.05


@pytest.mark.parametrize("num_tables", [1, 2])
def test_a_tape_around_a_traced_call_gives_the_gradient_of_each_table(num_tables):
    """The forward pass in a tf.function, the gradient asked for outside of it."""
    layer = _collection(
        [_table(f"t{t}") for t in range(num_tables)],
        [tse.FeatureConfig("a", "t0"), tse.FeatureConfig("b", f"t{num_tables - 1}", "sum")],
    )
    call = tf.function(layer)
    with tf.GradientTape() as tape:
        outputs = call({"a": np.array([1, 2]), "b": np.array([[2, 3], [3, 3]])}, training=True)
        loss = tf.reduce_sum(outputs["a"]) + 10 * tf.reduce_sum(outputs["b"])
    gradients = [_dense_gradient(g)[:, 0] for g in tape.gradient(loss, list(layer.tables.values()))]
    want_a, want_b = np.zeros(V), np.zeros(V)
    want_a[[1, 2]], want_b[[2, 3]] = 1, [10, 30]
    np.testing.assert_array_equal(gradients, [want_a + want_b] if num_tables == 1 else [want_a, want_b])


def test_equal_keys_of_different_tables_are_different_rows():
    layer = _collection(
        [_table("a", seed=1), _table("b", seed=2)], [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")]
    )
    outputs = _step(layer, {"a": np.array([7, 7]), "b": np.array([7, 8])}, tse.optimizers.SGD(0.1))
    assert np.abs(outputs["a"][0] - outputs["b"][0]).max() > 0
    assert {name: int(table.size()) for name, table in layer.tables.items()} == {"a": 1, "b": 2}


def test_a_table_without_features_stays_as_it_is():
    layer = _collection([_table("a"), _table("unused", 2, V)], [tse.FeatureConfig("a", "a")])
    before = layer.tables["unused"].numpy()
    outputs = layer({"a": np.array([1, 2])}, training=True)
    assert list(outputs) == ["a"] and list(layer.tables) == ["a", "unused"]
    assert layer.tables["unused"].numpy() == before


@pytest.mark.parametrize("widths", [(3, 3, 3), (2, 3, 2), (4, 3, 2)], ids=str)
def test_tables_of_any_widths(widths, rng):
    tables = [_table(f"t{t}", width, seed=t) for t, width in enumerate(widths)]
    # In an order that does not follow the widths.
    features = [tse.FeatureConfig(f"f{f}", f"t{t}") for f, t in enumerate([2, 0, 1, 0])]
    layer = _collection(tables, features)
    inputs = {f"f{f}": rng.integers(0, V, (BATCH, 2)) for f in range(4)}
    outputs = layer(inputs)
    assert list(outputs) == ["f0", "f1", "f2", "f3"]
    for feature in features:
        rows = layer.tables[feature.table].lookup(inputs[feature.name])
        np.testing.assert_allclose(outputs[feature.name], tf.reduce_mean(rows, 1), rtol=1e-5, atol=1e-6)


# Forms of output.


@pytest.mark.parametrize("mode", MODES)
def test_concat_puts_the_features_side_by_side_in_their_order(mode, rng):
    tables = [_table("wide", 4), _table("narrow", 2, V)]
    features = [
        tse.FeatureConfig("b", "narrow", None),
        tse.FeatureConfig("a", "wide", "max"),
        tse.FeatureConfig("d", "narrow", "sum", max_length=2),
        tse.FeatureConfig("c", "wide"),
    ]
    inputs = {
        "a": _random_keys(rng, "sparse"),
        "b": _random_keys(rng, "single"),
        "c": _random_keys(rng, "ragged"),
        "d": _random_keys(rng, "dense"),
    }
    layer, joint = _collection(tables, features), _collection(tables, features, concat=True)
    output = (joint if mode == "eager" else tf.function(joint))(inputs)
    assert output.shape == (BATCH, 2 + 4 + 2 + 4)
    np.testing.assert_array_equal(output, tf.concat([layer(inputs)[name] for name in "badc"], -1))


@pytest.mark.parametrize("keys", [np.ones((2, 3), int), tf.ragged.constant([[1], [2, 3]])], ids=["dense", "ragged"])
def test_concat_of_a_feature_with_a_row_for_each_key_is_a_value_error(keys):
    layer = _collection([_table("t")], [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t", None)], concat=True)
    with pytest.raises(ValueError, match="(?s)concat=True needs.*'b'.*combiner"):
        layer({"a": np.ones(2, int), "b": keys})


PADDED = {
    # keys, max_length, the keys of the rows of the output; -1 is zeros
    "dense": (np.array([[1, 2, 3], [4, 5, 6]]), 2, [[1, 2], [4, 5]]),
    "dense_shorter_than_that": (np.array([[1, 2], [4, 5]]), 4, [[1, 2, -1, -1], [4, 5, -1, -1]]),
    "ragged": (tf.ragged.constant([[1, 2, 3], [], [4]]), 2, [[1, 2], [-1, -1], [4, -1]]),
    "ragged_shorter_than_that": (tf.ragged.constant([[1], [], [4, 5]]), 3, [[1, -1, -1], [-1, -1, -1], [4, 5, -1]]),
    "ragged_without_keys": (tf.RaggedTensor.from_row_lengths(np.zeros(0, int), [0, 0]), 2, [[-1, -1], [-1, -1]]),
    "dense_without_keys": (np.zeros((2, 0), int), 2, [[-1, -1], [-1, -1]]),
    "without_rows": (np.zeros((0, 3), int), 2, np.zeros((0, 2), int)),
    "ragged_without_rows": (tf.RaggedTensor.from_row_lengths(np.zeros(0, int), np.zeros(0, int)), 2, np.zeros((0, 2))),
}


@pytest.mark.parametrize("case", PADDED)
@pytest.mark.parametrize("mode", MODES)
def test_max_length_without_a_combiner_pads_with_zeros(case, mode):
    keys, max_length, want = PADDED[case]
    layer = _collection([_table("t")], [tse.FeatureConfig("f", "t", None, max_length=max_length)])
    call = layer if mode == "eager" else tf.function(layer)
    output = call({"f": keys}, training=True)["f"]
    assert isinstance(output, tf.Tensor)
    want = np.array(want, np.int64)
    rows = np.where(want[..., None] < 0, 0.0, layer.tables["t"].lookup(want))
    np.testing.assert_array_equal(output, rows)
    # What is cut off is not looked up.
    assert int(layer.tables["t"].size()) == len(np.unique(want[want >= 0]))


@pytest.mark.parametrize("form", ["dense", "ragged", "sparse"])
@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_only_the_first_max_length_keys_of_a_bag_count(form, pooled):
    bags = tf.ragged.constant([[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]], dtype=tf.int64)
    keys = {"dense": bags.to_tensor(), "ragged": bags, "sparse": bags.to_sparse()}[form]
    layer = _collection(
        [_table("t")], [tse.FeatureConfig("f", "t", pooled, max_length=2), tse.FeatureConfig("g", "t", pooled)]
    )
    outputs = layer({"f": keys, "g": keys.to_tensor()[:, :2] if form == "ragged" else bags.to_tensor()[:, :2]})
    np.testing.assert_array_equal(outputs["f"], outputs["g"])


def test_the_greatest_max_length_is_none():
    keys = {"f": np.arange(6).reshape(2, 3)}
    outputs = [
        _collection([_table("t")], [tse.FeatureConfig("f", "t", max_length=length)])(keys)["f"]
        for length in (None, 2**31, 2**63 - 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_without_a_combiner_every_key_has_a_row():
    layer = _collection([_table("t")], [tse.FeatureConfig("f", "t", None)])
    table = layer.tables["t"]
    np.testing.assert_array_equal(layer({"f": np.array([1, 2])})["f"], table.lookup([1, 2]))
    np.testing.assert_array_equal(layer({"f": np.array([[1, 2]])})["f"], table.lookup([[1, 2]]))
    ragged = layer({"f": tf.ragged.constant([[1, 2], [], [3]])})["f"]
    assert isinstance(ragged, tf.RaggedTensor)
    np.testing.assert_array_equal(ragged.row_splits, [0, 2, 2, 3])
    np.testing.assert_array_equal(ragged.flat_values, table.lookup([1, 2, 3]))


@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_keys_of_rank_1_are_bags_of_one(pooled):
    layer = _collection(
        [_table("t", padding_idx=5)],
        [tse.FeatureConfig("f", "t", pooled), tse.FeatureConfig("masked", "t", pooled, mask_zero=True)],
    )
    keys = np.array([0, 5, 3])
    outputs = layer({"f": keys, "masked": keys})
    rows = layer.tables["t"].lookup(keys).numpy()
    rows[1] = 0
    np.testing.assert_array_equal(outputs["f"], rows)
    rows[0] = 0
    np.testing.assert_array_equal(outputs["masked"], rows)


def test_a_combiner_may_be_a_numpy_string():
    """It is equal to Python's, and so are its features pooled together with those of Python's."""
    features = [tse.FeatureConfig(f"f{f}", "t", kind("sum")) for f, kind in enumerate([str, np.str_, str, np.str_])]
    features += [tse.FeatureConfig("max", "t", "max"), tse.FeatureConfig("each", "t", None)]
    inputs = {feature.name: np.array([[f, f + 1]]) for f, feature in enumerate(features)}
    assert features[0].combiner == features[1].combiner
    layer = _collection([_table("t")], features)
    rows = _rows(layer.tables["t"])
    outputs = layer(inputs)
    for f in range(4):
        np.testing.assert_allclose(outputs[f"f{f}"], [rows[f] + rows[f + 1]], rtol=1e-5, atol=1e-6)


def test_keys_of_int32_int64_and_strings_in_one_call():
    features = [tse.FeatureConfig(name, "t", "sum") for name in ("int32", "int64", "string")]
    layer = _collection([_table("t")], features)
    words = tf.constant([["a", "b"], ["b", "c"]])
    inputs = {"int32": np.array([[1, 2], [2, 3]], np.int32), "int64": np.array([[1, 2**40], [2, 3]]), "string": words}
    outputs = layer(inputs, training=True)
    table = layer.tables["t"]
    assert int(table.size()) == 4 + 3
    for name, keys in inputs.items():
        np.testing.assert_allclose(outputs[name], tf.reduce_sum(table.lookup(keys), 1), rtol=1e-5, atol=1e-6)


def test_features_of_unequal_batches_and_empty_ones():
    layer = _collection([_table("t")], [tse.FeatureConfig(name, "t") for name in "abc"])
    inputs = {"a": np.zeros(0, int), "b": np.array([[1, 2]]), "c": tf.ragged.constant([[1], [], [2]])}
    outputs = layer(inputs, training=True)
    assert [outputs[name].shape[0] for name in "abc"] == [0, 1, 3]
    empty = {"a": np.zeros(0, int), "b": np.zeros((0, 4), int), "c": inputs["c"][:0]}
    outputs = layer(empty, training=True)
    assert [outputs[name].shape for name in "abc"] == [(0, 3)] * 3
    _step(layer, empty, tse.optimizers.RowWiseAdam(0.1))


# Skipped keys, weights, labels.


@pytest.mark.parametrize("mode", MODES)
def test_the_padding_key_is_zero_and_never_learns(mode):
    layer = _collection(
        [_table("t", input_dim=V, padding_idx=-1)],
        [tse.FeatureConfig("each", "t", None), tse.FeatureConfig("bags", "t", "sum")],
    )
    padding = V - 1
    assert layer.table_configs[0].padding_idx == padding
    inputs = {"each": np.array([[1, padding]]), "bags": np.array([[padding, 2, padding]])}
    optimizer = tse.optimizers.SGD(0.5)
    optimizer.build(layer.trainable_variables)

    def step():
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs["each"]) + tf.reduce_sum(outputs["bags"])
        slices = tape.gradient(loss, layer.tables["t"])
        optimizer.apply_gradients([(slices, layer.tables["t"])])
        return outputs, slices

    before = _rows(layer.tables["t"])
    outputs, slices = (step if mode == "eager" else tf.function(step))()
    np.testing.assert_array_equal(outputs["each"][0, 1], np.zeros(3))
    np.testing.assert_array_equal(outputs["bags"], before[[2]])
    want = np.zeros((V, 3))
    want[[1, 2]] = 1
    np.testing.assert_array_equal(_dense_gradient(slices), want)
    np.testing.assert_allclose(_rows(layer.tables["t"]), before - 0.5 * want, rtol=1e-6)


def test_mask_zero_is_of_a_feature_and_not_of_its_table():
    layer = _collection(
        [_table("t")],
        [tse.FeatureConfig("masked", "t", "sum", mask_zero=True), tse.FeatureConfig("other", "t", "sum")],
    )
    keys = np.array([[0, 3], [0, 0]])
    outputs = layer({"masked": keys, "other": keys})
    rows = _rows(layer.tables["t"])
    np.testing.assert_allclose(outputs["masked"], [rows[3], np.zeros(3)], rtol=1e-6)
    np.testing.assert_allclose(outputs["other"], [rows[0] + rows[3], 2 * rows[0]], rtol=1e-6)


def test_weights_of_some_features():
    layer = _collection([_table("t")], [tse.FeatureConfig(name, "t", "sum") for name in "abc"])
    keys = np.array([[1, 2], [3, 4]])
    weights = {"b": tf.constant([[0.5, 2.0], [0.0, -1.0]])}
    with tf.GradientTape() as tape:
        tape.watch(weights["b"])
        outputs = layer({"a": keys, "b": keys, "c": keys}, weights=weights)
        loss = tf.reduce_sum(outputs["b"])
    rows = _rows(layer.tables["t"])
    for name in "ac":
        np.testing.assert_allclose(outputs[name], rows[keys].sum(1), rtol=1e-6)
    np.testing.assert_allclose(outputs["b"], [0.5 * rows[1] + 2 * rows[2], -rows[4]], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tape.gradient(loss, weights["b"]), rows[keys].sum(-1), rtol=1e-5, atol=1e-7)


def test_the_weights_of_keys_of_rank_1():
    layer = _collection([_table("t")], [tse.FeatureConfig(name, "t", name) for name in reference.COMBINERS])
    keys, weights = np.array([1, 2]), np.array([2.0, 0.5], np.float32)
    outputs = layer(dict.fromkeys(reference.COMBINERS, keys), weights=dict.fromkeys(reference.COMBINERS, weights))
    rows = _rows(layer.tables["t"], keys)
    np.testing.assert_allclose(outputs["sum"], rows * weights[:, None], rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], rows, rtol=1e-6)
    np.testing.assert_allclose(outputs["sqrtn"], rows, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_labels_are_added_to_the_counts_of_all_keys_of_tables_that_count_them(mode):
    layer = _collection(
        [
            _table("clicked", counts="clicked"),
            _table("seen", counts="seen"),
            _table("plain"),
            _table("narrow", 2, V, counts="clicked"),
        ],
        [
            tse.FeatureConfig("single", "clicked"),
            tse.FeatureConfig("ragged", "clicked", "sum", max_length=2),
            tse.FeatureConfig("each", "clicked", None, max_length=1),
            tse.FeatureConfig("masked", "narrow", "max", mask_zero=True),
            tse.FeatureConfig("sparse", "seen"),
            tse.FeatureConfig("plain", "plain"),
        ],
    )
    ragged = tf.ragged.constant([[1, 2, 3], [], [2]], dtype=tf.int64)
    inputs = {
        "single": np.array([1, 9, 1]),
        "ragged": ragged,
        "each": np.array([[7, 1], [8, 1], [7, 1]]),
        "masked": np.array([[0, 4], [4, 0], [5, 5]]),
        "sparse": ragged.to_sparse(),
        "plain": np.array([1, 2, 3]),
    }
    labels = np.array([1.0, 0.5, 0.0])

    def call():
        return layer(inputs, labels=labels, training=True)

    (call if mode == "eager" else tf.function(call))()
    layer(inputs, labels=labels)
    counts = {name: table.key_counts(np.arange(10)).numpy() for name, table in layer.tables.items() if table.counts}
    want = np.zeros((10, 2))
    want[1] += [2, 1]  # single: of rows 0 and 2
    want[9] += [1, 0.5]
    want[1] += [1, 1]  # ragged: key 3 is beyond max_length
    want[2] += [2, 1]
    want[7] += [2, 1]  # each: the second column is beyond max_length
    want[8] += [1, 0.5]
    np.testing.assert_array_equal(counts["clicked"], want)
    np.testing.assert_array_equal(counts["seen"][:, 0], [0, 1, 2, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(counts["narrow"][4:6], [[2, 1.5], [2, 0]])
    assert counts["narrow"].sum() == 5.5 and "plain" not in counts


def test_counts_of_shared_tables_decay_at_every_step():
    layer = _collection(
        [_table("t", counts="seen", count_decay=0.5), _table("u", counts="seen", count_decay=0.25)],
        [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t"), tse.FeatureConfig("c", "u")],
    )
    optimizer = tse.optimizers.SGD(0.1)
    for _ in range(3):
        _step(layer, {"a": np.array([1]), "b": np.array([1]), "c": np.array([1])}, optimizer)
    np.testing.assert_array_equal(layer.tables["t"].key_counts([1]), [[2 * (0.5 + 0.25 + 0.125)]])
    np.testing.assert_array_equal(layer.tables["u"].key_counts([1]), [[0.25 + 0.0625 + 0.015625]])


# The arguments of tables.


def test_a_regularizer_is_applied_to_each_key_once_over_all_features():
    class Sum(keras.regularizers.Regularizer):
        def __init__(self, scale):
            self.scale, self.shapes = scale, []

        def __call__(self, rows):
            self.shapes.append(tuple(rows.shape))
            return self.scale * tf.reduce_sum(rows**2)

    regularizers = [Sum(1.0), Sum(10.0)]
    layer = _collection(
        [
            _table("a", embeddings_regularizer=regularizers[0], seed=1),
            _table("plain", seed=2),
            _table("b", embeddings_regularizer=regularizers[1], seed=3),
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
    rows = {name: _rows(layer.tables[name], keys) for name, keys in {"a": [1, 2, 3], "b": [5]}.items()}
    assert [r.shapes for r in regularizers] == [[(3, 3)], [(1, 3)]]
    np.testing.assert_allclose(sorted(losses), sorted([(rows["a"] ** 2).sum(), 10 * (rows["b"] ** 2).sum()]), rtol=1e-5)
    with tf.GradientTape() as tape:
        layer(inputs, training=True)
        loss = tf.add_n(layer.losses)
    gradients = tape.gradient(loss, [layer.tables["a"], layer.tables["b"]])
    np.testing.assert_allclose(_dense_gradient(gradients[0])[1:4], 2 * rows["a"], rtol=1e-5)
    np.testing.assert_allclose(_dense_gradient(gradients[1])[5], 20 * rows["b"][0], rtol=1e-5)
    layer.trainable = False
    layer(inputs)
    assert layer.losses == []


@pytest.mark.parametrize("mode", MODES)
def test_scale_grad_by_freq_divides_by_how_often_a_key_comes_over_all_features(mode):
    tables = [_table("scaled", scale_grad_by_freq=True), _table("plain")]
    features = [
        tse.FeatureConfig("a", "scaled", None),
        tse.FeatureConfig("b", "scaled", "sum"),
        tse.FeatureConfig("c", "plain", "sum"),
    ]
    layer = _collection(tables, features)
    inputs = {"a": np.array([1, 2]), "b": np.array([[2, 2, 3], [3, 4, 4]]), "c": np.array([[1, 1], [2, 1]])}

    def gradients():
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs["a"]) + 4 * tf.reduce_sum(outputs["b"]) + tf.reduce_sum(outputs["c"])
        return tape.gradient(loss, [layer.tables["scaled"], layer.tables["plain"]])

    scaled, plain = (gradients if mode == "eager" else tf.function(gradients))()
    want = {1: 1.0, 2: (1 + 2 * 4) / 3, 3: 4.0, 4: 4.0}
    np.testing.assert_allclose(_dense_gradient(scaled)[list(want), 0], list(want.values()), rtol=1e-6)
    np.testing.assert_allclose(_dense_gradient(plain)[[1, 2], 0], [3, 1])


@pytest.mark.parametrize("training", [False, True])
def test_max_norm_bounds_the_rows_of_its_table_alone(training):
    layer = _collection(
        [_table("bounded", max_norm=0.1, seed=1), _table("free", seed=1)],
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
    layer = _collection(
        [
            _table("a", storage="chained", seed=5, max_rows=3),
            _table("b", 3, V, max_norm=2.0, norm_type="inf", padding_idx=2, embeddings_constraint=constraint),
        ],
        [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")],
    )
    a, b = layer.tables["a"], layer.tables["b"]
    assert (a.storage, a.seed, a.max_rows, a.input_dim, a.dim) == ("chained", 5, 3, None, 3)
    assert (b.storage, b.input_dim, b.max_norm, b.norm_type, b.padding_key) == ("index", V, 2.0, float("inf"), 2)
    _step(layer, {"a": np.array([1]), "b": np.array([1])}, tse.optimizers.SGD(0.6))
    assert _rows(b, [1]).min() >= 0
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|3"):
        layer({"a": np.arange(4), "b": np.array([1])}, training=True)


def test_missing_zeros_reads_unknown_keys_as_zeros_unless_it_trains():
    layer = _collection([_table("t")], [tse.FeatureConfig("f", "t")], missing="zeros")
    keys = {"f": np.array([1, 2])}
    np.testing.assert_array_equal(layer(keys)["f"], np.zeros((2, 3)))
    trained = layer(keys, training=True)["f"]
    assert np.abs(trained).min() > 0
    np.testing.assert_array_equal(layer(keys)["f"], trained)


@pytest.mark.parametrize("training, inserted", [(True, 2), (False, 0), (None, 0)])
def test_only_training_inserts(training, inserted):
    layer = _collection([_table("a"), _table("b", 2)], [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")])
    layer({"a": np.array([1, 2, 1]), "b": np.array([3, 4, 3])}, training=training)
    assert [int(table.size()) for table in layer.tables.values()] == [inserted, inserted]


def test_a_frozen_collection_inserts_and_counts_nothing():
    layer = _collection([_table("a", counts="seen")], [tse.FeatureConfig("a", "a")], trainable=False)
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
    layer = _collection([_table("t")], features, dtype=policy)
    outputs = layer({"a": np.array([[1, 2]]), "b": np.array([[1, 2]])})
    assert {output.dtype for output in outputs.values()} == {tf.as_dtype(layer.compute_dtype)}
    assert layer.tables["t"].lookup([1]).dtype == tf.float32


# As a Keras layer.


def _some_features():
    return [
        tse.FeatureConfig("user", "user"),
        tse.FeatureConfig("item", "item", None),
        tse.FeatureConfig("clicked", "item", "mean", max_length=4, mask_zero=True),
        tse.FeatureConfig("tags", "tag", "sqrtn"),
    ]


def _some_tables(**kwargs):
    return [_table("user", 4, **kwargs), _table("item", 4, **kwargs), _table("tag", 2, V, **kwargs)]


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
            _table(
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
    layer = _collection(tables, [tse.FeatureConfig("a", "a"), tse.FeatureConfig("b", "b")])
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
        tables.append([_rows(table) for table in layer.tables.values()])
    for first, second, third in zip(*tables, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(first, third, rtol=1e-4, atol=1e-6)


def test_a_model_with_weights_and_labels_as_inputs():
    layer = tse.EmbeddingCollection([_table("t", counts="clicked")], [tse.FeatureConfig("f", "t", "sum")], concat=True)
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
    before = [_rows(table) for table in layer.tables.values()]
    model.fit(x, y, verbose=0)
    for table, rows in zip(layer.tables.values(), before, strict=True):
        np.testing.assert_array_equal(_rows(table), rows)
    layer.trainable = True
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(x, y, verbose=0)
    for table, rows in zip(layer.tables.values(), before, strict=True):
        assert np.abs(_rows(table) - rows).max() > 0


def test_a_keras_optimizer_is_a_type_error_that_names_tse_optimizers(rng):
    model = _functional(tse.EmbeddingCollection(_some_tables(), _some_features(), concat=True))
    with pytest.raises(TypeError, match=r"tse\.optimizers"):
        model.compile("adam", "mse")
        model.fit(_some_data(rng), np.ones((16, 1)), verbose=0)


def test_weights_are_a_snapshot_of_each_table(rng):
    layer, other = (_collection(_some_tables(), _some_features()) for _ in range(2))
    inputs = _some_data(rng)
    _step(layer, inputs, tse.optimizers.SGD(0.3))
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
    layer = _collection(_some_tables(), _some_features(), concat=concat)
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


# What is refused.

T, F = _table("t"), tse.FeatureConfig("f", "t")
BAD = {
    "no_tables": ("tables", ([], [F]), {}),
    "no_features": ("features", ([T], []), {}),
    "no_list": ("features", ([T], F), {}),
    "a_dict_for_a_table": ("(?s)tables.*TableConfig.*dict", ([{"name": "t"}], [F]), {}),
    "a_table_for_a_feature": ("(?s)features.*FeatureConfig.*TableConfig", ([T], [T]), {}),
    "equal_names_of_tables": ("(?s)tables.*'t' twice", ([T, _table("t", 2)], [F]), {}),
    "equal_names_of_features": ("(?s)features.*'f' twice", ([T], [F, F]), {}),
    "an_unknown_table": ("(?s)table of feature 'g'.*t.*'x'", ([T], [F, tse.FeatureConfig("g", "x")]), {}),
    "missing": ("(?s)missing.*initial.*zeros", ([T], [F]), {"missing": "x"}),
    "an_unknown_argument": ("no_such", ([T], [F]), {"no_such": 1}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_an_error_that_names_it(case):
    match, arguments, keywords = BAD[case]
    with pytest.raises((ValueError, TypeError), match=match):
        tse.EmbeddingCollection(*arguments, **keywords)


BAD_CONFIGS = {
    "feature_combiner": ("(?s)combiner.*sum.*mean.*sqrtn.*max.*median", tse.FeatureConfig, ("f", "t", "median"), {}),
    "feature_max_length": ("max_length", tse.FeatureConfig, ("f", "t"), {"max_length": 0}),
    "feature_max_length_float": ("max_length", tse.FeatureConfig, ("f", "t"), {"max_length": 2.5}),
    "table_output_dim": ("output_dim", tse.TableConfig, ("t", None, 0), {}),
    "table_input_dim": ("input_dim", tse.TableConfig, ("t", -1, 2), {}),
    "table_padding_idx": ("padding_idx", tse.TableConfig, ("t", 5, 2), {"padding_idx": 5}),
    "table_max_norm": ("max_norm", tse.TableConfig, ("t", 5, 2), {"max_norm": 0.0}),
    "table_counts": ("(?s)counts.*seen.*clicked", tse.TableConfig, ("t", 5, 2), {"counts": "x"}),
    "table_count_decay": ("count_decay", tse.TableConfig, ("t", 5, 2), {"count_decay": 1.5}),
    "table_storage": ("storage", tse.TableConfig, ("t", 5, 2), {"storage": "btree"}),
    "table_index_without_input_dim": ("input_dim", tse.TableConfig, ("t", None, 2), {"storage": "index"}),
    "table_max_rows": ("max_rows", tse.TableConfig, ("t", None, 2), {"max_rows": 0}),
    "table_unknown": ("no_such", tse.TableConfig, ("t", None, 2), {"no_such": 1}),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_argument_of_a_config_is_an_error_that_names_it(case):
    match, kind, arguments, keywords = BAD_CONFIGS[case]
    with pytest.raises((ValueError, TypeError), match=match):
        kind(*arguments, **keywords)


def test_inputs_that_are_not_of_the_features_are_errors_that_name_them():
    layer = _collection([_table("t")], [tse.FeatureConfig(name, "t") for name in ("a", "b", "c")])
    with pytest.raises(ValueError, match="keys of every feature, got none of b, c"):
        layer({"a": np.array([1])})
    with pytest.raises(TypeError, match="(?s)dict of feature name.*got"):
        layer(np.array([1]))
    keys = {name: np.array([[1]]) for name in "abc"}
    with pytest.raises(ValueError, match="weights must be of features of the layer, got x"):
        layer(keys, weights={"x": np.ones((1, 1), np.float32)})
    with pytest.raises(TypeError, match="(?s)feature 'b'.*int32, int64 or string, got float32"):
        layer(keys | {"b": tf.constant([[1.0]])})
    outputs = layer(keys | {"other": np.array(["no feature"])})
    assert list(outputs) == ["a", "b", "c"]


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_key_out_of_range_names_feature_position_and_value_and_no_table_changes(mode, width):
    """Whether the tables share their ops or not."""
    layer = _collection(
        [_table("hash", 3), _table("index", width, V)],
        [tse.FeatureConfig("first", "hash"), tse.FeatureConfig("country", "index", "sum")],
    )
    inputs = {"first": np.array([1, 2]), "country": np.array([[1, 2], [3, V]])}
    call = layer if mode == "eager" else tf.function(layer)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"got keys\[1, 1\] = {V} .*'country'"):
        call(inputs, training=True)
    assert int(layer.tables["hash"].size()) == 0


def test_weights_for_a_feature_that_takes_none_are_a_value_error():
    features = [tse.FeatureConfig("max", "t", "max"), tse.FeatureConfig("none", "t", None)]
    layer = _collection([_table("t")], features)
    keys = dict.fromkeys(("max", "none"), np.array([[1, 2]]))
    for name in keys:
        with pytest.raises(ValueError, match="(?s)weights.* need a combiner.*sum.*mean.*sqrtn"):
            layer(keys, weights={name: np.ones((1, 2), np.float32)})


@pytest.mark.parametrize("max_length", [None, 2])
def test_sparse_keys_without_a_combiner_are_a_value_error(max_length):
    layer = _collection([_table("t")], [tse.FeatureConfig("f", "t", None, max_length=max_length)])
    with pytest.raises(ValueError, match="(?s)'f'.*sparse keys need a combiner"):
        layer({"f": tf.sparse.from_dense([[1, 2]])})
    with pytest.raises(ValueError, match="(?s)'f'.*sparse keys need a combiner"):
        layer({"f": keras.Input((None,), dtype="int64", sparse=True)})


@pytest.mark.parametrize("keys", [np.ones((2, 3, 4), int), tf.ragged.constant([[[1], [2]]])], ids=["dense", "ragged"])
def test_max_length_without_a_combiner_needs_keys_of_rank_1_or_2(keys):
    layer = _collection([_table("t")], [tse.FeatureConfig("f", "t", None, max_length=2)])
    with pytest.raises(ValueError, match="'f'"):
        layer({"f": keys})


# How many ops a step takes.

KINDS = {
    "single": tf.TensorSpec([None], tf.int64),
    "dense": tf.TensorSpec([None, 5], tf.int64),
    "ragged": tf.RaggedTensorSpec([None, None], tf.int64),
}


def _nodes(kind, num_features, num_tables):
    """The nodes of the graph of a training pass and its gradient, and those that are ops of this package."""
    layer = _collection(
        [tse.TableConfig(f"t{t}", None, 8) for t in range(num_tables)],
        [tse.FeatureConfig(f"f{f}", f"t{f % num_tables}") for f in range(num_features)],
        concat=True,
    )

    def call(inputs):
        with tf.GradientTape() as tape:
            output = layer(inputs, training=True)
        return output, tape.gradient(output, list(layer.tables.values()))

    graph = tf.function(call).get_concrete_function({f"f{f}": KINDS[kind] for f in range(num_features)}).graph
    operations = graph.get_operations()
    return len(operations), sorted(op.type for op in operations if op.type.startswith("SparseEmb>"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_step_of_26_features_has_hardly_more_nodes_than_one_of_2(kind, shared):
    """The ops of this package are five, however many features there are.

    Each more feature brings its keys, and ragged ones their row_splits. A table of its own brings 6 nodes: its handle
    and its value come in, the value is read, and the three tensors of its gradient go out. One more is allowed. A layer
    for each feature would bring more than 45.
    """
    few, few_ops = _nodes(kind, 2, 1 if shared else 2)
    many, many_ops = _nodes(kind, 26, 1 if shared else 26)
    assert many_ops == few_ops and len(many_ops) == 5
    assert (many - few) / 24 <= (2 if kind == "ragged" else 1) + (0 if shared else 6) + 1
