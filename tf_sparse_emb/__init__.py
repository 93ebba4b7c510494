"""Sparse embeddings for recommender models in TensorFlow 2 and Keras 3.

    import tf_sparse_emb as tse

`tse.Embedding` is the layer, `tse.EmbeddingVariable` its table, `tse.optimizers` update it, `tse.ops` are the ops
underneath; `tse.legacy` has layers and optimizers for tf_keras. Importing loads the op library and changes nothing in
TensorFlow or Keras.
"""

import importlib

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tf_sparse_emb needs Keras on TensorFlow, but its backend is {keras.backend.backend()!r}. Unset "
        "KERAS_BACKEND, or set KERAS_BACKEND=tensorflow, before Keras is imported"
    )

from tf_sparse_emb import checkpoint_saver, distribute, initializers, interchange, ops, optimizers, saving  # noqa: E402, F401
from tf_sparse_emb.functional import (  # noqa: E402
    embedding_lookup,
    embedding_lookup_sparse,
    safe_embedding_lookup_sparse,
)
from tf_sparse_emb.layers import Embedding, EmbeddingCollection, FeatureConfig, TableConfig  # noqa: E402
from tf_sparse_emb.serving import ExportedTable, export_for_serving  # noqa: E402
from tf_sparse_emb.snapshot import TableSnapshot  # noqa: E402
from tf_sparse_emb.table_check import check  # noqa: E402
from tf_sparse_emb.variable import EmbeddingVariable  # noqa: E402

__version__ = "0.1.0"


def __getattr__(name):
    """Imports `tse.legacy` when it is first asked for, because it needs tf_keras."""
    if name == "legacy":
        return importlib.import_module("tf_sparse_emb.legacy")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Embedding",
    "EmbeddingCollection",
    "EmbeddingVariable",
    "ExportedTable",
    "FeatureConfig",
    "TableConfig",
    "TableSnapshot",
    "check",
    "distribute",
    "embedding_lookup",
    "embedding_lookup_sparse",
    "export_for_serving",
    "initializers",
    "interchange",
    "ops",
    "optimizers",
    "safe_embedding_lookup_sparse",
    "saving",
]
