"""Times a model with a table and its exports for serving, call by call.

    python benchmarks/serving_latency.py [--rows 1000000] [--dim 32] [--calls 300]

A call is one lookup of a batch of keys: of the model through `tf.function`, of its exports through the signature that
TensorFlow Serving would run. The calls are interleaved; answers are compared first.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402

BATCHES = (26, 4096)


def make_model(rows, dim):
    """A model that is a lookup, and the keys of its table."""
    model = keras.Sequential([keras.Input([], dtype="int64", name="keys"), tse.Embedding(None, dim, seed=1)])
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, rows)
    for start in range(0, rows, 1 << 16):
        model.layers[0].embeddings.lookup(keys[start : start + (1 << 16)], insert=True)
    return model, keys


def medians(callables, batches, calls):
    """The median microseconds of each callable over the batches, in interleaved calls."""
    times = {name: [] for name in callables}
    for call in range(calls):
        for name, function in callables.items():
            batch = batches[call % len(batches)]
            begin = time.perf_counter()
            function(batch)
            times[name].append(time.perf_counter() - begin)
    return {name: 1e6 * statistics.median(values) for name, values in times.items()}


def main():
    """Prints a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--calls", type=int, default=300)
    args = parser.parse_args()
    model, keys = make_model(args.rows, args.dim)
    predict = tf.function(lambda keys: model(keys, training=False), [tf.TensorSpec([None], tf.int64)], autograph=False)
    callables = {"the model": predict.get_concrete_function()}
    loaded = []  # A signature does not keep the variables of its model.
    with tempfile.TemporaryDirectory() as folder:
        for rows_dtype in ("float32", "float16", "int8"):
            path = os.path.join(folder, rows_dtype)
            summary = tse.export_for_serving(model, path, rows_dtype=rows_dtype)
            loaded.append(tf.saved_model.load(path))
            signature = loaded[-1].signatures["serving_default"]
            callables[f"export, {rows_dtype}"] = lambda keys, signature=signature: signature(keys=keys)["output_0"]
            print(rows_dtype, *summary.values())
    rng = np.random.default_rng(2)
    print(f"{args.rows} rows of {args.dim}, median us of {args.calls} interleaved calls")
    for missing in (0.0, 0.05):
        for size in BATCHES:
            batches = []
            for _ in range(20):
                batch = np.where(
                    rng.random(size) < missing, rng.integers(-(2**62), 2**62, size), rng.choice(keys, size)
                )
                batches.append(tf.constant(batch))
            want = callables["the model"](batches[0]).numpy()
            np.testing.assert_array_equal(callables["export, float32"](batches[0]).numpy(), want)
            medians(callables, batches, 20)
            found = medians(callables, batches, args.calls)
            print(f"{size} keys, {missing:.0%} missing:", ", ".join(f"{name} {us:.0f}" for name, us in found.items()))


if __name__ == "__main__":
    main()
