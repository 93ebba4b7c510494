"""Puts each bug of mutations.py into a copy of the sources and runs the test that must find it: `make mutants`.

    python tests/mutants/run.py               all of them
    python tests/mutants/run.py slab padding  those in whose name or file one of these stands

A mutant that its test does not notice survives: a test is missing. A C++ test is linked anew with the objects that the
changed file is a part of; what needs the op library gets one of its own. Exit code 1 if a mutant survives, or if a
test fails without one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "build" / "plain"  # without a bug; `make build/plain/cc_tests` makes them
COMPILE = ["g++", "-std=c++17", "-O0", "-ffp-contract=off", "-I.", "-pthread"]
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
HARNESS = ("testing", "main", "isa_test")  # of all programs of tests
TIMEOUT = 900  # seconds; a bug may never end


class Tree:
    """A copy of the repository, in which files are changed."""

    def __init__(self, root):
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__", "corpus")
        for name in ("cc", "tests", "examples", "tf_sparse_emb"):
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy2(ROOT / name, root)

    def run(self, command, **env):
        """Whether a command succeeds, in time."""
        env = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "1", **env}
        try:
            result = subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired as expired:
            self.output = f"not ended after {TIMEOUT} s: {expired.stdout}"
            return False
        self.output = result.stdout + result.stderr
        return result.returncode == 0

    def must_run(self, command, **env):
        if not self.run(command, **env):
            sys.exit(f"{' '.join(map(str, command))}\n{self.output[-5000:]}")

    def object_of(self, source, changed):
        """The object of a source, made anew if the changed file is a part of it."""
        target = OBJECTS / Path(source).with_suffix(".o")
        parts = target.with_suffix(".d").read_text().replace("\\\n", " ").split(":", 1)[1].split()
        if changed not in parts:
            return target
        mutant = self.root / "mutant" / Path(source).with_suffix(".o")
        mutant.parent.mkdir(parents=True, exist_ok=True)
        self.must_run([*COMPILE, "-c", source, "-o", mutant])
        return mutant

    def passes(self, test, changed=None):
        """Whether a test passes; `changed` is the file with the bug."""
        file, _, name = test.partition("::")
        if file.endswith(".py"):
            return self.run([*PYTEST, test])
        sources = sorted(str(path.relative_to(self.root)) for path in self.root.glob("cc/lib/*.cc"))
        sources += [file, *(f"tests/cc/{stem}.cc" for stem in HARNESS)]
        program = self.root / "program"
        objects = [self.object_of(source, changed) for source in dict.fromkeys(sources)]
        self.must_run([*COMPILE, "-o", program, *objects])
        passed = self.run([program, name])
        if passed and "\n0 passed" in f"\n{self.output}":
            sys.exit(f"no test of {file} has '{name}' in its name")
        return passed

    def build_ops(self):
        objects = self.root / "build" / "objects"
        if not objects.exists() and (ROOT / "build" / "objects").exists():
            # Those of the repository serve once they name this place.
            shutil.copytree(ROOT / "build" / "objects", objects)
            for path in [*objects.rglob("*.cmd"), *objects.rglob("*.d")]:
                text = path.read_text().replace(f" -I{ROOT} ", f" -I{self.root} ")
                for folder in ("cc", "build"):  # not that of TensorFlow's headers
                    text = text.replace(f"{ROOT}/{folder}/", f"{self.root}/{folder}/")
                path.write_text(text)
        self.must_run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"])


def needs_ops(mutation):
    """Whether a C++ bug is looked for from Python."""
    return mutation.file.startswith("cc/") and mutation.test.startswith("tests/test_")


def killed(tree, mutation):
    """Whether the test fails with the bug."""
    path = tree.root / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        sys.exit(f"'{mutation.name}': its text is {text.count(mutation.old)} times in {mutation.file}, not once")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        if needs_ops(mutation):
            tree.build_ops()
        return not tree.passes(mutation.test, mutation.file)
    finally:
        path.write_text(text)
        if needs_ops(mutation):
            tree.build_ops()
        else:
            os.utime(path, ns=times)


def main():
    """Runs the mutations that are asked for."""
    parts = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not parts or any(part in m.name or part in m.file for part in parts)]
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        if any(map(needs_ops, chosen)):
            tree.build_ops()
        survivors = []
        tests = list(dict.fromkeys(mutation.test for mutation in chosen))
        python = [test for test in tests if ".py::" in test]
        if python:  # in one process, because TensorFlow takes long to start
            tree.must_run([*PYTEST, *python])
        for test in set(tests) - set(python):
            if not tree.passes(test):
                sys.exit(f"{test} fails without a bug:\n{tree.output[-5000:]}")
        for mutation in chosen:
            start = time.monotonic()
            found = killed(tree, mutation)
            survivors += [] if found else [mutation]
            word = "killed  " if found else "SURVIVED"
            print(f"{word} {mutation.name} ({mutation.file}, {time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
