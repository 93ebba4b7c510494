"""What the tests of lookups without a layer share: the same rows in a table of this package and in a tf.Variable."""

import numpy as np
import reference
import tensorflow as tf

import tf_sparse_emb as tse

V, D = 12, 3
SPARSE_FUNCTIONS = [tse.embedding_lookup_sparse, tse.safe_embedding_lookup_sparse]


class Twins:
    """A table and TensorFlow's variable with the same rows; `keys` are what the table calls the ids 0 to V - 1."""

    def __init__(self, make_table, storage):
        rows = np.random.default_rng(3).normal(size=(V, D)).astype(np.float32)
        self.table = make_table(storage, D, rows=V)
        self.keys = reference.key_universe(storage, V)
        self.table.upsert(self.keys, rows)
        self.variable = tf.Variable(rows)

    def keys_of(self, ids):
        """The keys for ids of whatever form; negative ids stay."""
        values = ids.flat_values if isinstance(ids, tf.RaggedTensor) else ids.values
        keys = tf.where(values < 0, values, tf.gather(tf.constant(self.keys), tf.maximum(values, 0)))
        return ids.with_flat_values(keys) if isinstance(ids, tf.RaggedTensor) else ids.with_values(keys)

    def dense_gradient(self, gradient):
        """The table's gradient as a matrix [V, D]."""
        position = {key: i for i, key in enumerate(self.keys.tolist())}
        dense = np.zeros((V, D))
        for key, row in zip(gradient.indices.numpy().tolist(), gradient.values.numpy(), strict=True):
            dense[position[key]] += row
        return dense
