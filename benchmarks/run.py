"""Runs the benchmarks, one or several workloads, and prints a table of each.

    python benchmarks/run.py --workload history bag --dims 32 --quick

Ours and Keras run with this interpreter, the other peers in environments under build/bench, which are made when they
are needed (BENCH_TORCH_PYTHON and BENCH_TFRA_PYTHON name others). Every contestant is a process of its own and is
checked against a slow twin before it is timed; one that differs is not. Contestants take turns, and medians are
printed. Raw times go to benchmarks/results/<workload>.json, figures beside them.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

if not __package__:
    sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.environments import BUILD_DIR, PEERS, python_of
from benchmarks.limits import Limits

# The last takes minutes and most of the memory: only when it is named.
WORKLOADS = ("history", "bag", "wide", "cold", "growth", "serving", "storages", "threads", "din", "scale")
FOLDER = pathlib.Path(__file__).resolve().parent


class Settings:
    """What the flags say, and what is noted for the results."""

    def __init__(self, arguments):
        self.quick = arguments.quick
        self.dims = arguments.dims
        self.seed = arguments.seed
        self.threads = arguments.threads
        self.peers = arguments.peers
        self.memory = arguments.memory * 2**30
        self.seconds = arguments.seconds
        self.rounds = 3 if arguments.quick else 8
        self.data_dir = arguments.data_dir
        self.failures = []
        self.versions = {}
        self._limits = {}

    def chosen(self, entries):
        """The entries of --peers, and ours; without those whose environment cannot be made here."""
        wanted = [entry for entry in entries if entry.peer == "ours" or self.peers is None or entry.peer in self.peers]
        missing = set()
        for peer in dict.fromkeys(entry.peer for entry in wanted):
            try:
                python_of(peer)
            except (OSError, subprocess.CalledProcessError) as error:
                self.note_failure(f"{peer} is left out, its environment cannot be made: {error}")
                missing.add(peer)
        return [entry for entry in wanted if entry.peer not in missing]

    def limits(self, threads):
        """The memory's limits for so many threads."""
        if threads not in self._limits:
            self._limits[threads] = Limits(BUILD_DIR, threads, 2**30 if self.quick else 2**32)
        return self._limits[threads]

    def note_versions(self, contestant):
        """Notes the packages of a contestant."""
        self.versions[contestant.peer] = contestant.call("versions")

    def note_failure(self, error):
        """Prints why a contestant is not timed; the run ends with code 1."""
        print(f"FAILED {error}", file=sys.stderr, flush=True)
        self.failures.append(str(error))

    def measured_limits(self):
        """All rates of the memory that were needed."""
        return [limits.measured() for limits in self._limits.values()]


def parse_arguments(arguments=None):
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workload", nargs="+", choices=WORKLOADS, default=WORKLOADS[:-1], help="default: all but scale (14 GiB)"
    )
    parser.add_argument("--quick", action="store_true", help="D = 32, smaller tables, less time: for a first look")
    parser.add_argument("--dims", type=int, nargs="+", help="widths, where a workload has several (16 32 64)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="default: all; none after the flag: ours alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every contestant (%(default)s)")
    parser.add_argument("--seconds", type=float, help="of timed steps a contestant (4; quick: 1)")
    parser.add_argument("--memory", type=float, default=14, help="GiB that contestants may use together (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of keys and targets (%(default)s)")
    parser.add_argument("--data-dir", help="din: folder of the Amazon Video Games files, to time that as well")
    parser.add_argument("--results", type=pathlib.Path, default=FOLDER / "results", help="where JSON and figures go")
    options = parser.parse_args(arguments)
    options.dims = options.dims or ([32] if options.quick else [16, 32, 64])
    options.seconds = options.seconds or (1.0 if options.quick else 4.0)
    return options


def machine():
    """The hardware, as far as Linux tells."""
    with open("/proc/cpuinfo") as lines:
        models = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return {
        "cpu": ", ".join(sorted(models)),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
    }


def main():
    """Runs the workloads; the exit code is 1 if a contestant failed or differed from the twin."""
    arguments = parse_arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    failed = False
    hardware = machine()
    print("{cpu}, {cores} cores, {memory_gib} GiB".format(**hardware), flush=True)
    for name in arguments.workload:
        workload = importlib.import_module(f"benchmarks.workloads.{name}")
        settings, begin = Settings(arguments), time.time()
        results = workload.run(settings)
        workload.show(results)
        print(f"({time.time() - begin:.0f} s, seed {settings.seed}, {settings.threads} threads)", flush=True)
        content = {
            "workload": name,
            "title": workload.TITLE,
            "machine": hardware,
            "versions": settings.versions,
            "flags": {key: str(value) for key, value in vars(arguments).items()},
            "memory_limits": settings.measured_limits(),
            "failures": settings.failures,
            "results": results,
        }
        (arguments.results / f"{name}.json").write_text(json.dumps(content))
        failed = failed or bool(settings.failures)
    subprocess.run([python_of("figures"), FOLDER / "figures.py", arguments.results], check=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
