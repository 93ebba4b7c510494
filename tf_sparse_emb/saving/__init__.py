"""Saving the tables of a model a part at a time."""

from tf_sparse_emb.saving.incremental_checkpoint import IncrementalCheckpoint, Restored

__all__ = ["IncrementalCheckpoint", "Restored"]
