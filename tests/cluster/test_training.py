"""What a training on a cluster does beyond tests/test_parameter_servers.py."""

import os
import subprocess
import sys
import time

import pytest
from cluster_processes import Cluster, result_of, start_program


@pytest.fixture(scope="module")
def cluster():
    """One worker and two servers, for one chief after the other."""
    with Cluster(workers=1, servers=2) as processes:
        yield processes


def test_rows_and_gradients_travel_in_the_type_asked_for(cluster):
    results = cluster.run_chief("narrow_wire")
    whole = results["float32"]
    assert not whole["kept_whole"]  # they are what is read
    for name, tolerance in (("float16", 2e-3), ("bfloat16", 1e-2)):
        assert results[name]["read_as_sent"], name
        assert results[name]["kept_whole"], name
        assert results[name]["loss"] == pytest.approx(whole["loss"], abs=tolerance), name
        assert results[name]["loss"] != whole["loss"], name
    assert "grads[0, 0] is inf (key 5 of table 'wide')" in results["overflow"]
    assert results["size"] == 0


def test_keras_callbacks_do_on_the_cluster_what_they_do_in_fit(cluster, tmp_path):
    results = cluster.run_chief("callbacks", tmp_path)
    assert results["four"].keys() == results["one"].keys()
    for name, values in results["one"].items():  # sums of losses are in another order
        assert results["four"][name] == pytest.approx(values, rel=1e-6)
    names = ["AUC", "loss"]
    assert results["batches"] == [[batch, names] for batch in (3, 7, 11)] * 2
    assert results["epochs"] == [[0, names], [1, [*names, "val_AUC", "val_loss"]]]
    assert list((tmp_path / "logs" / "train").iterdir())
    # The loss falls, and "max" wants it to grow: stopped after the second epoch, the first one's weights are back.
    assert len(results["stopped"]) == 2
    assert results["restored"]
    assert results["still"]
    assert "IncrementalCheckpoint" in results["file"]


def test_the_example_in_the_readme_trains(tmp_path):
    history, sizes = result_of(start_program(os.environ, "readme_example", tmp_path), 300)
    assert len(history["loss"]) == 2
    assert history["loss"][1] < history["loss"][0]
    assert len(sizes) == 2
    assert len(list(tmp_path.glob("save-*"))) == 2


def test_tf_keras_fit_trains_the_legacy_layer_on_servers_to_the_same_bits(cluster):
    result = cluster.run_chief("tf_keras_fit")
    here, there = result["histories"]
    assert there == here
    assert result["equal"]
    assert all(size > 50 for size in result["sizes"])


def test_servers_end_when_the_process_that_started_them_is_killed():
    program = (
        "import sys, time; from tf_sparse_emb.distribute import LocalCluster; c = LocalCluster(1, 1);"
        "print(c.pid('ps', 0), flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    server_pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{server_pid}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{server_pid}")
