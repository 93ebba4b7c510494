"""A task of a cluster: `python -m tf_sparse_emb.distribute.server` runs a worker or a parameter server.

Which one, and where the others are, says TF_CONFIG, as for all of TensorFlow's distributed training:

    TF_CONFIG='{"cluster": {"chief": ["a:2222"], "worker": ["b:2222"], "ps": ["c:2222", "d:2222"]},
                "task": {"type": "ps", "index": 1}}' python -m tf_sparse_emb.distribute.server

It listens at its own address of the cluster and at no other, and runs until it is killed. TensorFlow's protocol has no
authentication and no encryption: whoever reaches the port can run any op. Keep it in a private network.
"""

import argparse
import json
import os
import sys
import threading

import tensorflow as tf

from tf_sparse_emb.distribute.listen import listen_only_at
from tf_sparse_emb.gen_ops import library

JOBS = ("worker", "ps")
# Of those that run ops. TensorFlow takes one for each CPU; where that is one, a step that needs several tasks hangs.
_MIN_THREADS = 4


def task_of_environment():
    """Returns the cluster, the job and the index of TF_CONFIG.

    Raises:
        ValueError: if it is missing or is not of a worker or server of the cluster.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise ValueError('TF_CONFIG must describe the cluster: {"cluster": {...}, "task": {...}}, got none')
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        job, index = task["type"], int(task["index"])
        spec = tf.train.ClusterSpec(cluster)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'TF_CONFIG must be {{"cluster": {{...}}, "task": {{"type": ..., "index": ...}}}}, got {text}: {error!r}'
        ) from None
    if job not in JOBS:
        raise ValueError(
            f"the task of TF_CONFIG must be of type {' or '.join(JOBS)}, got {job!r}: the chief runs your own program"
        )
    addresses = spec.as_dict().get(job, [])
    if not 0 <= index < len(addresses):
        raise ValueError(f"the cluster of TF_CONFIG must have task {index} of job '{job}', got {addresses}")
    return spec, job, index


def _end_with_parent():
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def main(arguments=None):
    """Runs the task until the process is killed; the exit code is 2 if TF_CONFIG or --listen is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_sparse_emb.distribute.server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="listen at this address of the machine, where the cluster knows it by another; all: at all of them",
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="end when the other end of the standard input is closed"
    )
    options = parser.parse_args(arguments)
    try:
        cluster, job, index = task_of_environment()
        if options.listen != "all":
            listen_only_at(cluster.task_address(job, index), options.listen)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    config = tf.compat.v1.ConfigProto()
    if len(os.sched_getaffinity(0)) < _MIN_THREADS:
        config.inter_op_parallelism_threads = _MIN_THREADS
    server = tf.distribute.Server(cluster, job_name=job, task_index=index, protocol="grpc", config=config)
    version = library.sparse_emb_library_version().numpy().decode()
    print(f"{job} {index} listens at {cluster.task_address(job, index)}, tf_sparse_emb {version}", flush=True)
    server.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
