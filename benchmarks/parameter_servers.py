"""A table on parameter servers: rows a second, bytes on the wire and CPU time, against the number of processes.

    python benchmarks/parameter_servers.py --clusters 1x1 1x2 2x2 --wire-dtypes float32 float16

A step deduplicates 4096 x 40 keys by Zipf(1.05) over a million, looks the unique ones up, and updates them by row-wise
Adagrad; nothing else, so that what is measured is the table's. W x S are workers x servers, processes of this machine
on the loopback; "here" is the same step in one process without a cluster. The bytes are those of the loopback: nothing
else may use it meanwhile. The ideal is 8 + 4 D bytes a unique key each way (float16: 8 + 2 D).

CPU time is that of the processes: where there are more of them than cores, as on a machine of two, the time of a step
says little of what more machines would do, and CPU time says it.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

if not __package__:
    sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

BATCH, LENGTH, VOCABULARY, ZIPF, BATCHES = 4096, 40, 1_000_000, 1.05, 8


def make_batches(seed):
    """Keys [BATCHES, BATCH * LENGTH], and how many are unique in each batch."""
    import numpy as np

    rng = np.random.default_rng(seed)
    share = np.cumsum(np.arange(1, VOCABULARY + 1) ** -ZIPF)
    ranks = np.searchsorted(share / share[-1], rng.random([BATCHES, BATCH * LENGTH]))
    keys = ranks * 2**20 + 7
    return keys, [len(np.unique(batch)) for batch in keys]


def make_step(tse, tf, table, dim):
    """The step on a batch of keys; returns their number."""

    def step(keys):
        unique, _, _ = tse.ops.embedding_key_dedup(keys)
        rows = table.lookup(unique, insert=True)
        grads = tf.ensure_shape(rows * 0.5 + 0.1, [None, dim])
        update = tse.ops.embedding_update(
            table, unique, grads, "row_wise_adagrad", learning_rate=0.01, keys_differ=True, check_finite=False
        )
        with tf.control_dependencies([update]):
            return tf.size(unique)

    return step


def loopback_bytes():
    """Bytes that the loopback has carried."""
    with open("/proc/net/dev") as lines:
        return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


def cpu_seconds(pid):
    """CPU time of a process."""
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure_here(options):
    """The step in this process."""
    import tensorflow as tf

    import tf_sparse_emb as tse

    batches, unique = make_batches(options.seed)
    table = tse.EmbeddingVariable(options.dim, seed=1)
    table.bind("row_wise_adagrad")
    step = tf.function(make_step(tse, tf, table, options.dim))
    batches = [tf.constant(batch) for batch in batches]
    for batch in batches * 2:
        step(batch)
    begin, cpu = time.perf_counter(), cpu_seconds(os.getpid())
    for i in range(options.steps):
        step(batches[i % BATCHES])
    return {
        "seconds": time.perf_counter() - begin,
        "cpu": {"worker": cpu_seconds(os.getpid()) - cpu},
        "unique": float(sum(unique)) / BATCHES,
        "bytes": 0,
        "empty_call": 0.0,
    }


def measure_cluster(options):
    """As the chief of the cluster of TF_CONFIG."""
    import tensorflow as tf

    import tf_sparse_emb as tse

    strategy = tse.distribute.parameter_server_strategy(wire_dtype=options.wire_dtype)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    batches, unique = make_batches(options.seed)
    with strategy.scope():
        table = tse.EmbeddingVariable(options.dim, seed=1)
    table.bind("row_wise_adagrad")
    step = make_step(tse, tf, table, options.dim)
    run = tf.function(lambda iterator: step(next(iterator)))

    def dataset_fn():
        return tf.data.Dataset.from_tensor_slices(batches).cache().repeat()

    iterator = iter(coordinator.create_per_worker_dataset(dataset_fn))
    empty = tf.function(lambda: tf.constant(1))

    def call(function, count, *arguments):
        for _ in range(count):
            coordinator.schedule(function, args=arguments)
        coordinator.join()

    call(run, 2 * BATCHES * options.workers, iterator)
    call(empty, 50)
    begin = time.perf_counter()
    call(empty, 200)
    empty_call = (time.perf_counter() - begin) / 200
    pids = {**{job: list(map(int, text.split(","))) for job, text in options.pids.items()}, "chief": [os.getpid()]}
    cpu = {job: sum(map(cpu_seconds, some)) for job, some in pids.items()}
    begin, sent = time.perf_counter(), loopback_bytes()
    call(run, options.steps, iterator)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu": {job: sum(map(cpu_seconds, some)) - cpu[job] for job, some in pids.items()},
        "unique": float(sum(unique)) / BATCHES,
        "bytes": loopback_bytes() - sent,
        "empty_call": empty_call,
    }


def run_child(options, environment, **more):
    """Measures in a process of its own."""
    arguments = {"dim": options.dim, "steps": options.steps, "seed": options.seed, **more}
    environment = {**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(name, result, options, wire_bytes):
    """Prints a line of the table."""
    rows = result["unique"] * options.steps / result["seconds"]
    ideal = 2 * result["unique"] * (8 + wire_bytes * options.dim)
    cpu = {job: 1e6 * value / options.steps / result["unique"] for job, value in result["cpu"].items()}
    print(
        f"{name:18}{1e3 * result['seconds'] / options.steps:9.1f}{rows / 1e6:10.2f}"
        f"{result['bytes'] / options.steps / 2**20:10.2f}{ideal / 2**20 if result['bytes'] else 0:9.2f}"
        f"{cpu['worker']:12.3f}{cpu.get('ps', 0):9.3f}{cpu.get('chief', 0):9.3f}{1e3 * result['empty_call']:12.2f}",
        flush=True,
    )


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", nargs="+", default=["1x1", "1x2", "1x3", "2x1", "2x2"], help="workers x servers")
    parser.add_argument("--wire-dtypes", nargs="+", default=["float32", "float16"])
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--steps", type=int, default=96, help="a multiple of 8")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child = argparse.Namespace(**json.loads(options.child))
        print(json.dumps(measure_cluster(child) if "wire_dtype" in vars(child) else measure_here(child)))
        return
    from tf_sparse_emb.distribute import LocalCluster

    print(f"D = {options.dim}, {options.steps} steps, seed {options.seed}, {os.cpu_count()} cores")
    print(f"{'':49}{'us of CPU a row':>30}{'ms a call':>19}")
    print(
        f"{'W x S, wire':18}{'ms/step':>9}{'M rows/s':>10}{'MiB/step':>10}{'ideal':>9}{'worker':>12}{'server':>9}"
        f"{'chief':>9}{'of nothing':>12}"
    )
    report("here", run_child(options, dict(os.environ)), options, 4)
    for cluster in options.clusters:
        workers, servers = map(int, cluster.split("x"))
        for wire_dtype in options.wire_dtypes:
            with LocalCluster(workers, servers) as processes:
                pids = {
                    job: ",".join(str(processes.pid(job, task)) for task in range(count))
                    for job, count in (("worker", workers), ("ps", servers))
                }
                result = run_child(
                    options, processes.environment("chief"), wire_dtype=wire_dtype, workers=workers, pids=pids
                )
            report(f"{cluster} {wire_dtype}", result, options, 4 if wire_dtype == "float32" else 2)


if __name__ == "__main__":
    main()
