"""Connecting to a cluster."""

import socket
import time

import tensorflow as tf

from tf_sparse_emb.distribute.listen import listen_only_at
from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.servers import set_wire_dtype
from tf_sparse_emb.table_arguments import check_word

WIRE_DTYPES = ("float32", "float16", "bfloat16")


def parameter_server_strategy(cluster_resolver=None, *, wire_dtype="float32", timeout=600.0, variable_partitioner=None):
    """Connects to the workers and parameter servers of a cluster, and returns TensorFlow's strategy for them.

    It is a `tf.distribute.ParameterServerStrategy`, which may be made directly as well. This waits for tasks that are
    late, checks that all of them have loaded the same op library, takes the type in which rows travel, and has the
    server of this process listen at the chief's address alone. Tables of layers that are built in the strategy's scope
    are spread over its servers. Connect before anything else: what was made in this process before, such as a
    `tf.function` that has run, TensorFlow may not find any more.

    ```python
    strategy = tse.distribute.parameter_server_strategy()  # of the cluster that TF_CONFIG describes
    with strategy.scope():
        model = make_model()
        model.compile(tse.optimizers.RowWiseAdam(0.001), "binary_crossentropy", metrics=["AUC"])
    tse.distribute.ParameterServerTrainer(model).fit(dataset_fn, epochs=2, steps_per_epoch=1000)
    ```

    Args:
        cluster_resolver: `tf.distribute.cluster_resolver.ClusterResolver`; None (default): that of TF_CONFIG.
        wire_dtype: "float32" (default), "float16" or "bfloat16": what rows and gradients are between workers and
            servers; in tables they are float32. A gradient beyond float16's range (65504) is refused by the server.
        timeout: float, seconds until all tasks must accept connections, default 600.
        variable_partitioner: of TensorFlow's strategy, for variables that are not tables; default None.

    Returns:
        `tf.distribute.ParameterServerStrategy`.

    Raises:
        TypeError: if cluster_resolver is none.
        ValueError: if an argument is out of its range, or the cluster has no server or no worker.
        TimeoutError: if a task does not accept connections in time.
        RuntimeError: if a task has not loaded this op library, or another version of it.

    Source: Li et al., "Scaling Distributed Machine Learning with the Parameter Server", OSDI 2014.
    """
    check_word("wire_dtype", wire_dtype, WIRE_DTYPES)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
    if cluster_resolver is None:
        cluster_resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if not isinstance(cluster_resolver, tf.distribute.cluster_resolver.ClusterResolver):
        raise TypeError(
            "cluster_resolver must be a tf.distribute.cluster_resolver.ClusterResolver or None, got "
            f"{type(cluster_resolver).__name__}"
        )
    cluster = cluster_resolver.cluster_spec().as_dict()
    for job, what in (("ps", "parameter server"), ("worker", "worker")):
        if not cluster.get(job):
            raise ValueError(
                f"the cluster must have at least one {what} (job '{job}'), got jobs [{', '.join(sorted(cluster))}]"
            )
    _listen(cluster)
    _wait_for(cluster, timeout)
    strategy = tf.distribute.ParameterServerStrategy(cluster_resolver, variable_partitioner=variable_partitioner)
    set_wire_dtype(strategy, tf.as_dtype(wire_dtype))
    check_libraries()
    return strategy


def _listen(cluster):
    """The chief has a server too."""
    for address in cluster.get("chief", []):
        try:
            listen_only_at(address)
        except ValueError as error:
            tf.get_logger().warning("%s. It will listen at all addresses of this machine", error)


def _wait_for(cluster, timeout):
    """Waits until all tasks accept connections."""
    deadline, said = time.monotonic() + timeout, time.monotonic()
    for job in ("ps", "worker"):
        for task, address in enumerate(cluster[job]):
            host, port = address.rsplit(":", 1)
            while True:
                try:
                    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
                    break
                except OSError as error:
                    now = time.monotonic()
                    if now > deadline:
                        raise TimeoutError(
                            f"task {task} of job '{job}' at {address} does not accept connections after {timeout:g} s: "
                            f"{error}"
                        ) from error
                    if now > said + 10:
                        said = now
                        tf.get_logger().warning("waiting for task %d of job '%s' at %s: %s", task, job, address, error)
                    time.sleep(0.2)


def check_libraries():
    """Raises a RuntimeError unless every task has loaded the op library, in the version of this process."""
    own = library.sparse_emb_library_version().numpy().decode()
    for device in tf.config.list_logical_devices("CPU"):
        if "/job:ps/" not in device.name and "/job:worker/" not in device.name:
            continue
        with tf.device(device.name):
            try:
                there = library.sparse_emb_library_version().numpy().decode()
            except tf.errors.NotFoundError as error:
                raise RuntimeError(
                    f"{device.name} has not loaded the ops of tf_sparse_emb (this process: {own}): start it with "
                    "python -m tf_sparse_emb.distribute.server"
                ) from error
        if there != own:
            raise RuntimeError(
                f"{device.name} has another version of tf_sparse_emb's ops: {there}; this process has {own}. Install "
                "the same wheel on all machines"
            )
