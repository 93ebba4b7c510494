"""The process of one contestant: reads calls as lines of JSON on stdin, answers each with one on stdout.

    {"call": name, ...arguments}  ->  {"result": ...} or {"error": "..."}

The first call is `start`, with the module under `benchmarks.peers` and the class in it; `versions` is answered here,
the others are methods of that class. Run by the peer's interpreter, this needs NumPy and the peer alone.
"""

import importlib
import importlib.metadata
import json
import os
import pathlib
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "tensorflow", "tensorflow-cpu", "keras", "tf-keras", "tensorflow-recommenders-addons")
PACKAGES += ("torch", "fbgemm-gpu-cpu")


def start(peer, kind, threads, **arguments):
    """Makes the contestant `benchmarks.peers.<peer>.<kind>(threads=..., **arguments)`."""
    return getattr(importlib.import_module(f"benchmarks.peers.{peer}"), kind)(threads=threads, **arguments)


def versions():
    """The versions of the packages that are installed here."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main():
    """Answers calls until stdin ends."""
    # Whatever a framework prints goes to stderr; the pipe is for answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant = None
    for line in sys.stdin:
        arguments = json.loads(line)
        call = arguments.pop("call")
        try:
            if call == "start":
                contestant, result = start(**arguments), None
            elif call == "versions":
                result = versions()
            else:
                result = getattr(contestant, call)(**arguments)
            answer = {"result": result}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Last, so that an installed package wins over one of the tree.
    sys.path.append(str(ROOT))
    main()
