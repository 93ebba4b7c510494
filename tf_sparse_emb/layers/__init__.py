"""Keras layers."""

from tf_sparse_emb.layers.configs import FeatureConfig, TableConfig
from tf_sparse_emb.layers.embedding import Embedding
from tf_sparse_emb.layers.embedding_collection import EmbeddingCollection

__all__ = ["Embedding", "EmbeddingCollection", "FeatureConfig", "TableConfig"]
