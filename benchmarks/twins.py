"""The slow NumPy twin of a training step, in float64, against which every contestant is checked before it is timed.

Letters as in `training_task.py`; S the optimizer's state of a row.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Each rule takes a row [D], its state, g [D], the summed gradient, and squares [D], the sum of its parts' squares.
# Keras' optimizers square before they sum, which differs where a key repeats.


def _row_wise_adagrad(row, state, g, squares, step, lr):
    state["a"] = state.get("a", 0.0) + np.mean(g**2)
    return row - lr * g / (np.sqrt(state["a"]) + 1e-8)


def _row_wise_adam(row, state, g, squares, step, lr):
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * np.mean(g**2)
    return row - lr * (state["m"] / (1 - 0.9**step)) / (np.sqrt(state["v"] / (1 - 0.999**step)) + 1e-8)


def _adagrad(initial_accumulator, epsilon):
    def rule(row, state, g, squares, step, lr):
        state["a"] = state.get("a", initial_accumulator) + g**2
        return row - lr * g / (np.sqrt(state["a"]) + epsilon)

    return rule


def _keras_adagrad(row, state, g, squares, step, lr):
    state["a"] = state.get("a", 0.1) + squares
    return row - lr * g / np.sqrt(state["a"] + 1e-7)


def _adam(epsilon, squares_parts=False):
    def rule(row, state, g, squares, step, lr):
        state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * (squares if squares_parts else g**2)
        return row - lr * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * state["m"] / (np.sqrt(state["v"]) + epsilon)

    return rule


class Rule(NamedTuple):
    """An update rule, as a contestant has it."""

    apply: Callable  # (row, state, g, squares, step, learning rate) -> the new row
    state_width: Callable  # D -> S
    moves_all: bool = False  # also the rows that no key of the batch names


RULES = {
    "row_wise_adagrad": Rule(_row_wise_adagrad, lambda dim: 1),
    "row_wise_adam": Rule(_row_wise_adam, lambda dim: dim + 1),
    "keras_adagrad": Rule(_keras_adagrad, lambda dim: dim),
    "keras_adam": Rule(_adam(1e-7, squares_parts=True), lambda dim: 2 * dim, moves_all=True),
    "tf_adagrad": Rule(_adagrad(0.1, 1e-7), lambda dim: dim),
    "torch_adagrad": Rule(_adagrad(0.0, 1e-10), lambda dim: dim),
    "torch_sparse_adam": Rule(_adam(1e-8), lambda dim: 2 * dim),
}


def train(task, keys, targets, rule):
    """Runs a step on each batch of keys [batches, F, B, L].

    Returns: the loss of each step, and all rows afterwards, a list of [rows, D] by feature.
    """
    apply, _, moves_all = RULES[rule]
    rows = [np.full((size, task.dim), task.constant, np.float64) for size in task.cardinalities]
    states = [[{} for _ in range(size)] for size in task.cardinalities]
    losses = []
    for step, batch in enumerate(keys, start=1):
        pooled = [table[feature] for table, feature in zip(rows, batch, strict=True)]  # [B, L, D] each
        pooled = [values.sum(axis=1) / (1 if task.combiner == "sum" else task.length) for values in pooled]
        error = np.concatenate(pooled, axis=1) - targets
        losses.append(np.mean(error**2))
        grad_bxfd = 2 * error / error.size
        for f, feature in enumerate(batch):
            grad_bxd = grad_bxfd[:, f * task.dim : (f + 1) * task.dim]
            if task.combiner != "sum":
                grad_bxd = grad_bxd / task.length
            sums, squares = np.zeros_like(rows[f]), np.zeros_like(rows[f])
            for b, bag in enumerate(feature):
                for key in bag:
                    sums[key] += grad_bxd[b]
                    squares[key] += grad_bxd[b] ** 2
            for key in range(len(rows[f])) if moves_all else np.unique(feature):
                arguments = (states[f][key], sums[key], squares[key], step, task.learning_rate)
                rows[f][key] = apply(rows[f][key], *arguments)
    return losses, rows


def difference(task, keys, targets, rule, losses, rows):
    """What is wrong with a contestant's losses [steps] and rows (a list of [rows, D] by feature); None if nothing.

    The change of the rows must be equal to a thousandth of the greatest change: the gradients are float32 sums.
    """
    want_losses, want_rows = train(task, keys, targets, rule)
    if not np.allclose(losses, want_losses, rtol=1e-4):
        return f"losses are {np.round(losses, 6)}, the twin's {np.round(want_losses, 6)}"
    for f, (got, want) in enumerate(zip(rows, want_rows, strict=True)):
        got = np.asarray(got, np.float64)
        if got.shape != want.shape:
            return f"rows of feature {f} are of shape {got.shape}, the twin's {want.shape}"
        apart = np.abs(got - want)
        bound = 1e-3 * np.abs(want - task.constant).max()
        if apart.max() > bound:
            key, d = np.unravel_index(apart.argmax(), apart.shape)
            return f"row {key} of feature {f} has [{d}] = {got[key, d]:.6f}, the twin's {want[key, d]:.6f}"
    return None
