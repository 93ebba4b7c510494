"""Dynamic loss scaling for models with tables."""

import keras
import tensorflow as tf

from tf_sparse_emb.data_parallel import data_parallel_strategy
from tf_sparse_emb.optimizers.checks import check_positive
from tf_sparse_emb.optimizers.gradients import map_values
from tf_sparse_emb.optimizers.loading import LoadsBeforeBuild
from tf_sparse_emb.table_arguments import check_positive as check_positive_int


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class LossScaleOptimizer(LoadsBeforeBuild, keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` whose check looks at the values of sparse gradients.

    The policy `mixed_float16` needs it: wrap the optimizer by yourself, else `compile` wraps it in Keras' own, which
    would make the gradient of a table dense. A step with a gradient that is not finite is left out and halves the
    scale.

    >>> model.compile(tse.optimizers.LossScaleOptimizer(tse.optimizers.RowWiseAdam(0.001)), "mse")

    Args:
        inner_optimizer: one of `tse.optimizers`; for a model without tables any Keras optimizer.
        initial_scale: float > 0, default 32768.
        dynamic_growth_steps: int > 0, default 2000: so many finite steps double the scale.
        **kwargs: `name`. What else Keras' optimizers take goes to the inner one.

    Raises:
        ValueError: if an argument is out of its range, or of another type.

    Source: `keras.optimizers.LossScaleOptimizer`; Micikevicius et al., "Mixed precision training", ICLR 2018.
    """

    def __init__(self, inner_optimizer, initial_scale=2.0**15, dynamic_growth_steps=2000, **kwargs):
        is_optimizer = isinstance(inner_optimizer, keras.optimizers.Optimizer)
        if not is_optimizer or isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "inner_optimizer must be an optimizer such as tse.optimizers.RowWiseAdam(0.001), that is no "
                f"LossScaleOptimizer itself, got {inner_optimizer!r}"
            )
        check_positive("initial_scale", initial_scale)
        check_positive_int("dynamic_growth_steps", dynamic_growth_steps)
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, **kwargs)

    def build(self, var_list):
        """Builds the inner optimizer too."""
        if (strategy := data_parallel_strategy()) is not None:
            raise ValueError(
                f"LossScaleOptimizer is not supported with several replicas ({type(strategy).__name__}), of which each "
                "would decide by its own gradients. What works: the policy mixed_bfloat16, or loss_scale_factor"
            )
        super().build(var_list)
        self._take_loaded()

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
