"""Stochastic gradient descent."""

import keras

from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class SGD(SparseOptimizer):
    """Stochastic gradient descent on tables, sparse and dense variables.

        w -= lr (g + wd w)

    On a table and on a variable with an `IndexedSlices` gradient only the rows of the batch change, weight decay
    included.

    >>> model.compile(tse.optimizers.SGD(0.1), "mse")

    Args:
        learning_rate: float, `LearningRateSchedule` or callable, default 0.01.
        weight_decay: float or None (default): wd, decoupled.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`, `check_finite`, `name`: see
            `SparseOptimizer`.

    Source: `keras.optimizers.SGD` without momentum.
    """

    rule = "sgd"

    def __init__(self, learning_rate=0.01, weight_decay=None, **kwargs):
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)

    def _step(self, grads, slots, learning_rate, row_wise):
        return learning_rate * grads, slots
