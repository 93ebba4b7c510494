"""Runs din.ipynb from top to bottom and writes the outputs into it: `python examples/din/run_notebook.py --help`."""

import argparse
import os
import pathlib
import sys
import time

import nbformat
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).resolve().parent / "din.ipynb"
MAX_BYTES = 2_000_000


def main(arguments=None):
    """Runs it; an error in a cell ends the command, and the notebook stays as it was."""
    parser = argparse.ArgumentParser(description="Runs din.ipynb. DATA_DIR names the folder of the Video Games files.")
    parser.add_argument("--quick", action="store_true", help="on a small part of the data, and write nothing")
    options = parser.parse_args(arguments)
    if options.quick:
        os.environ["QUICK"] = "1"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    began = time.perf_counter()
    # In its own folder. Without the times of each cell, which would differ in every run.
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, kernel_name="python3", resources=place, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what TensorFlow logs has times, and tells of this machine
            logged = [output for output in cell.outputs if output.get("name") == "stderr"]
            print(*[output.text for output in logged], end="", file=sys.stderr)
            cell.outputs = [output for output in cell.outputs if output not in logged]
    content = nbformat.writes(notebook) + "\n"
    print(f"{NOTEBOOK.name}: {time.perf_counter() - began:.0f} s, {len(content):,} bytes")
    if len(content) > MAX_BYTES:
        raise SystemExit(f"error: the notebook must be at most {MAX_BYTES:,} bytes, got {len(content):,}")
    if not options.quick:
        NOTEBOOK.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
