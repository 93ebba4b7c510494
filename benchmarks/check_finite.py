"""Times what the optimizers' check that gradients are finite adds to a training step.

    python benchmarks/check_finite.py [--steps 200] [--dim 32]

Steps of 4096 histories of 40 keys, Zipf(1.05) over a million rows, with the check and without it in turn, on one table
and the same batches. The time is that of the processor, all threads together, in which other work on the machine shows
less.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402

KEYS, EXAMPLES, LENGTH, BATCHES = 1_000_000, 4096, 40, 8


def make_step(layer, optimizer, check_finite):
    """One training step as a tf.function of keys [EXAMPLES, LENGTH]."""
    variables = layer.trainable_variables

    @tf.function
    def step(keys):
        optimizer.check_finite = check_finite  # read while the step is traced
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(keys, training=True) - 1.0))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def main():
    """Measures and prints a line for each form of the layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    cumulative = np.cumsum(np.arange(1, KEYS + 1) ** -1.05)
    batches = [
        tf.constant(rng.permutation(KEYS)[np.searchsorted(cumulative / cumulative[-1], rng.random((EXAMPLES, LENGTH)))])
        for _ in range(BATCHES)
    ]
    print(f"{args.steps} steps, D = {args.dim}, seed {args.seed}")
    print(f"{'':28} {'CPU ms unchecked':>16} {'checked, ms more':>17} {'percent':>8}")
    for optimizer in (tse.optimizers.RowWiseAdagrad(0.01), tse.optimizers.RowWiseAdam(0.01)):
        for combiner in (None, "mean"):
            layer = tse.Embedding(None, args.dim, combiner=combiner, seed=args.seed)
            layer.build((None, LENGTH))
            layer.embeddings.lookup(tf.range(KEYS, dtype=tf.int64), insert=True)
            optimizer = type(optimizer).from_config(optimizer.get_config())
            optimizer.build(layer.trainable_variables)
            steps = {checked: make_step(layer, optimizer, checked) for checked in (True, False)}
            times = {True: [], False: []}
            for number in range(args.steps + 2):
                for checked, step in steps.items():
                    begin = time.process_time()
                    step(batches[number % BATCHES]).numpy()
                    if number >= 2:  # the first traces, the second warms up
                        times[checked].append(1e3 * (time.process_time() - begin))
            more = statistics.median(a - b for a, b in zip(times[True], times[False], strict=True))
            unchecked = statistics.median(times[False])
            name = f"{type(optimizer).__name__}, {'pooled' if combiner else 'not pooled'}"
            print(f"{name:28} {unchecked:16.2f} {more:17.2f} {100 * more / unchecked:8.1f}", flush=True)


if __name__ == "__main__":
    main()
