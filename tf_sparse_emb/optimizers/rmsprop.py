"""RMSprop."""

import keras
import tensorflow as tf

from tf_sparse_emb.optimizers.checks import check_beta, check_positive
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer
from tf_sparse_emb.table_arguments import check_flag


class RMSpropRule(Rule):
    """The rule of `RMSprop`."""

    def __init__(
        self,
        learning_rate=0.001,
        rho=0.9,
        momentum=0.0,
        epsilon=1e-7,
        centered=False,
        weight_decay=None,
        **kwargs,
    ):
        check_beta("rho", rho)
        check_beta("momentum", momentum)
        check_positive("epsilon", epsilon)
        check_flag("centered", centered)
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered

    @property
    def rule(self):
        """The update rule of tables."""
        return "rmsprop" + ("_centered" if self.centered else "") + ("_momentum" if self.momentum else "")

    def _hypers(self):
        return {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon}

    def _slot_initials(self, row_wise):
        names = ["velocity"]
        if self.momentum:
            names.append("momentum")
        if self.centered:
            names.append("average_gradient")
        return {name: (False, 0.0) for name in names}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
        v = self.rho * slots["velocity"] + (1.0 - self.rho) * tf.square(grads)
        new_slots, q = {"velocity": v}, v
        if self.centered:
            a = new_slots["average_gradient"] = self.rho * slots["average_gradient"] + (1.0 - self.rho) * grads
            q = v - tf.square(a)
        delta = learning_rate * grads / tf.sqrt(q + self.epsilon)
        if self.momentum:
            delta = new_slots["momentum"] = self.momentum * slots["momentum"] + delta
        return rows - delta, new_slots

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class RMSprop(RMSpropRule, SparseOptimizer):
    """RMSprop on tables, sparse and dense variables.

        v = rho v + (1 - rho) g^2
        centered: a = rho a + (1 - rho) g;  q = v - a^2, otherwise q = v
        i = lr g / sqrt(q + eps)
        with momentum mu > 0: u = mu u + i;  w -= u, otherwise w -= i;  and w -= lr wd w

    State: 4 D bytes a row, 4 D more centered, and 4 D more with momentum. Only rows that the batch names change, and
    only their averages decay.

    >>> model.compile(tse.optimizers.RMSprop(0.001), "binary_crossentropy")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.001.
        rho: float in [0, 1), default 0.9.
        momentum: float in [0, 1), default 0.
        epsilon: float > 0, default 1e-7.
        centered: bool, default False.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `check_finite`, `name`: see
            `SparseOptimizer`.

    Raises:
        ValueError: if rho, momentum or epsilon is out of its range.

    Source: `keras.optimizers.RMSprop`; Hinton, "Neural networks for machine learning", lecture 6e, 2012.
    """
