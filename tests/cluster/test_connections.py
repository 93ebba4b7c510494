"""Connecting to a cluster, and what cannot be connected to."""

import shutil
from pathlib import Path

from cluster_processes import Cluster

import tf_sparse_emb

WITHOUT_OPS = (
    "-c",
    "import json, os, tensorflow as tf; c = json.loads(os.environ['TF_CONFIG']); tf.distribute.Server("
    "c['cluster'], job_name=c['task']['type'], task_index=c['task']['index'], protocol='grpc').join()",
)


def test_a_server_that_is_late_is_waited_for():
    with Cluster(workers=1, servers=1, start=False) as cluster:
        cluster.start("worker", 0)
        chief = cluster.start_chief("methods")
        line = next(line for line in chief.stderr if "waiting for task" in line)
        assert "waiting for task 0 of job 'ps' at 127.0.0.1:" in line
        cluster.start("ps", 0)
        out, error = chief.communicate(timeout=300)
        assert chief.returncode == 0, error[-3000:]


def test_a_server_that_never_comes_is_named():
    with Cluster(workers=1, servers=2, start=False) as cluster:
        cluster.start("worker", 0)
        cluster.start("ps", 0)
        error = cluster.run_chief("refused")
    assert error.startswith("TimeoutError: task ")
    assert "does not accept connections after 3 s" in error


def test_a_server_with_other_ops_is_refused_with_both_versions(tmp_path):
    package = Path(tf_sparse_emb.__file__).parent
    shutil.copytree(package, tmp_path / "tf_sparse_emb", ignore=shutil.ignore_patterns("__pycache__"))
    ops = tmp_path / "tf_sparse_emb" / "_ops.so"
    content = ops.read_bytes()
    version = tf_sparse_emb.__version__.encode()
    assert content.count(version + b" for TensorFlow") == 1
    ops.write_bytes(content.replace(version + b" for TensorFlow", b"9.9.9 for TensorFlow"))
    with Cluster(workers=1, servers=1, start=False) as cluster:
        cluster.start("worker", 0)
        cluster.start("ps", 0, environment={"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})
        error = cluster.run_chief("refused", 60)
    assert (
        "/job:ps/replica:0/task:0/device:CPU:0 has another version of tf_sparse_emb's ops: 9.9.9 for TensorFlow"
        in error
    )
    assert f"this process has {tf_sparse_emb.__version__} for TensorFlow" in error


def test_a_task_without_the_ops_is_refused():
    with Cluster(workers=1, servers=1, start=False) as cluster:
        cluster.start("worker", 0)
        cluster.start("ps", 0, command=WITHOUT_OPS)
        error = cluster.run_chief("refused", 60)
    assert "RuntimeError: /job:" in error
    assert "has not loaded the ops of tf_sparse_emb" in error
    assert "python -m tf_sparse_emb.distribute.server" in error


def test_a_cluster_needs_servers_and_workers():
    for job, missing in (("ps", "parameter server (job 'ps')"), ("worker", "worker (job 'worker')")):
        with Cluster(workers=1, servers=1, start=False) as cluster:
            del cluster.spec[job]
            error = cluster.run_chief("refused")
        assert error.startswith(f"ValueError: the cluster must have at least one {missing}, got jobs [")
