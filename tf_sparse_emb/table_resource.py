"""The table behind an embedding variable, as TensorFlow tracks it."""

import tensorflow as tf

from tf_sparse_emb.gen_ops import library


class TableResource(tf.saved_model.experimental.TrackableResource):
    """A C++ table and the means to make it again.

    It hangs on its variable by the name `table`, so checkpoints find it by its place in the object graph. The table
    has no name of its own and lives as long as its handle: neither two variables nor a SavedModel that is loaded twice
    ever share one.

    Args:
        count_decay: float, see `tse.EmbeddingVariable`.
        **options: the attributes of the op EmbeddingTable.
    """

    def __init__(self, *, count_decay, **options):
        # A table lives in the memory of the CPU.
        super().__init__(device="CPU:0")
        self.count_decay, self.options = count_decay, options
        # The handle is made when it is first asked for; were that while a function is traced, it would be the graph's.
        with tf.init_scope():
            _ = self.resource_handle

    def _create_resource(self):
        return library.sparse_emb_embedding_table(count_decay=tf.constant(self.count_decay, tf.float64), **self.options)
