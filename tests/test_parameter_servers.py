"""Tables spread over parameter servers, in real processes; tests/cluster has the failures and the long runs."""

import pytest
from cluster_processes import Cluster


def test_one_worker_and_two_servers_train_as_one_process_does_to_the_bit():
    with Cluster(workers=1, servers=2) as cluster:
        results = cluster.run_chief("bit_equality", '["RowWiseAdam"]')
    for result in results.values():
        assert result["cluster"] == result["one"]
        assert all(size > 50 for size in result["sizes"])
