"""Where memory runs out an op is a ResourceExhaustedError, and the table stays as it was, and of use.

out_of_memory.py does it in a process of its own, whose address space is bounded.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference

import tf_sparse_emb as tse

PROGRAM = Path(__file__).with_name("out_of_memory.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("memory"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT"))


def _assert_refused(outcomes, where):
    """All rooms but those that were enough gave a ResourceExhaustedError, and there were some."""
    refused = {room: outcome for room, outcome in outcomes.items() if outcome != "done"}
    assert refused, where
    for room, outcome in refused.items():
        assert outcome.startswith(("ResourceExhaustedError", "MemoryError")), (where, room, outcome)
    return refused.values()


@pytest.mark.parametrize("storage", reference.STORAGES)
def test_a_table_that_cannot_grow_says_so_and_stays_as_it_was(results, storage):
    for name, outcomes in results[storage].items():
        refused = _assert_refused(outcomes, (storage, name))
        assert "done" in outcomes.values(), (storage, name, outcomes)
        # Before a snapshot comes to the table, NumPy has no memory for it.
        assert name == "assign" or any("out of memory in" in text for text in refused), (storage, name, outcomes)


def test_scratch_memory_that_is_not_there_ends_the_op_and_not_the_process(results):
    for name, outcomes in results["no table"].items():
        _assert_refused(outcomes, name)
    said = " ".join(text for outcomes in results["no table"].values() for text in outcomes.values())
    assert "out of memory in op SparseEmb>EmbeddingKeyDedup" in said
