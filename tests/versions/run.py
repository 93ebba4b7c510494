"""Runs the suite with every Python and TensorFlow that the package claims and this machine can run.

    python tests/versions/run.py                           # each python3.10 .. python3.13 of the PATH
    python tests/versions/run.py --tensorflow 2.18 --tests tests/test_layer.py

For each pair, in a folder of its own under build/versions: the sources are built, the tests run, a wheel is made,
installed in a new environment and used from another folder (smoke.py). Then each wheel is installed beside the wrong
TensorFlow, where its import must name both versions and what mends it. Prints a table; the exit code is 1 if anything
failed.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "versions"
SMOKE = pathlib.Path(__file__).with_name("smoke.py")
STEPS = ("build", "test", "wheel", "install", "smoke", "refuse")
# The Pythons that each TensorFlow has wheels for.
PYTHONS = {
    "2.18": ("3.10", "3.11", "3.12"),
    "2.19": ("3.10", "3.11", "3.12"),
    "2.20": ("3.10", "3.11", "3.12", "3.13"),
    "2.21": ("3.10", "3.11", "3.12", "3.13"),
}


class Pair:
    """A Python and a TensorFlow, with a copy of the sources and two environments."""

    def __init__(self, python, tensorflow):
        self.python, self.tensorflow = python, tensorflow
        self.name = f"python{python}-tensorflow{tensorflow}"
        self.folder = FOLDER / self.name
        self.sources = self.folder / "sources"
        self.seconds, self.outcomes = time.time(), {}

    def copy_sources(self):
        """The files that git knows; times are kept, so that a second run compiles what has changed."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        for name in listed.decode().split("\0"):
            if name and (ROOT / name).exists():
                target = self.sources / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)

    def make(self, step, target, *variables):
        """`make target` in the copy; its output in step.log."""
        settings = [f"PYTHON=python{self.python}", f"TENSORFLOW=tensorflow-cpu=={self.tensorflow}.*", *variables]
        return self.run(step, ["make", target, *settings], self.sources)

    def install_wheel(self):
        """In an environment that has TensorFlow and nothing of ours."""
        shutil.rmtree(self.folder / "clean", ignore_errors=True)
        python = str(self.folder / "clean" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        return (
            self.run("install", [f"python{self.python}", "-m", "venv", "clean"], self.folder)
            and self.run("install", [*pip, f"tensorflow-cpu=={self.tensorflow}.*"], self.folder)
            and self.run("install", [*pip, str(self.wheel())], self.folder)
        )

    def smoke(self):
        """smoke.py from an empty folder."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return self.run("smoke", [str(self.folder / "clean" / "bin" / "python"), str(SMOKE)], elsewhere)

    def refuses(self, other):
        """Whether the import of `other`'s wheel names both TensorFlows and the command that mends it."""
        python = str(self.folder / "clean" / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
        if not self.run("refuse", [*install, str(other.wheel())], self.folder):
            return False
        command = [python, "-c", "import tf_sparse_emb"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        named = (f"built for TensorFlow {other.tensorflow}", f"TensorFlow {self.tensorflow}", "pip install")
        (self.folder / "refuse.log").write_text(done.stderr)
        self.outcomes["refuse"] = done.returncode == 1 and all(part in done.stderr for part in named)
        return self.outcomes["refuse"]

    def wheel(self):
        """The wheel that was made last."""
        return max((self.sources / "dist").glob("*.whl"), key=os.path.getmtime)

    def run(self, step, command, folder):
        """Runs a command, its output in step.log; notes and returns whether it passed."""
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
        with open(self.folder / f"{step}.log", "w") as log:
            code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
        self.outcomes[step] = code == 0
        return code == 0


def run_pair(pair, tests):
    """All steps of a pair, until one fails."""
    pair.copy_sources()
    if pair.make("build", "build"):
        if tests:
            command = [".venv/bin/python", "-m", "pytest", "-q", *tests]
            passed = pair.run("test", command, pair.sources)
        else:
            passed = pair.make("test", "test")
        if passed and pair.make("wheel", "wheel") and pair.install_wheel():
            pair.smoke()
    pair.seconds = time.time() - pair.seconds


def runs(python):
    """Whether there is such a command and it does anything: version managers leave some that do not."""
    return shutil.which(python) is not None and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def main():
    """The exit code is 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = [version for version in ("3.10", "3.11", "3.12", "3.13") if runs(f"python{version}")]
    parser.add_argument("--python", nargs="+", default=found, help="versions (those found: %(default)s)")
    parser.add_argument("--tensorflow", nargs="+", default=["2.18", "2.21"], choices=list(PYTHONS))
    parser.add_argument("--tests", nargs="+", help="pytest's arguments, in place of `make test`")
    arguments = parser.parse_args()
    pairs = [
        Pair(python, tensorflow)
        for python in arguments.python
        for tensorflow in arguments.tensorflow
        if python in PYTHONS[tensorflow]
    ]
    if not pairs:
        parser.error(f"no wheel of TensorFlow {arguments.tensorflow} serves Python {arguments.python}")
    for pair in pairs:
        print(f"{pair.name} ...", flush=True)
        run_pair(pair, arguments.tests)
        for step, passed in pair.outcomes.items():
            if not passed:
                print((pair.folder / f"{step}.log").read_text()[-3000:], flush=True)
    whole = [pair for pair in pairs if pair.outcomes.get("smoke")]
    for pair in whole:
        wrong = next((one for one in whole if one.tensorflow != pair.tensorflow and one.python == pair.python), None)
        if wrong:
            pair.refuses(wrong)
    print(f"\n{'':32}{'build':>9}{'test':>9}{'wheel':>9}{'install':>9}{'smoke':>9}{'refuse':>9}{'s':>8}")
    for pair in pairs:
        words = [{True: "passed", False: "FAILED", None: "-"}[pair.outcomes.get(step)] for step in STEPS]
        print(f"{pair.name:32}" + "".join(f"{word:>9}" for word in words) + f"{pair.seconds:8.0f}")
    return int(not all(all(pair.outcomes.values()) for pair in pairs))


if __name__ == "__main__":
    sys.exit(main())
