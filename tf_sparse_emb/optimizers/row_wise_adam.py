"""Row-wise Adam."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.checks import check_beta, check_positive
from tf_sparse_emb.optimizers.gradients import mean_square_of_rows, per_row
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer


class RowWiseAdamRule(Rule):
    """The rule of `RowWiseAdam`."""

    rule = "row_wise_adam"

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=None, **kwargs):
        check_beta("beta_1", beta_1)
        check_beta("beta_2", beta_2)
        check_positive("epsilon", epsilon)
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _hypers(self):
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

    def _slot_initials(self, row_wise):
        return {"momentum": (False, 0.0), "velocity": (row_wise, 0.0)}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
        t = tf.cast(self.iterations + 1, grads.dtype)
        m_correction = 1.0 - tf.pow(tf.cast(self.beta_1, grads.dtype), t)
        v_correction = 1.0 - tf.pow(tf.cast(self.beta_2, grads.dtype), t)
        m = slots["momentum"] + (grads - slots["momentum"]) * (1.0 - self.beta_1)
        square = mean_square_of_rows(grads) if row_wise else tf.square(grads)
        v = slots["velocity"] + (square - slots["velocity"]) * (1.0 - self.beta_2)
        if row_wise:
            rate = learning_rate / m_correction / (tf.sqrt(v / v_correction) + self.epsilon)
            delta = per_row(rate, grads) * m
        else:
            delta = m * (learning_rate * tf.sqrt(v_correction) / m_correction) / (tf.sqrt(v) + self.epsilon)
        return rows - delta, {"momentum": m, "velocity": v}

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class RowWiseAdam(RowWiseAdamRule, SparseOptimizer):
    """Adam with one second moment a row.

    On tables, and on plain variables that match `row_wise_variables`, with t the optimizer's step from 1:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) mean_d(g^2)
        w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + lr wd w

    State: 4 D + 4 bytes a row. Only rows of the batch change: this is the lazy form, in which the moments of a row
    decay when the row is named, not at every step (TensorFlow 1's Adam decayed all rows at every step). Other variables
    (the dense part of the model) get the formula of `keras.optimizers.Adam`:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps) + lr wd w

    and with an `IndexedSlices` gradient touch only the rows named.

    >>> model.compile(tse.optimizers.RowWiseAdam(0.001), "binary_crossentropy")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.001.
        beta_1: float in [0, 1), default 0.9.
        beta_2: float in [0, 1), default 0.999.
        epsilon: float > 0, default 1e-8.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `row_wise_variables`, `check_finite`,
            `name`: see `SparseOptimizer`.

    Raises:
        ValueError: if beta_1, beta_2 or epsilon is out of its range.

    Source: FBGEMM's PARTIAL_ROWWISE_ADAM (Meta), which exists on GPU only; Kingma and Ba, "Adam", ICLR 2015.
    """
