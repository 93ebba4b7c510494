"""Training on many machines: tables spread over TensorFlow's parameter servers."""

from tf_sparse_emb.distribute.local_cluster import LocalCluster
from tf_sparse_emb.distribute.strategy import parameter_server_strategy
from tf_sparse_emb.distribute.trainer import ParameterServerTrainer, ServerLostError

__all__ = ["LocalCluster", "ParameterServerTrainer", "ServerLostError", "parameter_server_strategy"]
