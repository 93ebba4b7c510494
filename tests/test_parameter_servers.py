"""Tables spread over parameter servers, in real processes; tests/cluster has the failures and the long runs."""

import json
import os

import pytest
from cluster_processes import Cluster, listeners

from tf_sparse_emb.distribute import server


@pytest.fixture(scope="module")
def cluster():
    """One worker and two servers, for one chief after the other; they have one CPU, as a container may."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        processes = Cluster(workers=1, servers=2)
    finally:
        os.sched_setaffinity(0, cpus)
    with processes:
        yield processes


def test_one_worker_and_two_servers_train_as_one_process_does_to_the_bit(cluster):
    results = cluster.run_chief("bit_equality", '["RowWiseAdam"]')
    for result in results.values():
        assert result["cluster"] == result["one"]
        assert all(size > 50 for size in result["sizes"])


def test_methods_of_a_table_on_servers_return_what_those_of_one_here_do(cluster):
    here, there = cluster.run_chief("methods")
    assert there == here


def test_tables_are_refused_where_they_are_not(cluster):
    result = cluster.run_chief("wrong_places")
    expected = {
        "of this process": "RuntimeError: table 'here' is of this process, and workers of a ParameterServerStrategy",
        "max_rows": "ValueError: max_rows must be at least 1 for each of 2 servers, got 1",
        "save": "RuntimeError: table 'there' is spread over 2 servers and cannot be saved in this form. tse.saving",
        "load": "RuntimeError: table 'there' is spread over 2 servers and cannot be loaded from this form. tse.saving",
        "export in a function": "RuntimeError: in user code:",
        "uncompiled": "ValueError: model 'sequential' must be compiled with an optimizer and a loss",
        "no model": "TypeError: model must be a keras.Model, got int",
        "other scope": "ValueError: model must be made in the scope of a tf.distribute.ParameterServerStrategy, got",
        "dataset": "ValueError: dataset_fn must be a function of a tf.distribute.InputContext that returns a tf.data",
        "steps": "ValueError: steps_per_epoch must be a multiple of steps_per_execution = 4, got 6",
        "epochs": "ValueError: epochs must be a positive int, got 0",
    }
    assert result["errors"].keys() == expected.keys()
    for name, text in expected.items():
        assert result["errors"][name].startswith(text), (name, result["errors"][name])
    assert result["size"] == 2


def test_all_processes_listen_where_tf_config_says_and_nowhere_else(cluster):
    loopback = "0000000000000000FFFF00000100007F"  # ::ffff:127.0.0.1
    assert cluster.run_chief("listening") == [loopback]
    for address in cluster.spec["worker"] + cluster.spec["ps"]:
        assert listeners(int(address.rsplit(":", 1)[1])) == [loopback]


CLUSTER = {"worker": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"]}


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (None, "TF_CONFIG must describe the cluster"),
        ("{", "TF_CONFIG must be {"),
        ({"cluster": CLUSTER}, "TF_CONFIG must be {"),
        ({"cluster": CLUSTER, "task": {"type": "chief", "index": 0}}, "must be of type worker or ps, got 'chief'"),
        ({"cluster": CLUSTER, "task": {"type": "ps", "index": 1}}, "must have task 1 of job 'ps', got ['127.0.0.1:2']"),
        ({"cluster": CLUSTER, "task": {"type": "ps", "index": -1}}, "must have task -1 of job 'ps'"),
        (
            {"cluster": {**CLUSTER, "ps": ["192.0.2.77:2"]}, "task": {"type": "ps", "index": 0}},
            "the server at 192.0.2.77:2 cannot listen at 192.0.2.77, which must be of this machine",
        ),
    ],
)
def test_the_server_command_names_what_is_wrong_with_tf_config(config, error, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    assert server.main([]) == 2
    assert error in capsys.readouterr().err
