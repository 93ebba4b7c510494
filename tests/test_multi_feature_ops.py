"""The ops that many features share: attributes that do not fit, and one thread against four, in their own processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)


BAD_ATTRIBUTES = {
    "no_names": ({"names": []}, "names must have one element for each of 1 features, got 0"),
    "names_too_many": ({"names": ["a", "b"]}, "names must have one element for each of 1 features, got 2"),
    "no_kinds": ({"kinds": []}, "kinds must have one element for each of 1 features, got 0"),
    "an_unknown_kind": ({"kinds": ["sparse"]}, "sparse.*each.*last_axis.*ragged"),
    "skipped_counts": (
        {"skipped": [1, 2], "skipped_counts": [1, 1]},
        "skipped_counts must have one element for each of 1 features, got 2",
    ),
    "skipped_counts_negative": ({"skipped_counts": [-1]}, "skipped_counts must not be negative, got -1"),
    "skipped_too_many": (
        {"skipped": [1, 2], "skipped_counts": [1]},
        "skipped must have the sum of skipped_counts, 1 elements, got 2",
    ),
    "skipped_too_few": (
        {"skipped": [1], "skipped_counts": [3]},
        "skipped must have the sum of skipped_counts, 3 elements, got 1",
    ),
    "skipped_without_counts": ({"skipped": [1]}, "skipped must have the sum of skipped_counts, 0 elements, got 1"),
    "max_lengths": ({"max_lengths": [1, 1]}, "max_lengths must have one element for each of 1 features, got 2"),
    "input_dims": ({"input_dims": [9, 9]}, "input_dims must have one element for each of 1 features, got 2"),
    "no_row_splits": ({"kinds": ["ragged"]}, "row_splits must have one tensor for each of 1 ragged features, got 0"),
    "row_splits_too_many": (
        {"row_splits": [[0, 3]]},
        "row_splits must have one tensor for each of 0 ragged features, got 1",
    ),
    "no_features": ({"keys": [], "names": [], "kinds": []}, "minimum"),
}
GOOD_ATTRIBUTES = {"keys": [[1, 2, 3]], "row_splits": [], "names": ["f"], "kinds": ["each"]}


@pytest.mark.parametrize("case", BAD_ATTRIBUTES)
def test_attributes_that_do_not_fit_are_an_error_when_a_graph_is_made(case):
    attributes, match = BAD_ATTRIBUTES[case]
    with pytest.raises(BAD_ARGUMENT, match=f"(?s){match}"):
        tf.function(lambda: library.sparse_emb_embedding_bags(**GOOD_ATTRIBUTES | attributes))()


# In processes of their own.

EAGER_SCRIPT = """
import json, os, sys
import tensorflow as tf
import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

def dedup(splits, tables):
    library.sparse_emb_embedding_key_dedup(keys=[1, 2, 3], feature_splits=splits, tables=tables)

def look_up(splits):
    tables = [tse.EmbeddingVariable(2, seed=1) for _ in range(2)]
    library.sparse_emb_embedding_lookup(
        tables=[table.shards[0].resource_handle for table in tables], keys=[1, 2], table_splits=splits,
        anchors=[table.value for table in tables], insert=False, missing="initial",
    )

CALLS = {"bags": library.sparse_emb_embedding_bags, "dedup": dedup, "look_up": look_up}
for name, call, arguments in json.loads(sys.argv[1]):
    # A call that crashes must not end the others.
    child = os.fork()
    if child == 0:
        try:
            CALLS[call](**arguments)
            message = "no error"
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            message = str(error)
        print("RESULT", json.dumps([name, message]), flush=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        print("RESULT", json.dumps([name, f"crash, status {status}"]), flush=True)
"""
EAGER_CASES = {
    # the call, its arguments, what the error must name
    **{
        f"bags-{case}": ("bags", GOOD_ATTRIBUTES | attributes, match.split()[0])
        for case, (attributes, match) in BAD_ATTRIBUTES.items()
    },
    "dedup-a_table_beyond": ("dedup", {"splits": [[0, 1, 3]], "tables": [0, 2]}, "tables"),
    "dedup-a_negative_table": ("dedup", {"splits": [[0, 1, 3]], "tables": [0, -1]}, "tables"),
    "dedup-no_feature_splits": ("dedup", {"splits": [], "tables": [0, 0]}, "feature_splits"),
    "look_up-no_table_splits": ("look_up", {"splits": []}, "table_splits"),
}
THREADS_SCRIPT = """
import hashlib, sys
import numpy as np
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_bags import FeatureKeys, embedding_bags
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table
from tf_sparse_emb.ops.embedding_lookup import lookup_tables

rng = np.random.default_rng(0)
tables = [0, 1, 0, 2, 1]
features = [
    FeatureKeys(str(f), rng.zipf(1.3, (4096, 20)) * 0x9E3779B97F4A7C1, "last_axis", max_length=20 - f) for f in range(5)
]
bags = embedding_bags(features)
unique_keys, inverse, counts, table_splits = key_dedup_by_table(bags.keys, bags.feature_splits, tables)
variables = [tse.EmbeddingVariable(17, seed=t) for t in range(3)]
rows = lookup_tables(variables, unique_keys, table_splits, insert=True, missing="initial")
pooled = tse.ops.embedding_max_pool(rows, inverse, bags.bag_splits)
digest = hashlib.sha256()
for tensor in (*bags, unique_keys, inverse, counts, table_splits, rows, pooled):
    digest.update(tensor.numpy().tobytes())
print("RESULT", digest.hexdigest(), int(table_splits[-1]))
"""


def _run(script, *arguments):
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]


@pytest.fixture(scope="module")
def eager_results():
    calls = [(case, call, arguments) for case, (call, arguments, _) in EAGER_CASES.items()]
    return dict(json.loads(line) for line in _run(EAGER_SCRIPT, json.dumps(calls)))


@pytest.mark.parametrize("case", EAGER_CASES)
def test_attributes_that_do_not_fit_are_an_error_in_eager_mode(eager_results, case):
    """No shape function runs there: the kernel must refuse them too, and not read past its inputs."""
    name = EAGER_CASES[case][2]
    assert re.search(name, eager_results[case]), eager_results[case]


def test_one_and_four_threads_are_bit_equal():
    (one,), (four,) = _run(THREADS_SCRIPT, "1"), _run(THREADS_SCRIPT, "4")
    assert one == four
    assert int(one.split()[1]) > 3000
