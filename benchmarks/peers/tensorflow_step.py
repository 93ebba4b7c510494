"""A training step as a tf.function, for the contestants in TensorFlow."""

import tensorflow as tf


def use_threads(threads):
    """Before the first op; None leaves TensorFlow as it is."""
    if threads is None:
        return
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def make(task, keys, targets, look_up, variables, optimizer):
    """Returns step(number) -> loss; `look_up` takes a list of F keys tensors, [B] where L is 1, else [B, L].

    It returns [B, D] or [B, L, D] with one feature, and with more a tensor [B, F D]. `variables` is a list, or a
    function that returns it.
    """
    batches = [[tf.constant(feature[:, 0] if task.length == 1 else feature) for feature in batch] for batch in keys]
    targets_size = targets.size
    targets = tf.constant(targets)

    @tf.function
    def train(keys):
        with tf.GradientTape() as tape:
            values = look_up(keys)
            if values.shape.rank == 3:
                values = tf.reduce_mean(values, axis=1)
            # The mean of (values - targets)^2, in fewer passes over memory than tf.reduce_mean and its gradient take.
            loss = 2.0 / targets_size * tf.nn.l2_loss(values - targets)
        trained = variables() if callable(variables) else variables
        optimizer.apply_gradients(zip(tape.gradient(loss, trained), trained))  # noqa: B905, as users write it
        return loss

    return lambda number: float(train(batches[number]))


def pooled(task, values):
    """Pools what layers without pooling return, a list of [B, D] or [B, L, D], and lays it side by side."""
    if task.combiner is not None and task.length > 1:
        reduce = tf.reduce_sum if task.combiner == "sum" else tf.reduce_mean
        values = [reduce(value, axis=1) for value in values]
    return values[0] if len(values) == 1 else tf.concat(values, axis=1)
