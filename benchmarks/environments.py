"""The interpreters of the contestants: ours and Keras run in this one, each other peer in an environment of its own."""

import os
import pathlib
import subprocess
import sys

BUILD_DIR = pathlib.Path(__file__).resolve().parent.parent / "build" / "bench"

# The modules of `benchmarks.peers` that are others' work.
PEERS = ("keras_layers", "tfra", "torch_layers", "fbgemm")

# The environments of those that do not run in this one, and of figures.py; the pip installs of each, in order.
ENVIRONMENT_OF = {"tfra": "tfra", "torch_layers": "torch", "fbgemm": "torch", "figures": "figures"}
INSTALLS = {
    "torch": [["torch==2.13.0", "numpy"], ["--no-deps", "fbgemm-gpu-cpu==1.8.0"]],
    "tfra": [
        ["tensorflow-cpu==2.16.2", "tf-keras==2.16.0", "numpy<2", "typeguard", "packaging"],
        ["--no-deps", "tensorflow-recommenders-addons==0.8.1"],
    ],
    "figures": [["matplotlib"]],
}


def python_of(peer):
    """The interpreter for a module of `benchmarks.peers`, or for "figures"; makes its environment if there is none.

    The environment variables BENCH_TORCH_PYTHON, BENCH_TFRA_PYTHON and BENCH_FIGURES_PYTHON name others to use instead.
    """
    name = ENVIRONMENT_OF.get(peer)
    if name is None:
        return sys.executable
    given = os.environ.get(f"BENCH_{name.upper()}_PYTHON")
    if given:
        return given
    folder = BUILD_DIR / name
    installed = folder / ".installed"
    wanted = repr(INSTALLS[name])
    if not installed.exists() or installed.read_text() != wanted:
        print(f"making {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for packages in INSTALLS[name]:
            pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
            subprocess.run([*pip, *packages], check=True)
        installed.write_text(wanted)
    return str(folder / "bin" / "python")
