"""A cluster of processes on this machine."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def run(workers, servers, program):
    """Runs a Python program as the chief of a cluster of processes on this machine; returns its exit code.

    Workers and parameter servers listen at free ports of the loopback. All of them have ended when this returns or
    raises, or when this process is killed.

    Args:
        workers, servers: ints, how many.
        program: list of str, the arguments of Python.
    """
    counts = {"chief": 1, "worker": workers, "ps": servers}
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(sum(counts.values()))]
        addresses = iter([f"127.0.0.1:{one.getsockname()[1]}" for one in sockets])
    cluster = {job: [next(addresses) for _ in range(count)] for job, count in counts.items()}
    with contextlib.ExitStack() as stack:
        tasks = {}
        for job in ("ps", "worker"):
            for index in range(counts[job]):
                config = {"cluster": cluster, "task": {"type": job, "index": index}}
                task = _process(["-m", "tf_sparse_emb.distribute.server"], config, stdout=subprocess.PIPE)
                tasks[job, index] = stack.enter_context(task)
        for (job, index), process in tasks.items():
            line = process.stdout.readline()  # which it prints when it listens
            if not line:
                raise RuntimeError(f"{job} {index} of the local cluster has ended with exit code {process.wait()}")
            print(line, end="", flush=True)
        config = {"cluster": cluster, "task": {"type": "chief", "index": 0}}
        chief = stack.enter_context(_process(program, config, stdout=None))
        return chief.wait()


@contextlib.contextmanager
def _process(program, config, stdout):
    """A Python program with that TF_CONFIG, which is killed at the end of the context."""
    process = subprocess.Popen(
        [sys.executable, *program],
        env={
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",  # TensorFlow would give all of the GPU to each
            "TF_CONFIG": json.dumps(config),
        },
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which ends the others
        preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
