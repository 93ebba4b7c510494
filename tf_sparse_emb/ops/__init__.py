"""The ops of an embedding step, and max pooling, as functions.

forward: `embedding_key_dedup` -> `embedding_lookup` -> `embedding_duplicate`; backward: `embedding_grad_reduce` ->
`embedding_update`. The layers, and `tse.embedding_lookup` and its kin, do the first two by one op,
`embedding_dedup_lookup`, but for tables on parameter servers. All ops work in eager mode and in `tf.function`; none has
an XLA kernel.
"""

from tf_sparse_emb.ops.embedding_dedup_lookup import DedupLookup, embedding_dedup_lookup
from tf_sparse_emb.ops.embedding_duplicate import embedding_duplicate
from tf_sparse_emb.ops.embedding_grad_reduce import embedding_grad_reduce
from tf_sparse_emb.ops.embedding_key_dedup import KeyDedup, embedding_key_dedup
from tf_sparse_emb.ops.embedding_lookup import embedding_lookup
from tf_sparse_emb.ops.embedding_max_pool import embedding_max_pool
from tf_sparse_emb.ops.embedding_update import embedding_update

__all__ = [
    "DedupLookup",
    "KeyDedup",
    "embedding_dedup_lookup",
    "embedding_duplicate",
    "embedding_grad_reduce",
    "embedding_key_dedup",
    "embedding_lookup",
    "embedding_max_pool",
    "embedding_update",
]
