"""Times one apply_gradients on the weights of a keras.layers.Embedding: ours beside Keras' optimizer of the same name.

    python benchmarks/apply_gradients.py [--rows 1000000 10000000] [--optimizer Adagrad] [--steps 15]

The gradient is an IndexedSlices of `--keys` distinct rows out of `--rows`, of width 32. Steps of the two are
interleaved, and each runs in a tf.function. Before it times, it checks that both give equal rows for the rows named
(the first step from fresh state), and that ours changed no others. Prints the median milliseconds of each, and their
ratio.
"""

import argparse
import gc
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402

DIM = 32


def contestant(optimizer, rows):
    """A weight matrix under an optimizer: (variable, step(keys, grads))."""
    layer = keras.layers.Embedding(rows, DIM, embeddings_initializer="zeros")
    layer.build()
    variable = layer.embeddings
    optimizer.build([variable])

    @tf.function
    def step(keys, grads):
        slices = tf.IndexedSlices(grads, keys, tf.constant([rows, DIM], tf.int64))
        optimizer.apply_gradients([(slices, variable)])

    return variable, step


def measure(name, rows, keys, steps, rng):
    """Medians of ours and Keras', in milliseconds."""
    # Element-wise, as Keras' are: no variable has row-wise state.
    ours = contestant(getattr(tse.optimizers, name)(0.01, row_wise_variables="^$"), rows)
    theirs = contestant(getattr(keras.optimizers, name)(0.01), rows)
    times = {"ours": [], "keras": []}
    for number in range(steps + 2):
        named = tf.constant(rng.choice(rows, keys, replace=False))
        grads = tf.constant(rng.normal(size=(keys, DIM)), tf.float32)
        for who, (_, step) in (("ours", ours), ("keras", theirs)):
            begin = time.perf_counter()
            step(named, grads)
            if number >= 2:  # the first traces, the second warms up
                times[who].append(1e3 * (time.perf_counter() - begin))
        if number == 0:
            got, want = (tf.gather(variable.value, named).numpy() for variable, _ in (ours, theirs))
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
            changed = tf.reduce_sum(tf.cast(tf.reduce_any(ours[0].value != 0.0, 1), tf.int32))
            assert int(changed) == keys, int(changed)
    return np.median(times["ours"]), np.median(times["keras"])


def main():
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--optimizer", nargs="+", default=["Adagrad", "Adam"])
    parser.add_argument("--keys", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"{args.keys} distinct rows of width {DIM}, {args.steps} steps, seed {args.seed}")
    print(f"{'':12} {'rows':>11} {'ours ms':>9} {'keras ms':>9} {'ratio':>7}")
    for name in args.optimizer:
        for rows in args.rows:
            ours, theirs = measure(name, rows, args.keys, args.steps, np.random.default_rng(args.seed))
            print(f"{name:12} {rows:11,} {ours:9.2f} {theirs:9.2f} {theirs / ours:7.1f}", flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
