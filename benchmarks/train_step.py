"""Times one training step: 4096 histories of 40 keys, Zipf(1.05) over a million, D = 32.

Forward, mean over the 40 keys of each history, square loss, backward, update, as one `tf.function`. Two forms:
`history` looks up [4096, 40, 32] and takes the mean outside; `bag` pools inside the layer, which only ours can.
Contestants are interleaved, one step each in turn, so that a noisy machine treats all alike; medians and ratios are
printed.

    python benchmarks/train_step.py [--steps 60] [--dim 32] [--storage slab ...] [--check-finite]

With `--check-finite`, each of ours runs with the optimizer's check that gradients are finite and without, on one table;
the time is that of the processor, all threads together, in which other work on the machine shows less.
"""

import argparse
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse

KEYS, EXAMPLES, LENGTH, BATCHES = 1_000_000, 4096, 40, 8
UNCHECKED = ", unchecked"


def zipf_keys(rng, exponent=1.05):
    """Keys [BATCHES, EXAMPLES, LENGTH] with P(key of rank r) ~ r^-exponent; ranks are shuffled over the keys."""
    cumulative = np.cumsum(np.arange(1, KEYS + 1, dtype=np.float64) ** -exponent)
    ranks = np.searchsorted(cumulative / cumulative[-1], rng.random((BATCHES, EXAMPLES, LENGTH)))
    return rng.permutation(KEYS)[np.minimum(ranks, KEYS - 1)]


def contestants(args):
    """Yields (name, layer, optimizer, pooled by the layer)."""
    for storage in args.storage:
        for rule, optimizer in (
            ("RowWiseAdagrad", tse.optimizers.RowWiseAdagrad),
            ("RowWiseAdam", tse.optimizers.RowWiseAdam),
        ):
            for combiner in (None, "mean"):
                layer = tse.Embedding(
                    KEYS if storage == "index" else None, args.dim, storage=storage, combiner=combiner, seed=args.seed
                )
                yield f"tse {storage} {rule} {'bag' if combiner else 'history'}", layer, optimizer(0.01), combiner
    for name in () if args.check_finite else ("Adagrad", "Adam", "SGD"):
        yield (
            f"keras {name} history",
            keras.layers.Embedding(KEYS, args.dim),
            getattr(keras.optimizers, name)(0.01),
            None,
        )


def make_step(layer, optimizer, pooled):
    """One training step as a tf.function of keys [EXAMPLES, LENGTH] and targets [EXAMPLES, D]."""
    variables = layer.trainable_variables

    @tf.function
    def step(keys, targets):
        with tf.GradientTape() as tape:
            values = layer(keys, training=True)
            bags = values if pooled else tf.reduce_mean(values, axis=1)
            loss = tf.reduce_mean(tf.square(bags - targets))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def main():
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="timed steps of each contestant")
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--storage", nargs="+", default=["slab", "index"])
    parser.add_argument("--check-finite", action="store_true", help="time the check of gradients instead")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    batches = [tf.constant(keys) for keys in zipf_keys(rng)]
    targets = tf.constant(rng.normal(size=(EXAMPLES, args.dim)), tf.float32)

    steps = {}
    for name, layer, optimizer, pooled in contestants(args):
        layer.build((None, LENGTH))
        if isinstance(layer, tse.Embedding):  # every row exists, as it does in the Keras layer
            layer.embeddings.lookup(tf.range(KEYS, dtype=tf.int64), insert=True)
        optimizer.build(layer.trainable_variables)
        for suffix in ("", UNCHECKED) if args.check_finite else ("",):
            if suffix == UNCHECKED:
                optimizer.check_finite = False
            steps[name + suffix] = make_step(layer, optimizer, pooled)
            for keys in batches[:2]:  # the first traces the step, with this check_finite
                steps[name + suffix](keys, targets)

    times = {name: [] for name in steps}
    clock = time.process_time if args.check_finite else time.perf_counter
    for i in range(args.steps):
        for name, step in steps.items():
            start = clock()
            step(batches[i % BATCHES], targets).numpy()
            times[name].append((clock() - start) * 1e3)

    unique = np.mean([np.unique(keys).size for keys in batches])
    print(f"{EXAMPLES} x {LENGTH} keys, {unique:.0f} unique, D = {args.dim}, {args.steps} steps, seed {args.seed}")
    (print_checks if args.check_finite else print_all)(times)


def print_all(times):
    """Prints medians, and ratios to Keras' Adagrad."""
    reference = statistics.median(times["keras Adagrad history"])
    print(f"{'':40} {'ms a step':>10} {'ns a key':>9} {'Keras Adagrad / it':>19}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:40} {median:10.2f} {median * 1e6 / (EXAMPLES * LENGTH):9.1f} {reference / median:19.1f}")


def print_checks(times):
    """Prints the medians of unchecked steps, and the median of what the checked ones of the same batches take more."""
    print(f"{'':40} {'CPU ms unchecked':>16} {'checked, ms more':>17} {'percent':>8}")
    for name in times:
        if not name.endswith(UNCHECKED):
            checked, unchecked = times[name], times[name + UNCHECKED]
            more = statistics.median(a - b for a, b in zip(checked, unchecked, strict=True))
            median = statistics.median(unchecked)
            print(f"{name:40} {median:16.2f} {more:17.2f} {100 * more / median:8.1f}")


if __name__ == "__main__":
    main()
