"""Runs contestants, each in a process of its own, in turn, so that a noisy machine treats all alike."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

CHILD = pathlib.Path(__file__).with_name("child.py")

# A burst is quiet if other processes (and the host, where this is a virtual machine) used less than this of the cores.
QUIET_CORES = 0.15


class ContestantError(Exception):
    """A contestant failed."""


class Contestant:
    """A child process that holds one contestant."""

    def __init__(self, name, python, peer, kind, threads, **arguments):
        """Starts the process, which makes `benchmarks.peers.<peer>.<kind>`; `wait` until it has."""
        self.name = name
        self.peer = peer
        self.threads = threads
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in `close`
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        self._process = subprocess.Popen(
            [python, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._send("start", peer=peer, kind=kind, threads=threads, **arguments)

    def wait(self):
        """Waits until the contestant is made."""
        self._receive()

    def call(self, name, **arguments):
        """Calls a method of the contestant and returns its result."""
        self._send(name, **arguments)
        return self._receive()

    def _send(self, name, **arguments):
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps({"call": name, **arguments}) + "\n")
            self._process.stdin.flush()

    def _receive(self):
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the process ended with code {self._process.wait()}"}
        if "error" in answer:
            self._log.seek(0)
            tail = "".join(self._log.readlines()[-25:])
            raise ContestantError(f"{self.name}: {answer['error']}\n{tail}")
        return answer["result"]

    def cpu_seconds(self):
        """The CPU time that the process has used."""
        with open(f"/proc/{self._process.pid}/stat") as stat:
            user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self):
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def contestants(makers, settings):
    """Starts contestants, {name: keyword arguments of `Contestant`}, at once; yields those that start, and ends them.

    The failures of others are noted in `settings`.
    """
    made = [Contestant(name, **arguments) for name, arguments in makers.items()]  # at once: imports take seconds
    try:
        yield [contestant for contestant in made if _starts(contestant, settings)]
    finally:
        for contestant in made:
            contestant.close()


def _starts(contestant, settings):
    try:
        contestant.wait()
    except ContestantError as error:
        settings.note_failure(error)
        return False
    settings.note_versions(contestant)
    return True


def steps_of_bursts(running, seconds, rounds):
    """How many steps of `run(steps=)` a burst has, by name, if `rounds` bursts take `seconds`: at least 3."""
    steps = {}
    for contestant in running:
        contestant.call("run", steps=2)  # traces, allocates, warms up
        step = min(ms for ms, _ in contestant.call("run", steps=2)) / 1e3
        steps[contestant.name] = int(min(max(seconds / rounds / step, 3), 300))
    return steps


def interleave(running, rounds, burst, again=True):
    """Lets the contestants do a burst of steps each, `rounds` times over.

    Bursts that were not quiet are done again, once each, and left out if at least half were quiet.

    Args:
        running: list of `Contestant`.
        rounds: int.
        burst: function(contestant), which returns a list, what was measured of each step.
        again: whether a burst can be done again.

    Returns: by name a dict: "steps", what `burst` returned, one after the other; "others", the cores that other
        processes used meanwhile.
    """
    bursts = {contestant.name: [] for contestant in running}
    for number in range(2 * rounds if again else rounds):
        for contestant in running:
            done = bursts[contestant.name]
            if number < rounds or len(_quiet(done)) < rounds:
                done.append(_watch(contestant, burst))
    return {name: _join(done, rounds, again) for name, done in bursts.items()}


def _watch(contestant, burst):
    time.sleep(0.02)  # until threads of the one before that still spin for work are asleep
    begin, others = time.perf_counter(), _busy_seconds() - contestant.cpu_seconds()
    steps = burst(contestant)
    elapsed, others = time.perf_counter() - begin, _busy_seconds() - contestant.cpu_seconds() - others
    return {"steps": steps, "others": max(others, 0.0) / elapsed}


def _quiet(bursts):
    return [burst for burst in bursts if burst["others"] < QUIET_CORES]


def _join(bursts, rounds, again):
    used = _quiet(bursts) if again and 2 * len(_quiet(bursts)) >= rounds else bursts
    return {
        "steps": [step for burst in used for step in burst["steps"]],
        "others": sum(burst["others"] for burst in used) / len(used),
    }


def _busy_seconds():
    """CPU seconds of all processes since boot, and those that the host took away."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
