"""Keras' EarlyStopping restores tables by their snapshots."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from snapshot_cases import D, assert_same, contents_differ, keys_of, make_layer, make_model, table_content

import tf_sparse_emb as tse


class _Recorder(keras.callbacks.Callback):
    def __init__(self, tables):
        super().__init__()
        self.tables, self.contents, self.kernels = tables, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.contents.append([table_content(table) for table in self.tables])
        self.kernels.append(self.model.layers[-1].kernel.numpy())


def _fit_until_it_gets_worse(model, tables, batches, x, compiled):
    """Every epoch has batches of its own, so that rows come in each. Targets are 1; the validation wants 0.4."""
    model.compile(tse.optimizers.RowWiseAdagrad(0.02), "mse", run_eagerly=compiled == "eager")
    recorder = _Recorder(tables)
    stopping = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    # Keras takes a dataset of known length for one epoch's.
    dataset = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    history = model.fit(
        dataset,
        epochs=40,
        steps_per_epoch=2,
        validation_data=(x, np.full((len(next(iter(x.values()))) if isinstance(x, dict) else len(x), 1), 0.4)),
        callbacks=[recorder, stopping],
        shuffle=False,
        verbose=0,
    ).history["val_loss"]
    best = int(np.argmin(history))
    assert best == stopping.best_epoch and 0 < best == len(history) - 3
    return recorder, best


@pytest.mark.parametrize("storage, compiled", [*[(s, "graph") for s in reference.STORAGES], ("slab", "eager")])
def test_early_stopping_restores_the_table_of_the_best_epoch(storage, compiled, rng):
    layer = make_layer(storage, counts="seen")
    model = make_model(layer)
    universe = keys_of(storage)
    first = rng.choice(universe[:12], (80, 2, 4, 2))
    coming = np.repeat(universe[12:], 2)[:, None, None, None] if storage == "index" else _new_keys(80)
    keys = np.concatenate([first, np.broadcast_to(np.resize(coming, (80, 1, 1, 1)), (80, 2, 4, 1))], -1)
    keys = keys.reshape(-1, 4, 3)
    batches = tf.data.Dataset.from_tensor_slices((keys, np.ones((len(keys), 4, 1), np.float32)))
    recorder, best = _fit_until_it_gets_worse(model, [layer.embeddings], batches, keys[0], compiled)
    assert_same(table_content(layer.embeddings), recorder.contents[best][0])
    np.testing.assert_array_equal(model.layers[-1].kernel, recorder.kernels[best])
    last = recorder.contents[-1][0]
    assert contents_differ(last, recorder.contents[best][0])
    if storage != "index":
        assert len(last[0]) > int(layer.embeddings.size())


def _new_keys(count):
    return (2**61 + np.arange(count)).reshape(-1, 1, 1, 1)


def test_early_stopping_restores_the_tables_of_a_collection(rng):
    layer = tse.EmbeddingCollection(
        [tse.TableConfig("item", None, D), tse.TableConfig("city", 10, 2)],
        [tse.FeatureConfig("item", "item"), tse.FeatureConfig("city", "city")],
        concat=True,
    )
    shapes = {"item": (3,), "city": (1,)}
    inputs = {name: keras.Input(shape, dtype="int64", name=name) for name, shape in shapes.items()}
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(layer(inputs)))
    keys = {"item": rng.integers(0, 30, (160, 4, 3)), "city": rng.integers(0, 10, (160, 4, 1))}
    keys["item"][..., 0] = np.arange(160)[:, None] + 2**60
    batches = tf.data.Dataset.from_tensor_slices((keys, np.ones((160, 4, 1), np.float32)))
    x = {name: values[0] for name, values in keys.items()}
    recorder, best = _fit_until_it_gets_worse(model, list(layer.tables.values()), batches, x, "graph")
    for table, want, last in zip(layer.tables.values(), recorder.contents[best], recorder.contents[-1], strict=True):
        assert_same(table_content(table), want)
        assert contents_differ(last, want)
