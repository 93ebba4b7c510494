"""tse.EmbeddingCollection: many features as so many tse.Embedding layers would do."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from collection_cases import (
    ALL_COMBINERS,
    V,
    build_collection,
    dense_gradient,
    flat_values,
    random_keys,
    table_config,
    table_rows,
    train_step,
    with_flat_values,
)

import tf_sparse_emb as tse

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
        rows = layer(tf.gather(tf.reshape(flat_values(keys), [-1]), at), training=training)
        if feature.combiner is None:
            ragged = tf.RaggedTensor.from_row_lengths(rows, lengths)
            if keys.shape.rank == 1:
                return rows
            if feature.max_length is not None:
                return ragged.to_tensor(shape=[None, feature.max_length, None])
            return ragged if isinstance(keys, tf.RaggedTensor) else ragged.to_tensor(shape=[*keys.shape, None])
        at_weights = tf.ones([len(at)]) if weights is None else tf.gather(tf.reshape(flat_values(weights), [-1]), at)
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
        inputs[feature.name] = random_keys(rng, form)
        if combiner in reference.COMBINERS and rng.random() < 0.5:
            keys = inputs[feature.name]
            drawn = rng.uniform(0.5, 2.0, flat_values(keys).shape).astype(np.float32)
            weights[feature.name] = with_flat_values(keys, tf.constant(drawn))
    return features, inputs, weights


def _random_case(seed):
    rng = np.random.default_rng(seed)
    tables = [
        table_config(
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
        elements = tf.reshape(flat_values(outputs[name]), [-1])
        total += tf.reduce_sum(elements**2 * tf.sin(1.0 + tf.range(tf.size(elements), dtype=tf.float32)))
    return total


def _as_dense(values):
    return values.to_tensor() if isinstance(values, tf.RaggedTensor) else values


@pytest.mark.parametrize(
    "seed, mode", [*((seed, "eager") for seed in range(25)), *((seed, "graph") for seed in range(25, 33))]
)
def test_outputs_gradients_and_steps_are_those_of_separate_layers(seed, mode):
    tables, features, inputs, weights = _random_case(seed)
    layer, twin = build_collection(tables, features), SeparateLayers(tables, features)
    variables = [layer.tables[table.name] for table in tables]
    used = [t for t, table in enumerate(tables) if any(feature.table == table.name for feature in features)]
    flat_weights = {name: flat_values(value) for name, value in weights.items()}

    def evaluate(call, call_variables, flat_weights):
        with tf.GradientTape() as tape:
            tape.watch(flat_weights)
            call_weights = {name: with_flat_values(inputs[name], values) for name, values in flat_weights.items()}
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
            np.testing.assert_allclose(dense_gradient(g), dense_gradient(w), rtol=1e-4, atol=1e-5)
        for name, w in want_weights.items():
            np.testing.assert_allclose(got_weights[name], w, rtol=1e-4, atol=1e-5)
        for optimizer, gradients, call_variables in zip(
            optimizers, (got_gradients, want_gradients), used_variables, strict=True
        ):
            optimizer.apply_gradients(zip(gradients, call_variables, strict=True))
        for ours_table, twin_table in zip(*used_variables, strict=True):
            np.testing.assert_allclose(table_rows(ours_table), table_rows(twin_table), rtol=1e-3, atol=1e-4)
            assert int(ours_table.size()) == int(twin_table.size())


@pytest.mark.parametrize("optimizer", ["SGD", "RowWiseAdagrad", "RowWiseAdam"])
def test_upserted_rows_train_as_those_of_separate_layers(optimizer, rng):
    tables = [table_config("a", 4), table_config("b", 4, V), table_config("c", 2)]
    features = [
        tse.FeatureConfig("a1", "a", "sum"),
        tse.FeatureConfig("a2", "a"),
        tse.FeatureConfig("b1", "b", None),
        tse.FeatureConfig("c1", "c", "sqrtn"),
    ]
    layer = build_collection(tables, features)
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
        outputs = train_step(layer, inputs, optimizers["all"])
        for name, one in separate.items():
            with tf.GradientTape() as tape:
                want = one(inputs[name], training=True)
                loss = tf.reduce_sum(want**2)
            gradient = tape.gradient(loss, one.embeddings)
            optimizers[name].apply_gradients([(gradient, one.embeddings)])
            np.testing.assert_allclose(outputs[name], want, rtol=1e-5, atol=1e-6)
    for feature in features:
        keys = np.unique(inputs[feature.name])
        got, want = table_rows(layer.tables[feature.table], keys), table_rows(separate[feature.name].embeddings, keys)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
