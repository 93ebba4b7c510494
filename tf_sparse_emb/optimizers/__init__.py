"""Keras optimizers that update embedding tables in place."""

from tf_sparse_emb.optimizers.row_wise_adagrad import RowWiseAdagrad
from tf_sparse_emb.optimizers.row_wise_adam import RowWiseAdam
from tf_sparse_emb.optimizers.sgd import SGD
from tf_sparse_emb.optimizers.sparse_optimizer import SparseOptimizer

__all__ = ["RowWiseAdagrad", "RowWiseAdam", "SGD", "SparseOptimizer"]
