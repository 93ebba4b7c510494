"""Sparse embeddings for recommender models in TensorFlow 2 and Keras 3.

    import tf_sparse_emb as tse

`tse.Embedding` is the layer, `tse.EmbeddingVariable` its table, `tse.optimizers` update it, `tse.ops` are the five ops
underneath. Importing loads the op library and changes nothing in TensorFlow or Keras.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tf_sparse_emb needs Keras on TensorFlow, but its backend is {keras.backend.backend()!r}. Unset "
        "KERAS_BACKEND, or set KERAS_BACKEND=tensorflow, before Keras is imported"
    )

from tf_sparse_emb import initializers, ops, optimizers  # noqa: E402
from tf_sparse_emb.functional import (  # noqa: E402
    embedding_lookup,
    embedding_lookup_sparse,
    safe_embedding_lookup_sparse,
)
from tf_sparse_emb.layers import Embedding, EmbeddingCollection, FeatureConfig, TableConfig  # noqa: E402
from tf_sparse_emb.snapshot import TableSnapshot  # noqa: E402
from tf_sparse_emb.variable import EmbeddingVariable  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "Embedding",
    "EmbeddingCollection",
    "EmbeddingVariable",
    "FeatureConfig",
    "TableConfig",
    "TableSnapshot",
    "embedding_lookup",
    "embedding_lookup_sparse",
    "initializers",
    "ops",
    "optimizers",
    "safe_embedding_lookup_sparse",
]
