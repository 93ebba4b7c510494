"""The optimizers for tf_keras: each rule of `tf_sparse_emb.optimizers` on `tf_keras.optimizers.legacy.Optimizer`."""

import tf_keras

from tf_sparse_emb.legacy.sparse_optimizer import SparseOptimizer
from tf_sparse_emb.optimizers.adagrad import AdagradRule
from tf_sparse_emb.optimizers.adagrad_decay import AdagradDecayRule
from tf_sparse_emb.optimizers.adam import AdamRule, AdamWRule
from tf_sparse_emb.optimizers.ftrl import FtrlRule
from tf_sparse_emb.optimizers.rmsprop import RMSpropRule
from tf_sparse_emb.optimizers.row_wise_adagrad import RowWiseAdagradRule
from tf_sparse_emb.optimizers.row_wise_adam import RowWiseAdamRule
from tf_sparse_emb.optimizers.sgd import SGDRule


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class SGD(SGDRule, SparseOptimizer):
    """`tse.optimizers.SGD`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    `tf_keras.optimizers.legacy.SGD` has the same formula.

    >>> model.compile(tse.legacy.SGD(0.1, momentum=0.9), "mse")

    Args:
        learning_rate, momentum, nesterov, weight_decay: as for `tse.optimizers.SGD`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Adagrad(AdagradRule, SparseOptimizer):
    """`tse.optimizers.Adagrad`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    `tf_keras.optimizers.legacy.Adagrad` differs in epsilon alone: it divides by sqrt(a) + eps.

    >>> model.compile(tse.legacy.Adagrad(0.05), "mse")

    Args:
        learning_rate, initial_accumulator_value, epsilon, weight_decay: as for `tse.optimizers.Adagrad`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class RowWiseAdagrad(RowWiseAdagradRule, SparseOptimizer):
    """`tse.optimizers.RowWiseAdagrad`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    Variables that are not row-wise get the rule of `tse.legacy.Adagrad`.

    >>> model.compile(tse.legacy.RowWiseAdagrad(0.05), "mse")

    Args:
        learning_rate, initial_accumulator_value, epsilon, weight_decay: as for `tse.optimizers.RowWiseAdagrad`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class AdagradDecay(AdagradDecayRule, SparseOptimizer):
    """`tse.optimizers.AdagradDecay`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    >>> model.compile(tse.legacy.AdagradDecay(0.05, decay_step=10_000), "mse")

    Args:
        learning_rate, initial_accumulator_value, decay_step, decay_rate, weight_decay: as for
            `tse.optimizers.AdagradDecay`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Adam(AdamRule, SparseOptimizer):
    """`tse.optimizers.Adam`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    `tf_keras.optimizers.legacy.Adam` has the same formula for dense gradients; with sparse ones it lets the moments of
    all rows decay at every step, where this one is lazy.

    >>> model.compile(tse.legacy.Adam(0.001), "mse")

    Args:
        learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay: as for `tse.optimizers.Adam`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class AdamW(AdamWRule, Adam):
    """`tse.optimizers.AdamW`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    >>> model.compile(tse.legacy.AdamW(0.001, weight_decay=0.01), "mse")

    Args:
        learning_rate, weight_decay, beta_1, beta_2, epsilon, amsgrad: as for `tse.optimizers.AdamW`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class RowWiseAdam(RowWiseAdamRule, SparseOptimizer):
    """`tse.optimizers.RowWiseAdam`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    Variables that are not row-wise get the rule of `tse.legacy.Adam`.

    >>> model.compile(tse.legacy.RowWiseAdam(0.001), "mse")

    Args:
        learning_rate, beta_1, beta_2, epsilon, weight_decay: as for `tse.optimizers.RowWiseAdam`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class RMSprop(RMSpropRule, SparseOptimizer):
    """`tse.optimizers.RMSprop`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    `tf_keras.optimizers.legacy.RMSprop` with momentum has the same formula; without, it divides by sqrt(q) + eps.

    >>> model.compile(tse.legacy.RMSprop(0.001), "mse")

    Args:
        learning_rate, rho, momentum, epsilon, centered, weight_decay: as for `tse.optimizers.RMSprop`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Ftrl(FtrlRule, SparseOptimizer):
    """`tse.optimizers.Ftrl`, whose docstring has the formula, on `tf_keras.optimizers.legacy.Optimizer`.

    `tf_keras.optimizers.legacy.Ftrl` has the same formula.

    >>> model.compile(tse.legacy.Ftrl(0.05, l1_regularization_strength=0.001), "mse")

    Args:
        learning_rate, learning_rate_power, initial_accumulator_value, l1_regularization_strength,
            l2_regularization_strength, l2_shrinkage_regularization_strength, beta, weight_decay: as for
            `tse.optimizers.Ftrl`.
        **kwargs: see `tse.legacy.SparseOptimizer`.

    Raises:
        ValueError: if an argument is out of its range.
    """
