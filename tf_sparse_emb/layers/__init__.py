"""Keras layers."""

from tf_sparse_emb.layers.embedding import Embedding

__all__ = ["Embedding"]
