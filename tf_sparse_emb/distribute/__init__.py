"""Training on many devices and machines: replicas with equal tables, or tables spread over parameter servers."""

from tf_sparse_emb.distribute.local_cluster import LocalCluster
from tf_sparse_emb.distribute.mirrored_strategies import MirroredStrategy, MultiWorkerMirroredStrategy
from tf_sparse_emb.distribute.strategy import parameter_server_strategy
from tf_sparse_emb.distribute.trainer import ParameterServerTrainer, ServerLostError

__all__ = [
    "LocalCluster",
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "ParameterServerTrainer",
    "ServerLostError",
    "parameter_server_strategy",
]
