"""Every raw op is called with every argument spoilt, in a process of its own: no crash, no changed table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tf_sparse_emb as tse

PROGRAM = Path(__file__).with_name("bad_ops.py")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    folder = tmp_path_factory.mktemp("bad_ops")
    command = [sys.executable, str(PROGRAM), str(folder)]
    # There, because some of the spoilt paths can be written to.
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"ended with {done.returncode} at '{lines[-1:]}': {done.stderr[-3000:]}"
    return json.loads(lines[-1].removeprefix("RESULT"))


def test_every_op_of_the_library_has_arguments_to_spoil(result):
    assert result["ops"] == result["known"]


def test_every_spoilt_argument_is_refused_by_a_text_and_changes_nothing(result):
    print(f"{result['calls']} calls of {len(result['ops'])} ops with a spoilt argument, {result['refused']} refused")
    assert result["problems"] == []
    assert result["refused"] > 1500
