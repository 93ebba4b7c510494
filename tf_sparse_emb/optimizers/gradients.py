"""Gradients and rows of variables, as the rules work on them."""

import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.ops.embedding_lookup import DistinctSlices


def mean_square_of_rows(grads):
    """mean_d(g^2) of grads [U, ...]: [U]."""
    return tf.reduce_mean(tf.square(grads), axis=list(range(1, grads.shape.rank)))


def per_row(values, grads):
    """Reshapes values [U] so that they multiply grads [U, ...] row by row."""
    if grads.shape.rank == 0:
        return values
    return tf.reshape(values, [-1] + [1] * (grads.shape.rank - 1))


def map_values(fn, grad):
    """fn of a gradient, or of the values of a sparse one."""
    if isinstance(grad, tf.IndexedSlices):
        return tf.IndexedSlices(fn(grad.values), grad.indices, grad.dense_shape)
    return fn(grad)


def sum_repeats(grad):
    """Sums the rows of repeated indices, in order of occurrence; other gradients pass."""
    if not isinstance(grad, tf.IndexedSlices) or isinstance(grad, DistinctSlices):
        return grad
    unique, inverse, _ = ops.embedding_key_dedup(grad.indices)
    if grad.dtype in (tf.float32, tf.float16, tf.bfloat16):
        rows = _as_rows(tf.cast(grad.values, tf.float32))
        summed = ops.embedding_grad_reduce(rows, inverse=inverse, num_unique=tf.size(unique))
        shape = tf.concat([tf.shape(unique), tf.shape(grad.values)[1:]], 0)
        summed = tf.ensure_shape(tf.reshape(summed, shape), [None, *grad.values.shape[1:]])
    else:
        summed = tf.math.unsorted_segment_sum(grad.values, inverse, tf.size(unique))
    return tf.IndexedSlices(summed, unique, grad.dense_shape)


def gather(variable, indices):
    """The rows of a variable at indices; touches no others."""
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=indices, dtype=variable.dtype)


def scatter_update(variable, indices, rows):
    """Sets the rows of a variable at indices; touches no others."""
    return tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=indices, updates=rows)


def _as_rows(values):
    """[U, ...] as [U, D]."""
    return tf.reshape(values, [tf.shape(values)[0], tf.reduce_prod(tf.shape(values)[1:])])


def path_of(variable):
    """The path of a Keras variable, or the name of one of TensorFlow's."""
    return getattr(variable, "path", None) or variable.name.split(":")[0]
