"""Stochastic gradient descent."""

import keras

from tf_sparse_emb.optimizers.checks import check_beta
from tf_sparse_emb.optimizers.rule import Rule
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer
from tf_sparse_emb.table_arguments import check_flag


class SGDRule(Rule):
    """The rule of `SGD`."""

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=None, **kwargs):
        check_beta("momentum", momentum)
        check_flag("nesterov", nesterov)
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    @property
    def rule(self):
        """The update rule of tables."""
        return "momentum" if self.momentum else "sgd"

    def _hypers(self):
        return {"momentum": self.momentum, "nesterov": float(self.nesterov)} if self.momentum else {}

    def _slot_initials(self, row_wise):
        return {"momentum": (False, 0.0)} if self.momentum else {}

    def _step(self, rows, grads, slots, learning_rate, row_wise):
        push = learning_rate * grads
        if not self.momentum:
            return rows - push, {}
        u = self.momentum * slots["momentum"] - push
        return rows + (self.momentum * u - push if self.nesterov else u), {"momentum": u}

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class SGD(SGDRule, SparseOptimizer):
    """Stochastic gradient descent, with momentum if asked for, on tables, sparse and dense variables.

        w -= lr (g + wd w)

    With momentum mu > 0, and D floats of state a row:

        u = mu u - lr g
        w += u, with nesterov: w += mu u - lr g;  and w -= lr wd w

    On a table and on a variable with an `IndexedSlices` gradient only the rows of the batch change, momentum and weight
    decay included: the velocity of a row that is not named neither moves it nor fades.

    >>> model.compile(tse.optimizers.SGD(0.1, momentum=0.9), "mse")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.01.
        momentum: float in [0, 1), default 0.
        nesterov: bool, default False.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `check_finite`, `name`: see
            `SparseOptimizer`.

    Raises:
        ValueError: if momentum is out of its range.

    Source: `keras.optimizers.SGD`; Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013.
    """
