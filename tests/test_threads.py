"""Results do not depend on the number of intra-op threads: bit-equal for 1, 2 and 4.

Dedup and grad-reduce use one thread below four.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import optimizer_cases
import pytest
import reference

import tf_sparse_emb as tse

SCRIPT = """
import hashlib, json, sys
import keras
import numpy as np
import tensorflow as tf

threads, cases = int(sys.argv[1]), json.loads(sys.argv[2])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)

import tf_sparse_emb as tse

B, L, V, D = 4096, 20, 30_000, 17
rng = np.random.default_rng(0)
BATCHES = [
    (
        rng.zipf(1.2, B * L) % V,
        rng.uniform(0.5, 2.0, B * L).astype(np.float32),
        rng.normal(size=(B * L, D)).astype(np.float32),
        rng.normal(size=(V, D)).astype(np.float32),
    )
    for _ in range(2)
]


def run(optimizer, arguments, storage, combiner):
    table = tse.EmbeddingVariable(D, input_dim=V if storage == "index" else None, storage=storage, seed=1)
    # Plain variables too, the first of them row-wise where the rule has such a form.
    plain = [keras.Variable(np.zeros((V, D)), dtype="float32", name=name) for name in ("embeddings", "lookup", "dense")]
    updater = getattr(tse.optimizers, optimizer)(**arguments)
    updater.build([table, *plain])
    outputs = hashlib.sha256()
    row_splits = np.arange(0, B * L + 1, L)

    @tf.function
    def step(keys, ranks, weights, targets, dense_grad):
        with tf.GradientTape() as tape:
            unique_keys, inverse, counts = tse.ops.embedding_key_dedup(keys)
            rows = table.lookup(unique_keys, insert=True)
            if combiner is None:
                values = tse.ops.embedding_duplicate(rows, inverse)
            else:
                values = tse.ops.embedding_duplicate(
                    rows, inverse, row_splits=row_splits, weights=weights, combiner=combiner
                )
            upstream = tf.stop_gradient(values) - targets
            loss = tf.reduce_sum(values * upstream)
        slices = tf.IndexedSlices(targets, ranks[: targets.shape[0]])
        gradients = [tape.gradient(loss, table), slices, slices, dense_grad]
        updater.apply(gradients, [table, *plain])
        return unique_keys, inverse, counts, values

    for ranks, weights, targets, dense_grad in BATCHES:
        keys = ranks if storage == "index" else ranks * 0x9E3779B97F4A7C1
        for output in step(keys, ranks, weights, targets[: B * L if combiner is None else B], dense_grad):
            outputs.update(output.numpy().tobytes())

    everything = table.lookup(np.arange(V) * (1 if storage == "index" else 0x9E3779B97F4A7C1)).numpy()
    keys, rows = (np.asarray(x) for x in table.export(with_state=True))
    order = np.argsort(keys)
    assert keys.size > 3000 and np.isfinite(rows).all() and np.ptp(rows) > 0.1
    state = hashlib.sha256(keys[order].tobytes() + rows[order].tobytes() + everything.tobytes())
    for variable in (*plain, *updater.variables):
        state.update(variable.numpy().tobytes())
    return keys.size, outputs.hexdigest(), state.hexdigest()


for name, case in cases.items():
    print("RESULT", json.dumps([name, run(*case)]))
"""


ROW_WISE_ADAM = optimizer_cases.CASES["RowWiseAdam"][2]
# name: class, its arguments, the storage, the combiner
CASES = {
    **{
        name: (cls.__name__, optimizer_cases.EXTRA.get(name, {}) | hyperparameters, "slab", None)
        for name, (cls, _, hyperparameters) in optimizer_cases.CASES.items()
    },
    **{name: ("RowWiseAdam", ROW_WISE_ADAM, name, None) for name in reference.STORAGES if name != "slab"},
    "clipnorm": ("RowWiseAdam", {**ROW_WISE_ADAM, "clipnorm": 1.0}, "slab", None),
    "global_clipnorm and weight_decay": (
        "RowWiseAdam",
        {**ROW_WISE_ADAM, "global_clipnorm": 1.0, "weight_decay": 0.1},
        "slab",
        None,
    ),
    "mean": ("RowWiseAdagrad", {"learning_rate": 0.05}, "slab", "mean"),
    "sqrtn": ("RowWiseAdagrad", {"learning_rate": 0.05}, "index", "sqrtn"),
    "sum": ("SGD", {"learning_rate": 0.05}, "slab", "sum"),
}


@pytest.fixture(scope="module")
def results():
    """{threads: {case: [rows, sha256 of the outputs, sha256 of the sorted table and the plain variables]}}"""
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    found = {}
    for threads in (1, 2, 4):
        command = [sys.executable, "-c", SCRIPT, str(threads), json.dumps(CASES)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = [json.loads(x.removeprefix("RESULT")) for x in done.stdout.splitlines() if x.startswith("RESULT")]
        found[threads] = dict(lines)
    return found


@pytest.mark.parametrize("case", CASES)
def test_one_two_and_four_threads_are_bit_equal(results, case):
    assert results[1][case] == results[2][case] == results[4][case]


def test_the_cases_differ_from_one_another(results):
    """A hash that stayed the same whatever is computed would prove nothing."""
    states = {state for _, _, state in results[1].values()}
    # The hash storages hold the same rows as slab.
    assert len(states) == len(CASES) - 3
