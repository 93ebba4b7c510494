"""Chiefs of clusters on the loopback, each a process of its own, because TensorFlow connects to a cluster only once."""

import json
import subprocess
import sys
from pathlib import Path

from tf_sparse_emb.distribute import LocalCluster

PROGRAMS = Path(__file__).with_name("cluster_programs.py")


def listeners(port):
    """The addresses, in hexadecimal as Linux has them, that are listened at with this port."""
    addresses = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == "0A" and int(local.split(":")[1], 16) == port:
                addresses.append(local.split(":")[0])
    return addresses


class Cluster(LocalCluster):
    """A cluster whose chief runs a function of cluster_programs.py."""

    def start_chief(self, program, *arguments):
        """Starts a program; returns the process."""
        return start_program(self.environment("chief"), program, *arguments)

    def run_chief(self, program, *arguments, timeout=300):
        """Runs a program; returns what it returned."""
        return result_of(self.start_chief(program, *arguments), timeout)


def start_program(environment, program, *arguments):
    """Starts a function of cluster_programs.py; returns the process."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS), program, *map(str, arguments)],
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
