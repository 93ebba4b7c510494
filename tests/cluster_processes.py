"""Clusters of real processes on the loopback."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).with_name("cluster_programs.py")


def free_ports(count):
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def listeners(port):
    """The addresses, in hexadecimal as Linux has them, that are listened at with this port."""
    addresses = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == "0A" and int(local.split(":")[1], 16) == port:
                addresses.append(local.split(":")[0])
    return addresses


class Cluster:
    """Workers and servers, started with `python -m tf_sparse_emb.distribute.server`, and killed at the end.

    Attributes:
        spec: dict of job -> addresses.
    """

    def __init__(self, workers, servers, start=True, command=("-m", "tf_sparse_emb.distribute.server"), **environment):
        ports = iter(free_ports(workers + servers + 1))
        self.spec = {
            job: [f"127.0.0.1:{next(ports)}" for _ in range(count)]
            for job, count in (("worker", workers), ("ps", servers), ("chief", 1))
        }
        self._command, self._environment = command, environment
        self._processes = {}
        if start:
            for job in ("worker", "ps"):
                for task in range(len(self.spec[job])):
                    self.start(job, task)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def start(self, job, task, **environment):
        """Starts a task, or starts it again."""
        self._processes[job, task] = self._launch(job, task, self._command, stdout=subprocess.DEVNULL, **environment)

    def kill(self, job, task):
        """Kills a task."""
        self._processes[job, task].send_signal(signal.SIGKILL)
        self._processes[job, task].wait()

    def start_chief(self, program, *arguments):
        """Starts a function of cluster_programs.py as the chief; returns the process."""
        command = (str(PROGRAMS), program, *map(str, arguments))
        return self._launch("chief", 0, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_chief(self, program, *arguments, timeout=110):
        """Runs a function of cluster_programs.py as the chief; returns what it returned."""
        return result_of(self.start_chief(program, *arguments), timeout)

    def _launch(self, job, task, command, stderr=subprocess.DEVNULL, **others):
        options = {key: others.pop(key) for key in ("stdout",) if key in others}
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
            **self._environment,
            **others,
            "TF_CONFIG": json.dumps({"cluster": self.spec, "task": {"type": job, "index": task}}),
        }
        return subprocess.Popen([sys.executable, *command], env=environment, stderr=stderr, text=True, **options)


def result_of(chief, timeout):
    """Waits for a chief, and returns what its program returned."""
    try:
        out, error = chief.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        chief.kill()
        out, error = chief.communicate()
        raise AssertionError(f"the chief has not ended after {timeout} s\n{out[-2000:]}\n{error[-4000:]}") from None
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    assert chief.returncode == 0 and lines, f"exit code {chief.returncode}\n{out[-2000:]}\n{error[-6000:]}"
    return json.loads(lines[-1].removeprefix("RESULT "))
