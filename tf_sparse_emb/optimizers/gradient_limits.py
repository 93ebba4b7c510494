"""Gradients within limits: divided by the loss scale, clipped, and refused unless they are finite.

`grads` are a step's gradients, repeats summed; `targets` what they are of: a `TableGroup` or a plain variable each.
"""

import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.ops.embedding_update import check_finite
from tf_sparse_emb.optimizers.gradients import map_values, path_of
from tf_sparse_emb.optimizers.table_group import TableGroup


def unscale(grads, factor):
    """Divides by the loss scale, if there is one."""
    if factor is None:
        return grads
    return [map_values(lambda values: values / factor, grad) for grad in grads]


def clip(grads, targets, clipnorm, clipvalue, global_clipnorm):
    """Clips by one of the three, or returns `grads` itself if none is given."""
    if clipnorm:
        return [
            map_values(lambda values, target=target: _clip_norms(values, target, clipnorm), grad)
            for grad, target in zip(grads, targets, strict=True)
        ]
    if clipvalue:
        return [map_values(lambda values: tf.clip_by_value(values, -clipvalue, clipvalue), grad) for grad in grads]
    if global_clipnorm:
        values = [grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads]
        norm = tf.sqrt(sum(tf.cast(_sum_of_squares(value), tf.float32) for value in values))
        # As in TensorFlow and Keras, a norm that is not finite makes all gradients nan.
        scale = global_clipnorm / tf.maximum(norm, global_clipnorm) + (norm - norm)
        return [map_values(lambda values: values * tf.cast(scale, values.dtype), grad) for grad in grads]
    return grads


def _clip_norms(values, target, clipnorm):
    """Clips the norm of each variable's gradient, each table's of a group."""
    clipped = []
    for part in target.split(values) if isinstance(target, TableGroup) else [values]:
        norm = tf.sqrt(_sum_of_squares(part))
        clipped.append(part * tf.cast(clipnorm / tf.maximum(norm, clipnorm), part.dtype))
    return clipped[0] if len(clipped) == 1 else tf.concat(clipped, 0)


def _sum_of_squares(values):
    """sum(values^2), a float32 or float64 scalar.

    TensorFlow's own sum depends in its last bits on the number of threads; that of `embedding_grad_reduce`, here of
    256 columns and then of these, does not.
    """
    if values.dtype == tf.float64:
        return tf.reduce_sum(tf.square(values))
    flat = tf.reshape(tf.square(tf.cast(values, tf.float32)), [-1])
    columns = tf.reshape(tf.pad(flat, [[0, -tf.size(flat) % 256]]), [-1, 256])
    sums = ops.embedding_grad_reduce(columns, inverse=tf.zeros_like(columns[:, 0], tf.int32), num_unique=1)
    sums = tf.reshape(sums, [256, 1])
    return ops.embedding_grad_reduce(sums, inverse=tf.zeros([256], tf.int32), num_unique=1)[0, 0]


def finite_checks(grads, targets):
    """Ops that fail unless all gradients are finite; in eager mode they have failed by now."""
    checks = []
    for grad, target in zip(grads, targets, strict=True):
        if isinstance(target, TableGroup):
            names = [path_of(table) for table in target.tables]
            checks.append(check_finite(grad.indices, target.table_splits, grad.values, names))
        else:
            values = grad.values if isinstance(grad, tf.IndexedSlices) else grad
            message = f"the gradient of variable '{path_of(target)}' is not finite"
            checks.append(tf.debugging.assert_all_finite(values, message))
    return [check for check in checks if check is not None]
