"""Results do not depend on the number of intra-op threads: bit-equal for 1, 2 and 4.

Dedup and grad-reduce use one thread below four.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference

import tf_sparse_emb as tse

SCRIPT = """
import hashlib, json, sys
import numpy as np
import tensorflow as tf

threads, cases = int(sys.argv[1]), json.loads(sys.argv[2])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)

import tf_sparse_emb as tse

B, L, V, D = 4096, 20, 30_000, 17
def run(optimizer, storage, combiner):
    rng = np.random.default_rng(0)
    table = tse.EmbeddingVariable(D, input_dim=V if storage == "index" else None, storage=storage, seed=1)
    updater = getattr(tse.optimizers, optimizer)(0.05)
    updater.build([table])
    outputs = hashlib.sha256()
    row_splits = np.arange(0, B * L + 1, L)


    @tf.function
    def step(keys, weights, targets):
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
        updater.apply_gradients([(tape.gradient(loss, table), table)])
        return unique_keys, inverse, counts, values


    for _ in range(4):
        keys = rng.zipf(1.2, B * L) % V
        keys = keys if storage == "index" else keys * 0x9E3779B97F4A7C1
        targets = rng.normal(size=(B * L if combiner is None else B, D)).astype(np.float32)
        weights = rng.uniform(0.5, 2.0, B * L).astype(np.float32)
        for output in step(keys, weights, targets):
            outputs.update(output.numpy().tobytes())

    everything = table.lookup(np.arange(V) * (1 if storage == "index" else 0x9E3779B97F4A7C1)).numpy()
    keys, rows = (np.asarray(x) for x in table.export(with_state=True))
    order = np.argsort(keys)
    assert keys.size > 3000 and np.isfinite(rows).all() and np.ptp(rows) > 0.1
    state = hashlib.sha256(keys[order].tobytes() + rows[order].tobytes() + everything.tobytes())
    return keys.size, outputs.hexdigest(), state.hexdigest()


for case in cases:
    print("RESULT", json.dumps([case, run(*case)]))
"""


CASES = [
    *[("RowWiseAdam", storage, None) for storage in reference.STORAGES],
    ("RowWiseAdagrad", "slab", "mean"),
    ("RowWiseAdagrad", "index", "sqrtn"),
    ("SGD", "slab", "sum"),
]


@pytest.fixture(scope="module")
def results():
    """{threads: {case: (rows, sha256 of the outputs, sha256 of the sorted table)}}"""
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
        found[threads] = {tuple(case): tuple(result) for case, result in lines}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_one_two_and_four_threads_are_bit_equal(results, case):
    assert results[1][case] == results[2][case] == results[4][case]


def test_the_cases_differ_from_one_another(results):
    """A hash that stayed the same whatever is computed would prove nothing."""
    assert len({result[1:] for result in results[1].values()}) >= 4
