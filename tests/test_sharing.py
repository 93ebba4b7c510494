"""One layer in several places, frozen and unfrozen parts, and steps over many tables."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_lookup import lookup_tables


def _sequences(rng):
    return rng.integers(1, 30, (16, 6)), rng.integers(1, 30, (16, 6))


def _encoder_decoder(layer):
    source, target = keras.Input([6], dtype="int64"), keras.Input([6], dtype="int64")
    encoded = keras.layers.GlobalAveragePooling1D()(layer(source))
    decoded = keras.layers.GlobalAveragePooling1D()(layer(target))
    return keras.Model([source, target], keras.layers.Dense(1)(keras.layers.Concatenate()([encoded, decoded])))


def test_an_encoder_and_a_decoder_share_one_table(storage, rng):
    input_dim = 30 if storage == "index" else None
    source, target = _sequences(rng)
    answers = rng.normal(size=(16, 1)).astype(np.float32)
    layer = tse.Embedding(input_dim, 4, storage=storage, seed=1)
    model = _encoder_decoder(layer)
    assert len(model.trainable_variables) == 3

    # The same with one matrix of Keras'.
    theirs = keras.layers.Embedding(30, 4)
    twin = _encoder_decoder(theirs)
    theirs.set_weights([layer.embeddings.lookup(np.arange(30)).numpy()])
    twin.layers[-1].set_weights(model.layers[-1].get_weights())
    model.compile(tse.optimizers.SGD(0.2), "mse")
    twin.compile(keras.optimizers.SGD(0.2), "mse")
    for one in (model, twin):
        one.fit([source, target], answers, batch_size=8, epochs=3, shuffle=False, verbose=0)
    used = np.unique([source, target])
    np.testing.assert_allclose(layer.embeddings.lookup(used), theirs.get_weights()[0][used], rtol=1e-5, atol=1e-6)


def test_freezing_one_of_two_layers_stops_its_table_alone_until_it_is_unfrozen(hash_storage, rng):
    left, right = (tse.Embedding(None, 4, combiner="mean", storage=hash_storage) for _ in range(2))
    inputs = keras.Input([6], dtype="int64")
    model = keras.Model(inputs, keras.layers.Dense(1)(left(inputs) + right(inputs)))
    keys, answers = _sequences(rng)[0], np.ones((16, 1), np.float32)

    def fit():
        model.compile(tse.optimizers.SGD(0.5), "mse")
        before = [layer.embeddings.lookup(keys).numpy() for layer in (left, right)]
        model.fit(keys, answers, epochs=2, verbose=0)
        after = [layer.embeddings.lookup(keys).numpy() for layer in (left, right)]
        return [bool((a != b).any()) for a, b in zip(before, after, strict=True)]

    left.trainable = False
    assert fit() == [False, True]
    assert [int(layer.embeddings.size()) for layer in (left, right)] == [0, np.unique(keys).size]
    left.trainable = True
    assert fit() == [True, True]
    assert int(left.embeddings.size()) == np.unique(keys).size


@pytest.mark.parametrize("clip", [{}, {"clipnorm": 0.05}, {"global_clipnorm": 0.05}, {"clipvalue": 0.01}], ids=str)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_step_over_many_tables_is_the_step_over_each(rule, clip, mode, rng):
    # Tables 0, 1 and 3 have one width and are updated by one op, table 2 another; keys repeat.
    widths = (4, 4, 8, 4)
    cls = {"sgd": "SGD", "row_wise_adagrad": "RowWiseAdagrad", "row_wise_adam": "RowWiseAdam"}[rule]
    together = [tse.EmbeddingVariable(width, seed=t) for t, width in enumerate(widths)]
    alone = [tse.EmbeddingVariable(width, seed=t) for t, width in enumerate(widths)]
    optimizer = getattr(tse.optimizers, cls)(0.1, **clip)
    optimizer.build(together)
    alone_clip = {} if "global_clipnorm" in clip else clip
    optimizers = [getattr(tse.optimizers, cls)(0.1, **alone_clip) for _ in widths]
    for _ in range(3):
        grads = []
        for t, width in enumerate(widths):
            keys = rng.integers(-5, 5, [0, 12, 12, 7][t])
            values = rng.normal(size=(len(keys), width)).astype(np.float32)
            grads.append(tf.IndexedSlices(values, keys))
        step = functools.partial(optimizer.apply, grads, together)
        step() if mode == "eager" else tf.function(step)()
        if "global_clipnorm" in clip:
            summed = [_sum_repeats(grad) for grad in grads]
            norm = np.sqrt(sum((grad.values.numpy().astype(np.float64) ** 2).sum() for grad in summed))
            grads = [tf.IndexedSlices(grad.values * min(1.0, 0.05 / norm), grad.indices) for grad in summed]
        for one, table, grad in zip(optimizers, alone, grads, strict=True):
            one.apply([grad], [table])
    for got, want in zip(together, alone, strict=True):
        got, want = got.numpy(), want.numpy()
        order, want_order = np.argsort(got.keys), np.argsort(want.keys)
        np.testing.assert_array_equal(got.keys[order], want.keys[want_order])
        np.testing.assert_allclose(got.rows[order], want.rows[want_order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.state[order], want.state[want_order], rtol=1e-4, atol=1e-6)


def _sum_repeats(grad):
    keys, inverse = np.unique(grad.indices, return_inverse=True)
    sums = np.zeros((len(keys), grad.values.shape[1]), np.float32)
    np.add.at(sums, inverse, np.asarray(grad.values))
    return tf.IndexedSlices(tf.constant(sums), keys)


def test_a_gradient_that_is_not_finite_names_its_table_among_many():
    tables = [tse.EmbeddingVariable(4, seed=t, name=f"table_{t}") for t in range(3)]
    before = [table.numpy() for table in tables]
    grads = [tf.IndexedSlices(np.ones((2, 4), np.float32), np.array([7, 8])) for _ in tables]
    bad = np.ones((2, 4), np.float32)
    bad[1, 2] = np.nan
    grads[1] = tf.IndexedSlices(bad, np.array([7, 42]))
    optimizer = tse.optimizers.RowWiseAdagrad(0.1)
    optimizer.build(tables)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"grads\[1, 2\] is nan \(key 42 of table 'table_1'\)"):
        optimizer.apply(grads, tables)
    assert [table.numpy().keys.tolist() for table in tables] == [snapshot.keys.tolist() for snapshot in before]


def test_many_tables_change_together_or_not_at_all():
    tables = [tse.EmbeddingVariable(4, max_rows=3, name=f"table_{t}") for t in range(2)]
    optimizer = tse.optimizers.SGD(0.1)
    optimizer.build(tables)
    few, many = ([1, 2], [1, 2, 3, 4])
    grads = [tf.IndexedSlices(tf.ones([len(keys), 4]), tf.constant(keys, tf.int64)) for keys in (few, many)]
    with pytest.raises(tf.errors.ResourceExhaustedError, match="table 'table_1' has 0 of max_rows = 3 rows .* 4 more"):
        optimizer.apply(grads, tables)
    assert [int(table.size()) for table in tables] == [0, 0]
    splits = tf.constant([0, 2, 6], tf.int64)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="table 'table_1' has 0 of max_rows = 3 rows .* 4 more"):
        lookup_tables(tables, tf.constant(few + many, tf.int64), splits, insert=True, missing="initial")
    assert [int(table.size()) for table in tables] == [0, 0]

    newer = tse.optimizers.SGD(0.1)
    newer.build(tables[1:])
    with pytest.raises(tf.errors.FailedPreconditionError, match="'table_1' has since been bound to another optimizer"):
        optimizer.apply(grads[:1] + grads[:1], tables)
    assert [int(table.size()) for table in tables] == [0, 0]


def test_a_step_of_many_tables_has_a_handful_of_ops_a_table():
    def nodes(count):
        tables = [tse.EmbeddingVariable(4, name=f"table_{t}") for t in range(count)]
        optimizer = tse.optimizers.RowWiseAdam(0.1)
        optimizer.build(tables)
        grads = [tf.IndexedSlices(tf.ones([2, 4]), tf.constant([1, 2], tf.int64)) for _ in tables]
        function = tf.function(lambda: optimizer.apply(grads, tables)).get_concrete_function()
        return len(function.graph.get_operations())

    # A table's handle, its keys and its gradient are captured; everything else is shared.
    assert (nodes(40) - nodes(2)) / 38 <= 3
