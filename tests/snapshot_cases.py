"""What the tests of snapshots share: trained layers and the content of their tables."""

import keras
import numpy as np
import reference
import tensorflow as tf

import tf_sparse_emb as tse

D, VOCABULARY = 4, 60
OPTIMIZERS = {
    "sgd": lambda: tse.optimizers.SGD(0.1),
    "row_wise_adagrad": lambda: tse.optimizers.RowWiseAdagrad(0.1, initial_accumulator_value=0.25),
    "row_wise_adam": lambda: tse.optimizers.RowWiseAdam(0.01),
}
INITIAL_STATE = {"sgd": [], "row_wise_adagrad": [0.25], "row_wise_adam": [0.0] * (D + 1)}


def make_layer(storage, **kwargs):
    return tse.Embedding(VOCABULARY if storage == "index" else None, D, storage=storage, **{"seed": 5} | kwargs)


def train_step(layer, optimizer, keys, rng):
    keys = np.asarray(keys)
    labels = rng.integers(0, 2, keys.shape) if layer.counts == "clicked" else None
    coefficients = tf.constant(rng.normal(size=(*keys.shape, D)), tf.float32)
    with tf.GradientTape() as tape:
        output = layer(keys, labels=labels, training=True)
        loss = tf.reduce_sum(coefficients * output + 0.5 * output**2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))


def trained_layer(storage, rule, steps=3, **kwargs):
    """A layer that was trained on the first half of `keys_of`, its optimizer and its source of batches."""
    layer, optimizer, rng = make_layer(storage, **kwargs), OPTIMIZERS[rule](), np.random.default_rng(1)
    for _ in range(steps):
        train_step(layer, optimizer, rng.choice(keys_of(storage)[: VOCABULARY // 2], 40), rng)
    return layer, optimizer, rng


def keys_of(storage):
    return reference.key_universe(storage, VOCABULARY)


def table_content(table):
    """Everything that a table holds, sorted by key: keys, rows with their state, counts."""
    keys, rows, counts = (np.asarray(part) for part in table.export(with_state=True, with_counts=True))
    order = np.argsort(keys)
    return keys[order], rows[order], counts[order]


def assert_same(got, want):
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def contents_differ(got, want):
    return any(mine.shape != theirs.shape or (mine != theirs).any() for mine, theirs in zip(got, want, strict=True))


def make_model(layer):
    dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=3))
    return keras.Sequential([keras.Input((3,), dtype="int64"), layer, keras.layers.Flatten(), dense])


def changed_snapshot(snapshot, **parts):
    values = {name: getattr(snapshot, name) for name in ("keys", "rows", "state", "counts", "rule")}
    return tse.TableSnapshot(**values | parts)
