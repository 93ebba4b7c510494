"""Dynamic loss scaling for models with tables."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.gradients import map_values


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` whose check looks at the values of sparse gradients.

    The policy `mixed_float16` needs it: wrap the optimizer by yourself, else `compile` wraps it in Keras' own, which
    would make the gradient of a table dense. A step with a gradient that is not finite is left out and halves the
    scale.

    >>> model.compile(tse.optimizers.LossScaleOptimizer(tse.optimizers.RowWiseAdam(0.001)), "mse")

    Args:
        inner_optimizer: one of `tse.optimizers`.
        initial_scale: float, default 32768.
        dynamic_growth_steps: int, default 2000: so many finite steps double the scale.
        **kwargs: `name`.

    Source: `keras.optimizers.LossScaleOptimizer`; Micikevicius et al., "Mixed precision training", ICLR 2018.
    """

    def check_finite(self, grads):
        """Returns whether all gradients are finite."""
        values = [grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads if grad is not None]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])

    # Keras' own asks each variable whether its gradient overwrites it, which a table refuses to answer.
    def _stateful_handle_finite_grads(self, grads, trainable_variables):
        scale = tf.convert_to_tensor(self.dynamic_scale)
        unscaled = [
            None if grad is None else map_values(lambda values: tf.cast(values, tf.float32) / scale, grad)
            for grad in grads
        ]
        self.inner_optimizer.apply(unscaled, trainable_variables=trainable_variables)
        counter = tf.convert_to_tensor(self.step_counter) + 1
        grows = counter >= self.dynamic_growth_steps
        self.step_counter.assign(tf.where(grows, tf.zeros_like(counter), counter))
        self.dynamic_scale.assign(tf.where(grows, 2.0 * scale, scale))
