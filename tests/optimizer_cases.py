"""Every update rule with its optimizer, its float64 twin, and the steps that the tests of tse.optimizers take."""

import functools

import keras
import numpy as np
import reference
import tensorflow as tf

import tf_sparse_emb as tse

V, STEPS = 60, 50
WIDTHS = (*reference.WIDTHS, 128)
CASES = {
    "SGD": (tse.optimizers.SGD, "sgd", {"learning_rate": 0.05}),
    "RowWiseAdagrad": (tse.optimizers.RowWiseAdagrad, "row_wise_adagrad", {"learning_rate": 0.05, "epsilon": 1e-4}),
    "RowWiseAdam": (
        tse.optimizers.RowWiseAdam,
        "row_wise_adam",
        {"learning_rate": 0.01, "beta_1": 0.85, "beta_2": 0.99, "epsilon": 1e-5},
    ),
    "Momentum": (tse.optimizers.SGD, "momentum", {"learning_rate": 0.01, "momentum": 0.8}),
    "Nesterov": (tse.optimizers.SGD, "momentum", {"learning_rate": 0.01, "momentum": 0.8, "nesterov": True}),
    "Adagrad": (tse.optimizers.Adagrad, "adagrad", {"learning_rate": 0.05, "epsilon": 1e-5}),
    "AdagradDecay": (
        tse.optimizers.AdagradDecay,
        "adagrad_decay",
        {"learning_rate": 0.05, "decay_step": 7, "decay_rate": 0.5, "initial_accumulator_value": 0.1},
    ),
    "Adam": (tse.optimizers.Adam, "adam", {"learning_rate": 0.01, "beta_1": 0.85, "beta_2": 0.99, "epsilon": 1e-5}),
    "AMSGrad": (tse.optimizers.Adam, "adam_amsgrad", {"learning_rate": 0.01, "beta_2": 0.9, "epsilon": 1e-5}),
    "Ftrl": (
        tse.optimizers.Ftrl,
        "ftrl",
        {"learning_rate": 0.1, "l1_regularization_strength": 0.05, "l2_regularization_strength": 0.1, "beta": 0.2},
    ),
    "RMSprop": (tse.optimizers.RMSprop, "rmsprop", {"learning_rate": 0.01, "epsilon": 1e-4}),
    "RMSpropMomentum": (
        tse.optimizers.RMSprop,
        "rmsprop_momentum",
        {"learning_rate": 0.003, "momentum": 0.7, "epsilon": 1e-4},
    ),
    "RMSpropCentered": (tse.optimizers.RMSprop, "rmsprop_centered", {"learning_rate": 0.01, "epsilon": 1e-3}),
    "RMSpropCenteredMomentum": (
        tse.optimizers.RMSprop,
        "rmsprop_centered_momentum",
        {"learning_rate": 0.003, "momentum": 0.7, "epsilon": 1e-3},
    ),
}
# What a class takes beside the hyper-parameters of its rule.
EXTRA = {
    "AMSGrad": {"amsgrad": True},
    "RMSpropCentered": {"centered": True},
    "RMSpropCenteredMomentum": {"centered": True},
}
# The state that a row begins with, of width D.
INITIAL_STATE = {
    "adagrad": lambda dim: 0.1,
    "adagrad_decay": lambda dim: [0.1] * dim + [0.0],
    "ftrl": lambda dim: [0.1] * dim + [0.0] * dim,
}


def make_twin(start, rule):
    return reference.TableTwin(start, rule, INITIAL_STATE.get(rule, lambda dim: 0.0)(start.shape[1]))


def case_of(name):
    """(what makes the optimizer, rule, hyper-parameters)"""
    cls, rule, hyperparameters = CASES[name]
    return functools.partial(cls, **EXTRA.get(name, {})), rule, hyperparameters


def optimizer_of(name, **kwargs):
    """The optimizer of a case, with more arguments."""
    cls, _, hyperparameters = CASES[name]
    return cls(**EXTRA.get(name, {}), **hyperparameters | kwargs)


def make_slices(values, indices, rows=2**62):
    values = tf.constant(values, tf.float32)
    return tf.IndexedSlices(values, tf.constant(indices, tf.int64), tf.constant([rows, values.shape[1]], tf.int64))


def random_steps(rng, dim, steps=STEPS, batch=40, rows=V):
    """Repeated positions in every step, and gradients of several magnitudes."""
    for _ in range(steps):
        positions = rng.integers(0, rows, batch)
        yield positions, (rng.normal(size=(batch, dim)) * 10.0 ** rng.integers(-2, 1, (batch, 1))).astype(np.float32)


def filled_table(make_table, storage, dim, rng, start=None, **kwargs):
    """A table of V rows, their keys and values."""
    keys = reference.key_universe(storage, V)
    start = rng.normal(size=(V, dim)).astype(np.float32) if start is None else start
    table = make_table(storage, dim, rows=V, **kwargs)
    table.upsert(keys, start)
    return table, keys, start


def make_plain(start, name):
    return keras.Variable(np.array(start), name=name, dtype="float32")
