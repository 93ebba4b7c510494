"""Keras optimizers that update embedding tables in place."""

from tf_sparse_emb.optimizers.adagrad import Adagrad
from tf_sparse_emb.optimizers.adagrad_decay import AdagradDecay
from tf_sparse_emb.optimizers.adam import Adam, AdamW
from tf_sparse_emb.optimizers.ftrl import Ftrl
from tf_sparse_emb.optimizers.loss_scale_optimizer import LossScaleOptimizer
from tf_sparse_emb.optimizers.rmsprop import RMSprop
from tf_sparse_emb.optimizers.row_wise_adagrad import RowWiseAdagrad
from tf_sparse_emb.optimizers.row_wise_adam import RowWiseAdam
from tf_sparse_emb.optimizers.sgd import SGD
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer

__all__ = [
    "Adagrad",
    "AdagradDecay",
    "Adam",
    "AdamW",
    "Ftrl",
    "LossScaleOptimizer",
    "RMSprop",
    "RowWiseAdagrad",
    "RowWiseAdam",
    "SGD",
    "SparseOptimizer",
]
