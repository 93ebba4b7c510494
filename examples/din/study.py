"""Runs the experiments of `experiments.py` whose results are not there yet:

    python examples/din/study.py models sports --data-dir DIR --torch-python PYTHON

One JSON file a run goes into examples/din/results: the command, the machine and the result line. Seed by seed, so that
what has been run when it is stopped compares; started again it goes on. `report.py` makes the tables, `figures.py` the
figures.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import keras
import tensorflow as tf

if not __package__:  # run as a script: make the package `din` importable from any working directory
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from din import train
from din.experiments import STUDIES, path_of

FOLDER = pathlib.Path(__file__).resolve().parent


def machine():
    """The processor and the versions."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def run_train(arguments):
    """The result of train.py, in this process: importing TensorFlow takes longer than some trainings."""
    keras.utils.clear_session()
    return train.main([*arguments, "--verbose", "0"])


def run_torch(python, arguments):
    """The result of torch_reference.py, run by an interpreter that has PyTorch."""
    command = [python, FOLDER / "torch_reference.py", *arguments]
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    return json.loads(output.strip().splitlines()[-1].removeprefix("RESULT "))


def pending(studies, seeds):
    """The runs without a file, (study, name, experiment, seed), seed by seed."""
    runs = [
        (study, name, experiment, seed)
        for study in studies
        for name, experiment in STUDIES[study].items()
        for seed in experiment.seeds
        if (seeds is None or seed in seeds) and not path_of(study, name, seed).exists()
    ]
    return sorted(runs, key=lambda run: (studies.index(run[0]), run[3]))


def run(experiment, seed, data_dir, torch_python):
    """Runs an experiment and returns what its file holds."""
    arguments = ["--data-dir", str(data_dir), *experiment.flags.split(), "--seed", str(seed)]
    result = run_train(arguments) if experiment.program == "train.py" else run_torch(torch_python, arguments)
    return {
        "command": experiment.command(seed),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),  # how busy the machine was, this run included
        "result": result,
    }


def main(arguments=None):
    """Runs what is missing, and says what goes on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; by default all")
    parser.add_argument("--data-dir", required=True, help="folder of the files of Video Games and Sports")
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds alone")
    parser.add_argument("--only", nargs="+", help="the experiments of these names alone")
    parser.add_argument("--torch-python", help="an interpreter with PyTorch; without it its runs are left out")
    options = parser.parse_args(arguments)
    for study in options.studies:
        if study not in STUDIES:
            parser.error(f"studies must be of {', '.join(STUDIES)}, got {study!r}")
    runs = pending(options.studies or list(STUDIES), options.seeds)
    if options.only:
        runs = [one for one in runs if one[1] in options.only]
    if not options.torch_python:
        left_out = sum(one[2].program != "train.py" for one in runs)
        runs = [one for one in runs if one[2].program == "train.py"]
        if left_out:
            print(f"{left_out} runs need --torch-python and are left out")
    for number, (study, name, experiment, seed) in enumerate(runs, start=1):
        print(f"[{number}/{len(runs)}] {study}/{name}, seed {seed}: {experiment.command(seed)}", flush=True)
        began = time.perf_counter()
        content = run(experiment, seed, options.data_dir, options.torch_python)
        path = path_of(study, name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{path}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
