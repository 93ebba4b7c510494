"""With one worker, a run on any number of servers is that of one process, to the bit."""

import json

import pytest
from cluster_processes import Cluster

OPTIMIZERS = ["RowWiseAdam", "RowWiseAdagrad", "SGD", "Adagrad", "Adam", "Ftrl", "RMSprop", "AdagradDecay"]


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_each_optimizer_trains_on_servers_as_in_one_process(servers):
    with Cluster(workers=1, servers=servers) as cluster:
        results = cluster.run_chief("bit_equality", json.dumps(OPTIMIZERS))
    assert results.keys() == set(OPTIMIZERS)
    for name, result in results.items():
        assert result["cluster"] == result["one"], name
        assert len(result["sizes"]) == servers
        assert min(result["sizes"]) > 0.5 * max(result["sizes"])
