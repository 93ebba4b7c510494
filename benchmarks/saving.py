"""Saves and loads a table in every format, beside a plain copy of as many bytes: MB/s, and memory beyond the table.

    python benchmarks/saving.py [--rows 10000 1000000] [--dim 16] [--rounds 3] [--folder FOLDER]

Rows of D float32 and one of row-wise Adagrad's state, random keys, seed 1; a process for each number of rows. Each save
and each load follows a copy of the package's own file, in pieces of 4 MB, and its time is compared with that; between
measurements all is flushed to the disk. Medians of the rounds are printed. Loads go into a new table; what was loaded
is compared with what was saved. MB are those of the package's own file for all formats. Memory is the peak (VmHWM)
beyond what was resident before, for a load beyond the table that is there after it as well.

Then a table alone goes into an incremental checkpoint: a full save, increments of so many changed rows, the restoring
of all of them, and what an update costs with and without the log of what has changed.

Files are in the page cache. The package's own file is on the disk when `save` returns, and stands beside a copy with
fsync; the other formats beside one without.
"""

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402


def parse():
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files go; default: a temporary one")
    return parser.parse_args()


def make_model(dim):
    """A model of one table, its optimizer built."""
    keys = keras.Input([1], dtype="int64")
    model = keras.Model(keys, keras.layers.Dense(1)(tse.Embedding(None, dim, combiner="sum", seed=1)(keys)))
    model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def table_of(model):
    """Its table."""
    return model.layers[1].embeddings


def fill(table, rows, dim):
    """Inserts that many random keys, each with one update."""
    rng = np.random.default_rng(1)
    for _ in range(0, rows, 1 << 18):
        n = min(1 << 18, rows - int(table.size()))
        keys = rng.integers(-(2**63), 2**63 - 1, n)
        grads = rng.normal(size=(n, dim)).astype(np.float32)
        tse.ops.embedding_update(table, keys, grads, "row_wise_adagrad", learning_rate=0.1)


def digest(table):
    """Sums of keys and columns, whatever the order of rows."""
    total = np.zeros(table.dim + 2)
    for keys, rows in table.export_chunks(1 << 18, with_state=True):
        total[0] += keys.numpy().astype(np.float64).sum()
        total[1:] += rows.numpy().astype(np.float64).sum(0)
    return total


def checkpoint(model):
    """The model and its optimizer."""
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


# How each is saved to a path, and loaded from it, into a new model unless the format makes one itself.
FORMATS = {
    "file": (lambda m, p: table_of(m).save(p), lambda m, p: table_of(m).load(p)),
    "checkpoint": (lambda m, p: checkpoint(m).write(p), lambda m, p: checkpoint(m).read(p).assert_consumed()),
    ".weights.h5": (lambda m, p: m.save_weights(p + ".weights.h5"), lambda m, p: m.load_weights(p + ".weights.h5")),
    ".keras": (lambda m, p: m.save(p + ".keras"), lambda m, p: keras.models.load_model(p + ".keras")),
    "SavedModel": (lambda m, p: m.export(p, verbose=False), lambda m, p: tf.saved_model.load(p)),
}


def copy(source, target, sync):
    """Copies a file."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 4 << 20)
        if sync:
            os.fsync(writer.fileno())


def bytes_of(folder):
    """The bytes of all files in a folder."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def memory(field):
    """A field of /proc/self/status in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measured(fn):
    """Returns (result, seconds, MB at the peak beyond before, MB after beyond before)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory("VmRSS")
    start = time.perf_counter()
    result = fn()
    seconds = time.perf_counter() - start
    return result, seconds, memory("VmHWM") - before, memory("VmRSS") - before


def run(rows, dim, rounds, folder):
    """Measures one number of rows and prints its table."""
    megabytes = rows * (8 + 4 * (dim + 1)) / 1e6
    model = make_model(dim)
    fill(table_of(model), rows, dim)
    want = digest(table_of(model))
    source = os.path.join(folder, "source")
    table_of(model).save(source)
    times, copies, extra = {}, {}, {}

    def measure(key, fn):
        os.sync()
        target = os.path.join(folder, "copy")
        _, seconds, _, _ = measured(lambda: copy(source, target, sync=key == ("file", "save")))
        copies.setdefault(key, []).append(seconds)
        os.remove(target)
        os.sync()
        result, seconds, peak, after = measured(fn)
        times.setdefault(key, []).append(seconds)
        extra.setdefault(key, []).append(peak - (after if key[1] == "load" else 0))
        return result

    for _ in range(rounds):
        for name, (save, load) in FORMATS.items():
            inside = tempfile.mkdtemp(dir=folder)
            path = os.path.join(inside, "m")
            measure((name, "save"), lambda save=save, path=path: save(model, path))
            new = None if name in (".keras", "SavedModel") else make_model(dim)
            loaded = measure((name, "load"), lambda load=load, new=new, path=path: load(new, path))
            if name != "SavedModel":
                np.testing.assert_allclose(digest(table_of(new or loaded)), want, rtol=1e-12)
            del loaded, new
            shutil.rmtree(inside)
    print(f"\n{rows:,} rows, {megabytes:,.1f} MB")
    print("| format | save MB/s | of a copy | extra MB | load MB/s | of a copy | extra MB |")
    print("|---|---|---|---|---|---|---|")
    for name in FORMATS:
        cells = []
        for phase in ("save", "load"):
            key = name, phase
            ratio = statistics.median(c / t for c, t in zip(copies[key], times[key], strict=True))
            rate = megabytes / statistics.median(times[key])
            cells.append(f"{rate:,.0f} | {ratio:.2f} | {max(extra[key]):,.0f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def run_increments(rows, dim, rounds, folder):
    """Measures incremental checkpoints of one number of rows and prints their table."""
    table = tse.EmbeddingVariable(dim, seed=1)
    table.bind("row_wise_adagrad")
    fill(table, rows, dim)
    source = os.path.join(folder, "source")
    table.save(source)
    keys, rng = table.export()[0].numpy(), np.random.default_rng(2)
    batches = [rng.choice(keys, min(rows, 20_000), replace=False) for _ in range(10)]
    grads = rng.normal(size=(len(batches[0]), dim)).astype(np.float32)
    seconds, megabytes, extra, updates = {}, {}, {}, {"with": [], "without": []}

    def measure(name, fn, is_load=False):
        os.sync()
        path, elapsed, peak, after = measured(fn)
        seconds.setdefault(name, []).append(elapsed)
        extra.setdefault(name, []).append(peak - (after if is_load else 0))
        if isinstance(path, str):
            megabytes[name] = bytes_of(path) / 1e6

    def update(log):
        start = time.perf_counter()
        for batch in batches:
            tse.ops.embedding_update(table, batch, grads, "row_wise_adagrad", learning_rate=0.1, keys_differ=True)
        updates[log].append((time.perf_counter() - start) / sum(map(len, batches)) * 1e9)

    for _ in range(rounds):
        inside = tempfile.mkdtemp(dir=folder)
        checkpoint = tse.saving.IncrementalCheckpoint(inside, table=table)
        measure("copy of the table's file", lambda: copy(source, os.path.join(folder, "copy"), sync=True))
        measure("full save", checkpoint.save)
        update("with")
        checkpoint.save()
        for changed in (min(rows, n) for n in (1_000, 100_000)):
            table.scatter_add(rng.choice(keys, changed, replace=False), np.ones((changed, dim), np.float32))
            measure(f"increment of {changed:,} rows", checkpoint.save)
        new = tse.EmbeddingVariable(dim, seed=1)
        restore = tse.saving.IncrementalCheckpoint(inside, table=new).restore
        megabytes["restoring all"] = bytes_of(inside) / 1e6
        measure("restoring all", restore, is_load=True)
        np.testing.assert_allclose(digest(new), digest(table), rtol=1e-12)
        del checkpoint, new, restore
        shutil.rmtree(inside)
        update("without")
    megabytes["copy of the table's file"] = os.path.getsize(source) / 1e6
    print("\n| incremental checkpoint | MB | ms | extra MB |")
    print("|---|---|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {megabytes[name]:,.2f} | {statistics.median(times) * 1e3:,.0f} | {max(extra[name]):,.0f} |")
    costs = " and ".join(f"{statistics.median(times):.0f} {log}" for log, times in updates.items())
    print(f"\nAn update of 20,000 keys, ns a key: {costs} the log of what has changed", flush=True)


def main():
    """Runs each number of rows in a process of its own."""
    options = parse()
    if len(options.rows) > 1:
        for rows in options.rows:
            arguments = [__file__, "--rows", str(rows), "--dim", str(options.dim), "--rounds", str(options.rounds)]
            arguments += [] if options.folder is None else ["--folder", options.folder]
            subprocess.run([sys.executable, *arguments], check=True)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        run(options.rows[0], options.dim, options.rounds, folder)
        run_increments(options.rows[0], options.dim, options.rounds, folder)


if __name__ == "__main__":
    main()
