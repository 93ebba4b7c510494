"""Models for processes that have TensorFlow and not this package."""

from tf_sparse_emb.serving.export import ExportedTable, export_for_serving

__all__ = ["ExportedTable", "export_for_serving"]
