"""Tables that are made, trained and dropped again and again leave no memory behind.

LEAK_CYCLES is how many; `make stress` takes 10,000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import tf_sparse_emb as tse

CYCLES = int(os.environ.get("LEAK_CYCLES", 500))
MB = 1e6

# Prints the resident bytes at ten moments, the first after a tenth of the cycles.
PROGRAM = """
import gc, json, resource, sys
from pathlib import Path
import keras, numpy as np, tensorflow as tf
import tf_sparse_emb as tse

STORAGES = ("slab", "open_addressing", "chained", "unordered_map", "index")
CLASSES = (tse.optimizers.Adam, tse.optimizers.RowWiseAdagrad, tse.optimizers.SGD)

def cycle(i, keys):
    storage = STORAGES[i % len(STORAGES)]
    layer = tse.Embedding(
        10_000 if storage == "index" else None, 16, storage=storage, combiner="mean", seed=1, counts="seen", name="item"
    )
    optimizer = CLASSES[i % len(CLASSES)](0.1)
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(keys, training=True) ** 2)
        variables = layer.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    table = layer.embeddings
    table.remove(keys[:100, 0])
    if i % 10 == 0:
        table.assign(table.numpy())
    return int(table.size())

cycles = int(sys.argv[1])
keys = np.random.default_rng(0).integers(0, 10_000, (500, 5))
resident, size = [], 0
for i in range(cycles):
    size += cycle(i, keys)
    if (i + 1) % 25 == 0:
        gc.collect()
    if (i + 1) % (cycles // 10) == 0:
        gc.collect()
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
print(json.dumps({"resident": resident, "rows": size}))
"""


def test_resident_memory_stays_flat():
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", PROGRAM, str(CYCLES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    resident = [size / MB for size in result["resident"]]
    print(f"{CYCLES} cycles: {', '.join(f'{size:.0f}' for size in resident)} MB resident at each tenth")
    rows = result["rows"] / CYCLES
    table = rows * 4 * 16  # of one cycle, at least
    assert rows > 1000
    assert resident[-1] - resident[0] < max(0.02 * CYCLES * table / MB, 8), resident
