"""Measures training steps: checks each contestant against the twin, times them in turn, and counts bytes."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np

from benchmarks import twins
from benchmarks.contest import ContestantError, contestants, interleave, steps_of_bursts
from benchmarks.environments import python_of
from benchmarks.training_task import least_traffic, total_bytes, unique_rows


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant in a training workload."""

    name: str
    peer: str  # a module of benchmarks.peers, which has a class Training
    rule: str  # of twins.RULES
    row_bytes: Callable  # D -> the most memory of a row in a step, with whatever is made of the table's size
    storage: str | None = None  # of ours
    threads: int | None = None  # None: as the settings say

    @property
    def family(self):
        """Rules are compared within it: "adam" or "adagrad"."""
        return "adam" if "adam" in self.rule else "adagrad"


def ours(storage="slab", rule="row_wise_adagrad", threads=None):
    """An entry of ours."""
    width = twins.RULES[rule].state_width
    short = rule.replace("row_wise_", "row-wise ").replace("ada", "Ada")
    name = f"tse {storage}, {short}" + (f", {threads} thr" if threads else "")
    return Entry(name, "ours", rule, lambda dim: 4 * (dim + width(dim)) + 32, storage, threads)


# Keras makes the gradient dense, and several tensors of its size beside.
KERAS_ADAGRAD = Entry("Keras Adagrad", "keras_layers", "keras_adagrad", lambda dim: 20 * dim)
KERAS_ADAM = Entry("Keras Adam", "keras_layers", "keras_adam", lambda dim: 28 * dim)
TFRA_ADAGRAD = Entry("TFRA Adagrad", "tfra", "tf_adagrad", lambda dim: 12 * dim + 64)
TORCH_ADAGRAD = Entry("PyTorch sparse Adagrad", "torch_layers", "torch_adagrad", lambda dim: 8 * dim)
TORCH_ADAM = Entry("PyTorch SparseAdam", "torch_layers", "torch_sparse_adam", lambda dim: 12 * dim)
FBGEMM_ADAGRAD = Entry("FBGEMM row-wise Adagrad", "fbgemm", "row_wise_adagrad", lambda dim: 4 * dim + 4)
PEERS = (FBGEMM_ADAGRAD, TORCH_ADAGRAD, TORCH_ADAM, TFRA_ADAGRAD, KERAS_ADAGRAD, KERAS_ADAM)

PROCESS_BYTES = 0.7e9  # of a contestant without its tables


def measure(task, entries, settings):
    """Times the entries on the task and returns a result, a dict, for each.

    Entries that together need more memory than `settings.memory` run in groups, each beside the first entry.
    """
    keys, targets = task.draw()
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "batches.npz"
        np.savez(path, keys=keys, targets=targets)
        for group in _groups(entries, sum(task.cardinalities), task.dim, settings.memory):
            with contestants({entry.name: _arguments(entry, settings) for entry in group}, settings) as made:
                rules = {entry.name: entry.rule for entry in group}
                running = [contestant for contestant in made if _ready(contestant, rules, task, str(path), settings)]
                steps = steps_of_bursts(running, settings.seconds, settings.rounds)

                def burst(contestant, steps=steps):
                    # The first step finds another contestant's data in the caches and is not counted.
                    return contestant.call("run", steps=1 + steps[contestant.name])[1:]

                for name, timed in interleave(running, settings.rounds, burst).items():
                    measured.setdefault(name, []).append(timed)
    return [_result(task, keys, entry, measured[entry.name], settings) for entry in entries if entry.name in measured]


def _groups(entries, rows, dim, memory):
    """Cuts the entries into lists whose estimated memory is below `memory`; each begins with the first entry."""

    def needs(entry):
        return PROCESS_BYTES + entry.row_bytes(dim) * rows

    groups = [[entries[0]]]
    for entry in entries[1:]:
        if len(groups[-1]) > 1 and sum(map(needs, [*groups[-1], entry])) > memory:
            groups.append([entries[0]])
        groups[-1].append(entry)
    return groups


def _arguments(entry, settings):
    """Those of `Contestant`."""
    arguments = {"storage": entry.storage} if entry.storage else {}
    threads = entry.threads or settings.threads
    python = python_of(entry.peer)
    arguments |= {"python": python, "peer": entry.peer, "kind": "Training", "threads": threads, "rule": entry.rule}
    return arguments


def _ready(contestant, rules, task, path, settings):
    """Whether a contestant passes the check; then its tables are filled."""
    small = task.small()
    keys, targets = small.draw()
    try:
        got = contestant.call("check", task=small.as_json(), keys=keys.tolist(), targets=targets.tolist())
        wrong = twins.difference(small, keys, targets, rules[contestant.name], got["losses"], got["rows"])
        if wrong:
            raise ContestantError(f"{contestant.name} is not timed: {wrong}")
        contestant.call("load", task=task.as_json(), path=path)
    except ContestantError as error:
        settings.note_failure(error)
        return False
    return True


def _result(task, keys, entry, timed, settings):
    """The result of an entry; `timed` is what `interleave` returned for it in each of its groups."""
    times, cpu_times = np.transpose([step for part in timed for step in part["steps"]])
    median = float(np.median(times))
    traffic = least_traffic(task, keys, twins.RULES[entry.rule].state_width(task.dim))
    moved = total_bytes(traffic)
    threads = entry.threads or settings.threads
    return {
        "contestant": entry.name,
        "ours": entry.peer == "ours",
        "storage": entry.storage,
        "rule": entry.rule,
        "family": entry.family,
        "dim": task.dim,
        "rows": sum(task.cardinalities),
        "threads": threads,
        "keys": keys[0].size,
        "unique_rows": unique_rows(keys),
        "median_ms": median,
        "median_cpu_ms": float(np.median(cpu_times)),
        "ns_per_key": 1e6 * median / keys[0].size,
        "bytes": moved,
        "gb_per_second": moved / median / 1e6,
        "limit_ms": settings.limits(threads).milliseconds(traffic),
        "others": max(part["others"] for part in timed),
        "times_ms": np.round(times, 4).tolist(),
    }
