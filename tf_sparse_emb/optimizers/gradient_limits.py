"""Gradients within limits: divided by the loss scale, clipped, and refused unless they are finite.

`grads` are a step's gradients, repeats summed; `targets` what they are of: a `TableGroup` or a plain variable each.
"""

import tensorflow as tf

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
        return tf.clip_by_global_norm(grads, global_clipnorm)[0]
    return grads


def _clip_norms(values, target, clipnorm):
    """Clips the norm of each variable's gradient, each table's of a group."""
    parts = target.split(values) if isinstance(target, TableGroup) else [values]
    parts = [tf.clip_by_norm(part, clipnorm) for part in parts]
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)


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
