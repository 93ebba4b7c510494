"""What an optimizer does once for all replicas of a `tf.distribute` strategy."""

import tensorflow as tf

from tf_sparse_emb.optimizers.table_group import TableGroup


def build_once(optimizer, variables):
    """Builds an optimizer, called by each replica, outside of the function that may be under way."""

    @tf.autograph.experimental.do_not_convert
    def build(strategy):
        with tf.init_scope(), strategy.scope():
            optimizer.build(variables)

    tf.distribute.get_replica_context().merge_call(build)


def sum_over_replicas(grads, targets, apply):
    """Calls `apply` with the gradients of all replicas, once in this process, outside of its replicas.

    Sparse gradients are gathered, in the same order on every worker; dense ones are summed.

    Args:
        grads: list of this replica's gradients, indices not repeated.
        targets: list of what they are of: a `TableGroup` or a plain variable each.
        apply: callable that takes a list of gradients, in which indices repeat, and the list of their variables.
    """

    @tf.autograph.experimental.do_not_convert
    def merge(strategy, sparse, dense):
        gathered, variables = [], []
        for (keys, values, table_splits), target in zip(sparse, sparse_targets, strict=True):
            keys, values = strategy.gather(keys, axis=0), strategy.gather(values, axis=0)
            tables = target.tables if isinstance(target, TableGroup) else [target]
            if len(tables) > 1:
                sizes = strategy.gather(table_splits[0], axis=0)
                replicas = tf.size(sizes) // len(tables)
                table_numbers = tf.repeat(tf.tile(tf.range(len(tables)), [replicas]), sizes)
                keys = tf.dynamic_partition(keys, table_numbers, len(tables))
                values = tf.dynamic_partition(values, table_numbers, len(tables))
            else:
                keys, values = [keys], [values]
            for table, table_keys, table_values in zip(tables, keys, values, strict=True):
                gathered.append(tf.IndexedSlices(table_values, table_keys))
                variables.append(table)
        apply(gathered + _sums(strategy, dense, dense_targets), variables + dense_targets)

    sparse, sparse_targets, dense, dense_targets = [], [], [], []
    for grad, target in zip(grads, targets, strict=True):
        if isinstance(grad, tf.IndexedSlices):
            splits = target.table_splits if isinstance(target, TableGroup) else None
            sizes = [] if splits is None else [splits[1:] - splits[:-1]]
            sparse.append((grad.indices, grad.values, sizes))
            sparse_targets.append(target)
        else:
            dense.append(grad)
            dense_targets.append(target)
    tf.distribute.get_replica_context().merge_call(merge, args=(sparse, dense))


def _sums(strategy, grads, variables):
    """The sums of dense gradients over all replicas."""
    if not grads:
        return []
    pairs = [(grad, variable.value) for grad, variable in zip(grads, variables, strict=True)]
    sums = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
    return [strategy.experimental_local_results(value)[0] for value in sums]  # equal on all devices
