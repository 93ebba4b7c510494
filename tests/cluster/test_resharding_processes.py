"""Tables saved by servers come back on more servers, and in one process."""

from cluster_processes import Cluster
from cluster_programs import reshard
from incremental_cases import kinds_of


def test_two_servers_then_three_then_one_process_train_as_one_process_does(tmp_path, monkeypatch):
    """In other processes, in other working directories; the dense variables are on the servers as well."""
    monkeypatch.chdir(tmp_path)
    with Cluster(workers=1, servers=2) as cluster:
        first = cluster.run_chief("reshard", tmp_path, 2)
    with Cluster(workers=1, servers=3) as cluster:
        second = cluster.run_chief("reshard", tmp_path, 2)
    assert second["restored"] == first["trained"]
    assert (first["files"], second["files"]) == (2, 3)
    assert kinds_of(tmp_path / "saves") == "FIFI"
    third = reshard(tmp_path, 1, "here")
    uninterrupted = reshard(tmp_path / "other", 5, "here")
    assert third["restored"] == second["trained"]
    assert third["trained"] == uninterrupted["trained"]
    assert third["trained"] != third["restored"]
