"""Adagrad."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.checks import check_not_negative, check_positive
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer


class AdagradRule(Rule):
    """The rule of `Adagrad`."""

    rule = "adagrad"

    def __init__(self, learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7, weight_decay=None, **kwargs):
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
        return {"accumulator": (False, self.initial_accumulator_value)}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
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
class Adagrad(AdagradRule, SparseOptimizer):
    """Adagrad, element by element, on tables, sparse and dense variables.

        a += g^2
        w -= lr g / sqrt(a + eps) + lr wd w

    State: 4 D bytes a row. Only rows that the batch names change. `RowWiseAdagrad` keeps one accumulator a row.

    >>> model.compile(tse.optimizers.Adagrad(0.05), "binary_crossentropy")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.001.
        initial_accumulator_value: float >= 0, a at the start, default 0.1.
        epsilon: float > 0, default 1e-7.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `check_finite`, `name`: see
            `SparseOptimizer`.

    Raises:
        ValueError: if initial_accumulator_value is negative or epsilon is not positive.

    Source: `keras.optimizers.Adagrad`; Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 2011.
    """
