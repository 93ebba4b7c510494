"""Row-wise Adagrad."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.checks import check_not_negative, check_positive
from tf_sparse_emb.optimizers.gradients import mean_square_of_rows, per_row
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer


class RowWiseAdagradRule(Rule):
    """The rule of `RowWiseAdagrad`."""

    rule = "row_wise_adagrad"

    def __init__(self, learning_rate=0.001, initial_accumulator_value=0.0, epsilon=1e-8, weight_decay=None, **kwargs):
        check_not_negative("initial_accumulator_value", initial_accumulator_value)
        check_positive("epsilon", epsilon)
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def _hypers(self):
        return {"epsilon": self.epsilon}

    def _initial_values(self):
        return {"initial_accumulator_value": self.initial_accumulator_value}

    def _slot_initials(self, row_wise):
        return {"accumulator": (row_wise, self.initial_accumulator_value)}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
        if row_wise:
            a = slots["accumulator"] + mean_square_of_rows(grads)
            return rows - per_row(learning_rate / (tf.sqrt(a) + self.epsilon), grads) * grads, {"accumulator": a}
        a = slots["accumulator"] + tf.square(grads)
        return rows - learning_rate * grads / tf.sqrt(a + self.epsilon), {"accumulator": a}

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class RowWiseAdagrad(RowWiseAdagradRule, SparseOptimizer):
    """Adagrad with one accumulator a row.

    On tables, and on plain variables that match `row_wise_variables`:

        a += mean_d(g^2)
        w -= lr g / (sqrt(a) + eps) + lr wd w

    State: 4 bytes a row. Rows that no key of the batch names do not change. Other variables (the dense part of the
    model) get the element-wise formula of `keras.optimizers.Adagrad`:

        a += g^2
        w -= lr g / sqrt(a + eps) + lr wd w

    >>> model.compile(tse.optimizers.RowWiseAdagrad(0.05), "binary_crossentropy")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.001.
        initial_accumulator_value: float >= 0, a at the start, default 0.
        epsilon: float > 0, default 1e-8.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `row_wise_variables`, `check_finite`,
            `name`: see `SparseOptimizer`.

    Raises:
        ValueError: if initial_accumulator_value is negative or epsilon is not positive.

    Source: FBGEMM's EXACT_ROWWISE_ADAGRAD (Meta), whose a is that after the step; Duchi, Hazan and Singer, "Adaptive
    subgradient methods", JMLR 2011.
    """
