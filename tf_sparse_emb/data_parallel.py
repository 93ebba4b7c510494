"""Synchronous data parallelism: which strategies of `tf.distribute` tables work under, and what they cannot do there.

A process has one table, whatever its number of replicas, and each worker process has its own. A step updates each
once, by the gradients of all replicas (`optimizers/replica_sum.py`), so that the workers' tables stay equal.
"""

import warnings

import tensorflow as tf

from tf_sparse_emb.servers import is_parameter_server_strategy


def data_parallel_strategy():
    """The strategy of several replicas that is in use here, or None.

    Raises:
        ValueError: if tables cannot work under it.
    """
    strategy = tf.distribute.get_strategy()
    if is_parameter_server_strategy(strategy):
        return None
    mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    is_single = strategy.num_replicas_in_sync == 1 and not isinstance(strategy, tf.distribute.TPUStrategy)
    if not is_single and not isinstance(strategy, mirrored):
        raise ValueError(
            "embedding tables with several replicas need tf.distribute.MirroredStrategy or "
            f"MultiWorkerMirroredStrategy, got {type(strategy).__name__}"
        )
    return None if is_single else strategy


def num_workers(strategy):
    """How many processes a strategy's replicas are in."""
    return strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)


def check_buildable(config):
    """Raises a ValueError if the table of a `tse.TableConfig` cannot be built in the strategy that is in use."""
    strategy = data_parallel_strategy()
    if strategy is None:
        return
    if not tf.distribute.in_cross_replica_context():
        raise ValueError(
            f"table '{config.name}' cannot be built by a replica: build the model before strategy.run, under "
            "strategy.scope(), by calling it on a batch or with keras.Input"
        )
    if num_workers(strategy) > 1 and type(strategy).reduce is tf.distribute.MultiWorkerMirroredStrategy.reduce:
        warnings.warn(
            "Keras 3's fit, evaluate and predict fail under tf.distribute.MultiWorkerMirroredStrategy, with any model; "
            "they run under tse.distribute.MultiWorkerMirroredStrategy",
            stacklevel=2,
        )
    # What looks at the keys of one call would see those of one replica.
    if config.embeddings_regularizer is not None:
        _refuse(strategy, config.name, "embeddings_regularizer", "weight_decay of the optimizer")
    if config.scale_grad_by_freq:
        _refuse(strategy, config.name, "scale_grad_by_freq=True", "one process")
    check_trainable(strategy, [config], [config.name])


def check_trainable(strategy, tables, names):
    """Raises a ValueError if workers would not agree on what lookups change in tables, of the variables or configs."""
    if num_workers(strategy) == 1:
        return
    for table, name in zip(tables, names, strict=True):
        if table.max_norm is not None:
            _refuse(strategy, name, "max_norm", "embeddings_constraint=keras.constraints.MaxNorm(..., axis=1)")
        if table.counts is not None:
            _refuse(strategy, name, "counts", "one process, or MirroredStrategy")


def _refuse(strategy, name, argument, instead):
    raise ValueError(
        f"table '{name}': {argument} is not supported with {strategy.num_replicas_in_sync} replicas in "
        f"{num_workers(strategy)} processes ({type(strategy).__name__}), because each would apply it to its own part "
        f"of the batch. What works: {instead}"
    )


def check_agreement(strategy, tables):
    """Raises a ValueError, on every worker alike, unless the tables of all are equal; the order of rows may differ."""
    if not tables or num_workers(strategy) == 1:
        return
    with tf.init_scope():
        mine = tf.stack([_fingerprint(table) for table in tables])[tf.newaxis]
        by_replica = tf.function(lambda: strategy.gather(mine, axis=0))().numpy()
    for replica, theirs in enumerate(by_replica):
        for table, (seed, rows, content), first in zip(tables, theirs, by_replica[0], strict=True):
            if seed != first[0]:
                raise ValueError(
                    f"table '{table.path}' must have the same seed on every worker, got {first[0]} at replica 0 and "
                    f"{seed} at replica {replica}: give it a seed, or call keras.utils.set_random_seed on every worker"
                )
            if (rows, content) != tuple(first[1:]):
                raise ValueError(
                    f"table '{table.path}' must have the same rows on every worker, but those of replica 0, {first[1]} "
                    f"rows, and of replica {replica}, {rows} rows, differ: load the same files on every worker"
                )


def _fingerprint(table):
    """int64 [3]: the seed, the number of rows, and a sum over all keys and their rows and state."""
    total = tf.constant(0, tf.int64)
    for keys, rows in table.export_chunks(1 << 16, with_state=True):
        parts = [tf.bitcast(keys, tf.uint8), tf.reshape(tf.bitcast(rows, tf.uint8), [len(keys), -1])]
        total += tf.reduce_sum(tf.bitcast(tf.fingerprint(tf.concat(parts, 1)), tf.int64))
    return tf.stack([tf.constant(table.seed, tf.int64), table.size(), total])
