"""What the tests of tse.legacy share: pairs of optimizers, of tse.optimizers and tse.legacy, and of models."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import tf_sparse_emb as tse

# name -> (class, its arguments)
RULES = {
    "SGD": ("SGD", {"learning_rate": 0.1}),
    "Nesterov": ("SGD", {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True}),
    "Adagrad": ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.2}),
    "AdagradDecay": ("AdagradDecay", {"learning_rate": 0.1, "decay_step": 2, "decay_rate": 0.5}),
    "Adam": ("Adam", {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.9}),
    "AMSGrad": ("Adam", {"learning_rate": 0.05, "beta_2": 0.8, "amsgrad": True}),
    "AdamW": ("AdamW", {"learning_rate": 0.05, "weight_decay": 0.1}),
    "Ftrl": ("Ftrl", {"learning_rate": 0.1, "l1_regularization_strength": 0.01, "beta": 0.2}),
    "RMSprop": ("RMSprop", {"learning_rate": 0.05, "rho": 0.8}),
    "RMSpropCentered": ("RMSprop", {"learning_rate": 0.02, "momentum": 0.5, "centered": True, "epsilon": 1e-4}),
    "RowWiseAdagrad": ("RowWiseAdagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.1}),
    "RowWiseAdam": ("RowWiseAdam", {"learning_rate": 0.05, "weight_decay": 0.1}),
}


def prints(script, **environment):
    """The last line that `script` prints in a fresh interpreter."""
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **environment,
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def make_pair(rule, **kwargs):
    """The optimizer of tse.optimizers and its namesake of tse.legacy."""
    name, arguments = RULES[rule]
    return tuple(getattr(module, name)(**arguments | kwargs) for module in (tse.optimizers, tse.legacy))


def slices(values, indices):
    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(indices, tf.int64))


def data(rng, steps=4, batch=16):
    """Keys of which many repeat, of all 64 bits, and answers."""
    universe = rng.integers(-(2**62), 2**62, 12)
    return universe[rng.integers(0, 12, (steps * batch, 3))], rng.normal(size=(steps * batch, 1)).astype(np.float32)


def embedding(module, **kwargs):
    return module.Embedding(None, 4, **{"combiner": "mean", "name": "user", "seed": 3} | kwargs)


def model_of(framework, layer):
    """keras or tf_keras: a model of the layer and a dense one, which starts from the same weights in both."""
    model = framework.Sequential([framework.Input([3], dtype="int64"), layer, framework.layers.Dense(1)])
    model.layers[-1].set_weights([np.linspace(-1, 1, 4, dtype=np.float32)[:, None], np.zeros(1, np.float32)])
    return model


def model_pair():
    return model_of(keras, embedding(tse)), model_of(tf_keras, embedding(tse.legacy))


def sorted_content(table):
    """Keys, and rows with the optimizer's state, in the order of keys."""
    keys, rows = (part.numpy() for part in table.export(with_state=True))
    order = np.argsort(keys)
    return keys[order], rows[order]


def assert_same_tables(ours, theirs, **tolerance):
    for got, want in zip(sorted_content(ours), sorted_content(theirs), strict=True):
        np.testing.assert_allclose(got, want, **tolerance or {"rtol": 0})
