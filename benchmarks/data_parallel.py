"""Times a training step of one process against that of two workers under MultiWorkerMirroredStrategy.

    python benchmarks/data_parallel.py [--steps 60] [--rounds 3] [--dim 32] [--hidden 512 256]

Each step trains on 4096 histories of 40 keys, Zipf(1.05) over a million rows, pooled by their mean, with
RowWiseAdagrad; of two workers each has half of them. `--hidden` puts dense layers of these widths on it. Each
contestant is run once a round, in processes of its own that are bound to their cores; printed is the median over all
rounds' steps, after 10 to warm up. The losses of all must agree.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

EXAMPLES, LENGTH, KEYS, BATCHES, WARM_UP = 4096, 40, 1_000_000, 8, 10
CONTESTANTS = {
    "one process, one core": [[0]],
    "one process, two cores": [[0, 1]],
    "two workers, a core each": [[0], [1]],
}


def train(cores, steps, dim, hidden, seed):
    """In a process of its own: prints a line of JSON with the times of steps and the number of unique keys."""
    os.sched_setaffinity(0, cores)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import numpy as np
    import tensorflow as tf

    import tf_sparse_emb as tse

    is_cluster = "TF_CONFIG" in os.environ
    strategy = tse.distribute.MultiWorkerMirroredStrategy() if is_cluster else tf.distribute.get_strategy()
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(np.arange(1, KEYS + 1) ** -1.05)
    batches = [
        rng.permutation(KEYS)[np.searchsorted(cumulative / cumulative[-1], rng.random((EXAMPLES, LENGTH)))]
        for _ in range(BATCHES)
    ]
    replicas = strategy.num_replicas_in_sync
    parts = [[batch[r * EXAMPLES // replicas :][: EXAMPLES // replicas] for r in range(replicas)] for batch in batches]
    inputs = [
        strategy.experimental_distribute_values_from_function(
            lambda context, part=part: tf.constant(part[context.replica_id_in_sync_group])
        )
        for part in parts
    ]
    with strategy.scope():
        keras.utils.set_random_seed(seed)
        dense = [keras.layers.Dense(width, activation="relu") for width in hidden]
        embedding = tse.Embedding(None, dim, combiner="mean", seed=seed)
        model = keras.Sequential([keras.Input([LENGTH], dtype="int64"), embedding, *dense])
        optimizer = tse.optimizers.RowWiseAdagrad(0.01)
        optimizer.build(model.trainable_variables)

    def replica_step(keys):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(keys, training=True) - 1.0)) / replicas
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function
    def step(keys):
        return strategy.reduce("SUM", strategy.run(replica_step, args=(keys,)), axis=None)

    times = []
    for i in range(WARM_UP + steps):
        start = time.perf_counter()
        loss = float(step(inputs[i % BATCHES]))
        times.append(time.perf_counter() - start)
    unique = [[len(np.unique(part)) for part in of_batch] for of_batch in parts]
    print(json.dumps({"times": times[WARM_UP:], "loss": loss, "unique": unique}), flush=True)


def run(processes, arguments):
    """Runs the processes of a contestant; returns what the first has measured."""
    environments = [{} for _ in processes]
    if len(processes) > 1:
        sockets = [socket.socket() for _ in processes]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
        for each in sockets:
            each.close()
        environments = [
            {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})}
            for i in range(len(processes))
        ]
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--cores", *map(str, cores), *arguments],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for cores, environment in zip(processes, environments, strict=True)
    ]
    try:
        outputs = [child.communicate(timeout=300)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    return json.loads(outputs[0].splitlines()[-1])


def main():
    """Measures and prints a line for each contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--hidden", type=int, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cores", type=int, nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cores is not None:
        train(args.cores, args.steps, args.dim, args.hidden, args.seed)
        return
    arguments = ["--steps", str(args.steps), "--dim", str(args.dim), "--seed", str(args.seed)]
    arguments += ["--hidden", *map(str, args.hidden)]
    times, losses, unique = {}, {}, {}
    for _ in range(args.rounds):
        for name, processes in CONTESTANTS.items():
            result = run(processes, arguments)
            times.setdefault(name, []).extend(result["times"])
            losses[name], unique[name] = result["loss"], result["unique"]
    first = next(iter(losses.values()))
    for name, loss in losses.items():
        if abs(loss - first) > 1e-5 * abs(first):
            raise SystemExit(f"'{name}' has trained something else: its loss is {loss}, that of the first {first}")
    print(f"{args.rounds} rounds of {args.steps} steps, D = {args.dim}, hidden {args.hidden}, seed {args.seed}")
    for name, values in times.items():
        print(f"{name:26} {1e3 * statistics.median(values):6.1f} ms a step (fastest {1e3 * min(values):.1f})")
    for name, of_batches in unique.items():
        longest = statistics.mean(max(parts) for parts in of_batches)
        if len(of_batches[0]) > 1:
            print(f"{name}: {longest:.0f} unique keys each, {longest * (8 + 4 * args.dim) / 1e6:.1f} MB sent a step")
        else:
            print(f"{name}: {longest:.0f} unique keys")


if __name__ == "__main__":
    main()
