"""Programs that tests run beside them, for a bounded time."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import tf_sparse_emb as tse
from tf_sparse_emb.distribute.local_cluster import free_addresses


@contextlib.contextmanager
def python_processes(folder, commands, environments):
    """Starts a Python process for each list of arguments; kills at the end those that still run.

    Their output is in `folder`, PROCESS.log.
    """
    root = str(Path(tse.__file__).resolve().parents[1])
    processes = []
    try:
        for number, (arguments, environment) in enumerate(zip(commands, environments, strict=True)):
            environment = os.environ | {"PYTHONPATH": root, "PROCESS_NUMBER": str(number)} | environment
            with open(Path(folder, f"{number}.log"), "w") as log:
                processes.append(
                    subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, stdout=log, stderr=log)
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(processes, folder, seconds):
    """Waits until all have ended well; raises an AssertionError with what one has said if it has not."""
    deadline = time.monotonic() + seconds
    for number, process in enumerate(processes):
        try:
            code = process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = f"no end within {seconds} s"
        assert code == 0, f"process {number}: {code}\n{Path(folder, f'{number}.log').read_text()[-3000:]}"


def worker_environments(number):
    """`TF_CONFIG` of each worker of a cluster on free ports of the loopback."""
    cluster = {"worker": free_addresses(number)}
    return [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})} for i in range(number)
    ]
