"""FTRL-proximal."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.checks import check_not_negative, check_not_positive
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer


class FtrlRule(Rule):
    """The rule of `Ftrl`."""

    rule = "ftrl"

    def __init__(
        self,
        learning_rate=0.001,
        learning_rate_power=-0.5,
        initial_accumulator_value=0.1,
        l1_regularization_strength=0.0,
        l2_regularization_strength=0.0,
        l2_shrinkage_regularization_strength=0.0,
        beta=0.0,
        weight_decay=None,
        **kwargs,
    ):
        check_not_positive("learning_rate_power", learning_rate_power)
        arguments = {
            "initial_accumulator_value": initial_accumulator_value,
            "l1_regularization_strength": l1_regularization_strength,
            "l2_regularization_strength": l2_regularization_strength,
            "l2_shrinkage_regularization_strength": l2_shrinkage_regularization_strength,
            "beta": beta,
        }
        for name, value in arguments.items():
            check_not_negative(name, value)
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.learning_rate_power = learning_rate_power
        for name, value in arguments.items():
            setattr(self, name, value)

    def _hypers(self):
        return {
            name: getattr(self, name)
            for name in (
                "learning_rate_power",
                "l1_regularization_strength",
                "l2_regularization_strength",
                "l2_shrinkage_regularization_strength",
                "beta",
            )
        }

    def _initial_values(self):
        return {"initial_accumulator_value": self.initial_accumulator_value}

    def _slot_initials(self, row_wise):
        return {"accumulator": (False, self.initial_accumulator_value), "linear": (False, 0.0)}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
        l1, power = self.l1_regularization_strength, -self.learning_rate_power
        a = slots["accumulator"] + tf.square(grads)
        root, old_root = tf.pow(a, power), tf.pow(slots["accumulator"], power)
        z = slots["linear"] + grads + 2.0 * self.l2_shrinkage_regularization_strength * rows
        z -= (root - old_root) / learning_rate * rows
        l2 = self.l2_regularization_strength + self.beta / (2.0 * learning_rate)
        new_rows = tf.math.divide_no_nan(tf.clip_by_value(z, -l1, l1) - z, root / learning_rate + 2.0 * l2)
        return new_rows, {"accumulator": a, "linear": z}

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            **self._hypers(),
            "initial_accumulator_value": self.initial_accumulator_value,
        }


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Ftrl(FtrlRule, SparseOptimizer):
    """FTRL-proximal, which sets weights to zero: for wide linear models.

    With p = -learning_rate_power, l1, l2 the regularization strengths and s the l2 shrinkage:

        a' = a + g^2
        z += g + 2 s w - (a'^p - a^p) / lr w
        w = (clip(z, -l1, l1) - z) / (a'^p / lr + 2 l2 + beta / lr),  0 / 0 = 0
        a = a'

    State: 8 D bytes a row. Only rows that the batch names change. Weight decay multiplies w by 1 - lr wd first, as in
    Keras.

    >>> model.compile(tse.optimizers.Ftrl(0.05, l1_regularization_strength=0.001), "binary_crossentropy")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.001.
        learning_rate_power: float <= 0, default -0.5.
        initial_accumulator_value: float >= 0, a at the start, default 0.1.
        l1_regularization_strength, l2_regularization_strength, l2_shrinkage_regularization_strength, beta: float >= 0,
            default 0.
        weight_decay: float or None (default): wd.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `check_finite`, `name`: see
            `SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.

    Source: `keras.optimizers.Ftrl`; McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013.
    """
