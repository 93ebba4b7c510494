"""Regularizers and constraints of rows, against keras.layers.Embedding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_cases import (
    STEPS,
    TOLERANCE,
    D,
    V,
    dense_gradient,
    every_row_once,
    layer_pair,
    our_layer,
    run_and_compare,
    step_of,
    table_rows,
)

import tf_sparse_emb as tse


@pytest.fixture(params=["index", "dynamic"])
def table(request):
    return request.param


@pytest.fixture
def start(rng):
    return rng.normal(scale=0.7, size=(V, D)).astype(np.float32)


REGULARIZERS = {
    "l1": lambda: keras.regularizers.L1(0.03),
    "l2": lambda: keras.regularizers.L2(0.05),
    "l1_l2": lambda: keras.regularizers.L1L2(0.02, 0.04),
    "by_name": lambda: "l2",
    "orthogonal": lambda: keras.regularizers.OrthogonalRegularizer(0.01),
}


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_regularizer_is_that_of_keras_where_a_batch_names_every_row_once(table, regularizer, start, rng):
    theirs, ours = layer_pair(table, start, embeddings_regularizer=REGULARIZERS[regularizer]())
    run_and_compare(theirs, ours, every_row_once(rng), rng)
    assert len(ours.losses) == 1 and float(ours.losses[0]) > 0


def test_the_loss_is_the_regularizer_of_the_rows_of_the_call(table, start):
    regularizer = keras.regularizers.L2(0.1)
    _, ours = layer_pair(table, start, embeddings_regularizer=regularizer)
    ours(np.array([[3, 7], [7, 11]]))
    np.testing.assert_allclose([float(loss) for loss in ours.losses], [0.1 * (start[[3, 7, 11]] ** 2).sum()], rtol=1e-6)


@pytest.mark.parametrize("combiner", [None, "sum", "mean", "max"])
def test_a_key_that_comes_twice_is_penalised_once(table, combiner, start):
    """Also in its gradient: 2 * 0.1 * w for every row named, whatever the number of times."""
    _, ours = layer_pair(table, start, embeddings_regularizer=keras.regularizers.L2(0.1))
    pooled = our_layer(table, embeddings_regularizer=keras.regularizers.L2(0.1), combiner=combiner)
    pooled.build()
    pooled.embeddings.upsert(np.arange(V), start)
    want = np.zeros((V, D), np.float32)
    want[[2, 4]] = 0.2 * start[[2, 4]]
    for layer, keys in ((pooled, [[2, 2, 4], [4, 2, 2]]), (ours, [[2, 4]])):
        with tf.GradientTape() as tape:
            layer(np.array(keys))
            (loss,) = layer.losses
        np.testing.assert_allclose(float(loss), 0.1 * (start[[2, 4]] ** 2).sum(), rtol=1e-6)
        np.testing.assert_allclose(dense_gradient(tape.gradient(loss, layer.trainable_variables)[0]), want, **TOLERANCE)


def test_calls_in_a_model_each_add_their_loss(table, start):
    _, ours = layer_pair(table, start, embeddings_regularizer=keras.regularizers.L2(0.1))
    inputs = [keras.Input((2,), dtype="int64") for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Add()([ours(i) for i in inputs]))
    for _ in range(2):
        model([np.array([[1, 2]]), np.array([[2, 2]])])
        want = [0.1 * (start[rows] ** 2).sum() for rows in ([1, 2], [2])]
        np.testing.assert_allclose([float(loss) for loss in model.losses], want, rtol=1e-6)


@pytest.mark.parametrize("how", ["constructor", "attribute"])
def test_a_frozen_layer_adds_no_loss_as_in_keras(table, how, start):
    frozen = {"trainable": False} if how == "constructor" else {}
    for layer in layer_pair(table, start, embeddings_regularizer="l2", **frozen):
        layer.trainable = False
        layer(np.arange(V), training=True)
        assert layer.losses == []
        layer.trainable = True
        layer(np.arange(V), training=True)
        np.testing.assert_allclose(float(layer.losses[0]), 0.01 * (start**2).sum(), rtol=1e-6)


def test_an_activity_regularizer_is_that_of_keras(table, start, rng):
    theirs, ours = layer_pair(table, start, activity_regularizer=keras.regularizers.L2(0.1))
    keys = rng.integers(0, V, (4, 3))
    losses = []
    for layer in (theirs, ours):
        layer(keys)
        losses.append([float(loss) for loss in layer.losses])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    assert len(losses[0]) == 1


CONSTRAINTS = {
    "NonNeg": keras.constraints.NonNeg,
    "MaxNorm": lambda: keras.constraints.MaxNorm(1.0, axis=1),
    "UnitNorm": lambda: keras.constraints.UnitNorm(axis=1),
    "MinMaxNorm": lambda: keras.constraints.MinMaxNorm(0.5, 1.0, rate=0.7, axis=1),
    "by_name": lambda: "non_neg",
}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_constraint_is_that_of_keras_where_a_batch_names_every_row(table, constraint, start, rng):
    theirs, ours = layer_pair(table, start, embeddings_constraint=CONSTRAINTS[constraint]())
    repeated = [np.concatenate([rng.permutation(V), rng.integers(0, V, 5)]) for _ in range(STEPS)]
    run_and_compare(theirs, ours, every_row_once(rng) + repeated, rng)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_constraint_leaves_rows_that_are_not_named_as_they_are(table, constraint, start):
    made = keras.constraints.get(CONSTRAINTS[constraint]())
    _, ours = layer_pair(table, start, embeddings_constraint=made)
    named = np.array([1, 4, 17])
    for _ in range(3):
        before = table_rows(ours)
        step_of(ours, tse.optimizers.SGD(0.05), np.concatenate([named, named[:2]]), np.ones((5, D), np.float32))
        assert (table_rows(ours)[named] != before[named]).any()
    others = np.setdiff1d(np.arange(V), named)
    np.testing.assert_array_equal(table_rows(ours)[others], start[others])
    assert (np.asarray(made(start)) != start)[others].any()
    if constraint != "MinMaxNorm":  # which approaches its bounds at `rate`
        np.testing.assert_allclose(table_rows(ours)[named], made(tf.constant(table_rows(ours)[named])), **TOLERANCE)


def test_a_constraint_and_a_regularizer_together_train_as_in_keras(table, start, rng):
    arguments = {"embeddings_regularizer": "l2", "embeddings_constraint": keras.constraints.MaxNorm(1.0, axis=1)}
    run_and_compare(*layer_pair(table, start, **arguments), every_row_once(rng), rng)
