"""Lazy Adam."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.checks import check_beta, check_positive
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer
from tf_sparse_emb.table_arguments import check_flag


class AdamRule(Rule):
    """The rule of `Adam`."""

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        weight_decay=None,
        **kwargs,
    ):
        check_beta("beta_1", beta_1)
        check_beta("beta_2", beta_2)
        check_positive("epsilon", epsilon)
        check_flag("amsgrad", amsgrad)
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad

    @property
    def rule(self):
        """The update rule of tables."""
        return "adam_amsgrad" if self.amsgrad else "adam"

    def _hypers(self):
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

    def _slot_initials(self, row_wise):
        names = ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")
        return {name: (False, 0.0) for name in names}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
        t = tf.cast(self.iterations + 1, grads.dtype)
        m_correction = 1.0 - tf.pow(tf.cast(self.beta_1, grads.dtype), t)
        v_correction = 1.0 - tf.pow(tf.cast(self.beta_2, grads.dtype), t)
        m = slots["momentum"] + (grads - slots["momentum"]) * (1.0 - self.beta_1)
        v = slots["velocity"] + (tf.square(grads) - slots["velocity"]) * (1.0 - self.beta_2)
        new_slots, divisor = {"momentum": m, "velocity": v}, v
        if self.amsgrad:
            divisor = new_slots["velocity_hat"] = tf.maximum(slots["velocity_hat"], v)
        rate = learning_rate * tf.sqrt(v_correction) / m_correction
        return rows - rate * m / (tf.sqrt(divisor) + self.epsilon), new_slots

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Adam(AdamRule, SparseOptimizer):
    """Adam, element by element, on tables, sparse and dense variables.

    With t the optimizer's step from 1:

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps) + lr wd w

    With amsgrad, v_hat = max(v_hat, v) stands in v's place in the last line. State: 8 D bytes a row, with amsgrad 12 D.
    Only rows that the batch names change: this is the lazy form, in which the moments of a row decay when the row is
    named, not at every step (TensorFlow 1's Adam decayed all rows at every step). On rows that every step names it is
    `keras.optimizers.Adam`. `RowWiseAdam` keeps one second moment a row.

    >>> model.compile(tse.optimizers.Adam(0.001), "binary_crossentropy")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.001.
        beta_1: float in [0, 1), default 0.9.
        beta_2: float in [0, 1), default 0.999.
        epsilon: float > 0, default 1e-7.
        amsgrad: bool, default False.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `check_finite`, `name`: see
            `SparseOptimizer`.

    Raises:
        ValueError: if beta_1, beta_2 or epsilon is out of its range.

    Source: `keras.optimizers.Adam`; Kingma and Ba, "Adam", ICLR 2015; Reddi, Kale and Kumar, "On the convergence of
    Adam and beyond", ICLR 2018 (amsgrad). The lazy form is that of PyTorch's SparseAdam.
    """


class AdamWRule(AdamRule):
    """The rule of `AdamW`."""

    def __init__(
        self,
        learning_rate=0.001,
        weight_decay=0.004,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        **kwargs,
    ):
        if weight_decay is None:
            raise ValueError("weight_decay of AdamW must be a float, got None; Adam goes without")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **kwargs)


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class AdamW(AdamWRule, Adam):
    """`Adam` with weight decay by default: `keras.optimizers.AdamW`, of whose rows only those of the batch decay.

    >>> model.compile(tse.optimizers.AdamW(0.001, weight_decay=0.01), "binary_crossentropy")

    Args:
        learning_rate, beta_1, beta_2, epsilon, amsgrad, **kwargs: as for `Adam`.
        weight_decay: float, default 0.004.

    Source: `keras.optimizers.AdamW`; Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
