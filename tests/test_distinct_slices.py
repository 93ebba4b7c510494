"""Gradients of keys that are known to differ are not summed again, and the result is as if they were."""

import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_lookup import DistinctSlices, whole_lookup
from tf_sparse_emb.optimizers import sparse_optimizer

RNG = np.random.default_rng(5)
KEYS = RNG.integers(-20, 20, (16, 4))
SEED = 3


def one_call():
    layer = tse.Embedding(None, 8, combiner="mean", seed=SEED)
    return [layer], lambda: layer(KEYS, training=True)


def unpooled():
    layer = tse.Embedding(None, 8, seed=SEED, mask_zero=True, padding_idx=3)
    return [layer], lambda: layer(KEYS, training=True)


def two_calls():
    layer = tse.Embedding(None, 8, combiner="sum", seed=SEED)
    return [layer], lambda: layer(KEYS, training=True) + layer(KEYS[:, :2], training=True)


def collection(num_tables=3, calls=1):
    tables = [tse.TableConfig(f"t{t}", None, 8, seed=t) for t in range(num_tables)]
    features = [tse.FeatureConfig(f"f{t}", f"t{t}", combiner="sum") for t in range(num_tables)]
    layer = tse.EmbeddingCollection(tables, features)

    def call():
        outputs = [layer({f"f{t}": KEYS + t for t in range(num_tables)}, training=True) for _ in range(calls)]
        return sum((t + 1.0) * output[f"f{t}"] for output in outputs for t in range(num_tables))

    return [layer], call


def collection_called_twice():
    return collection(calls=2)


def collection_and_layer():
    layers, call = collection()
    layer = tse.Embedding(None, 8, combiner="mean", seed=SEED)
    return [*layers, layer], lambda: call() + layer(KEYS, training=True)


# What is built, its optimizer, and whether the optimizer can spare its look for repeats.
CASES = {
    "one call": (one_call, {}, True),
    "unpooled, padded": (unpooled, {}, True),
    "clipped": (one_call, {"clipnorm": 0.1}, True),
    "two calls": (two_calls, {}, False),
    "collection": (collection, {}, True),
    "collection called twice": (collection_called_twice, {}, False),
    "collection and a layer": (collection_and_layer, {}, False),
    "a table of a collection with its own rate": (collection, {"overrides": {"t1": 0.5}}, False),
}


def train(build, arguments, in_graph, steps=3):
    """Trains from the same start, returns the tables' content."""
    layers, call = build()
    call()
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    optimizer = tse.optimizers.RowWiseAdam(0.1, **arguments)
    optimizer.build(variables)

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(call() - 1.0))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    step = tf.function(step) if in_graph else step
    for _ in range(steps):
        step()
    return [
        dict(zip(*map(np.ndarray.tolist, map(np.asarray, v.export(with_state=True))), strict=True)) for v in variables
    ]


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("case", CASES)
def test_training_is_that_of_summed_gradients_bit_for_bit(case, in_graph, monkeypatch):
    build, arguments, spared = CASES[case]
    found = []

    def spy(slices):
        found.append(whole_lookup(slices) is not None)
        return whole_lookup(slices)

    monkeypatch.setattr(sparse_optimizer, "whole_lookup", spy)
    got = train(build, arguments, in_graph)
    assert all(found) == spared
    monkeypatch.setattr(sparse_optimizer, "whole_lookup", lambda slices: None)
    assert got == train(build, arguments, in_graph)


def test_a_lookup_of_keys_that_may_repeat_gives_plain_slices():
    table = tse.EmbeddingVariable(4, seed=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(table.lookup([5, 5, 7], insert=True))
    gradient = tape.gradient(loss, table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert not isinstance(gradient, DistinctSlices)


def test_slices_that_leave_their_function_are_summed_as_any_others():
    layer = tse.Embedding(None, 4, combiner="sum", seed=1)
    layer(KEYS, training=True)

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(KEYS, training=True))
        return tape.gradient(loss, layer.trainable_variables)

    (slices,) = gradient()
    assert not isinstance(slices, DistinctSlices)
    before = layer.embeddings.lookup(KEYS[0])
    tse.optimizers.SGD(1.0).apply_gradients([(slices, layer.trainable_variables[0])])
    counts = np.array([(key == KEYS).sum() for key in KEYS[0]])
    np.testing.assert_allclose(layer.embeddings.lookup(KEYS[0]), before - counts[:, None], atol=1e-5)
