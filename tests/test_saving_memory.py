"""What saving and loading takes of memory does not grow with the table."""

import json
import os
import subprocess
import sys

import pytest

MB = 1e6
TABLE = 300_000 * (8 + 4 * (64 + 1)) / MB  # 80

# Prints, for a save and a load in each format, by how many bytes the peak of memory is beyond what was there before,
# and for a load the table that is there after it. What was loaded is kept: its memory would hide what comes later.
PROGRAM = """if True:
    import gc, json, sys
    from pathlib import Path
    import keras, numpy as np, tensorflow as tf, tf_sparse_emb as tse

    def make_model():
        keys = keras.Input([1], dtype="int64")
        model = keras.Model(keys, keras.layers.Dense(1)(tse.Embedding(None, 64, combiner="sum", seed=1)(keys)))
        model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    def memory(field):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024

    def peak_of(call):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        before = memory("VmRSS")
        result = call()
        return result, memory("VmHWM"), before

    def table_of(model):
        return model.layers[1].embeddings

    def chain(model, path):
        return tse.saving.IncrementalCheckpoint(path, model=model, optimizer=model.optimizer)

    def save_increment(model, path):
        chains[path] = chain(model, path)
        chains[path].save()
        keys = table_of(model).export()[0]
        table_of(model).scatter_add(keys, tf.zeros([len(keys), 64]))
        del keys
        return lambda: chains[path].save()

    chains, kept = {}, []
    formats = {
        "table file": (
            lambda m, p: lambda: table_of(m).save(p),
            lambda m, p: table_of(m).load(p),
        ),
        "checkpoint": (
            lambda m, p: lambda: tf.train.Checkpoint(model=m).write(p),
            lambda m, p: tf.train.Checkpoint(model=m).read(p),
        ),
        "full save": (lambda m, p: lambda: chain(m, p).save(), lambda m, p: chain(m, p).restore()),
        "increment of all rows": (save_increment, lambda m, p: chain(m, p).restore()),
        "h5": (
            lambda m, p: lambda: m.save_weights(p + ".weights.h5"),
            lambda m, p: m.load_weights(p + ".weights.h5"),
        ),
        "keras": (lambda m, p: lambda: m.save(p + ".keras"), lambda m, p: m.load_weights(p + ".keras")),
    }
    model, small = make_model(), make_model()
    table_of(model).lookup(np.arange(300_000), insert=True)
    table_of(small).lookup([1], insert=True)
    found = {}
    for number, (name, (save, load)) in enumerate(formats.items()):
        path = f"{sys.argv[1]}/{number}"
        save(small, path + "-warm")()
        load(small, path + "-warm")
        _, peak, before = peak_of(save(model, path))
        found[f"{name}: save"] = peak - before
        new = make_model()
        kept.append(new)
        _, peak, before = peak_of(lambda: load(new, path))
        assert int(table_of(new).size()) == 300_000
        found[f"{name}: load"] = peak - before - int(table_of(new).memory_bytes())
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("memory"))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {name: value / MB for name, value in json.loads(result.stdout.splitlines()[-1]).items()}


FORMATS = ["table file", "checkpoint", "full save", "increment of all rows", "h5", "keras"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_save_and_a_load_take_little_beside_the_table(peaks, form):
    for step in ("save", "load"):
        extra = peaks[f"{form}: {step}"]
        assert extra < 0.4 * TABLE, f"{step}: {extra:.0f} MB beside a table of {TABLE:.0f}"
