"""Mini-batch-aware regularisation (DIN, section 5.1): L2 on the rows of a batch at a cost of the batch, not the table.

Letters: B examples, T history positions, W width of the table.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import tf_sparse_emb as tse


def occurrences(ids_of_log, candidates, examples):
    """How often each id comes in `examples`, as the candidate or in a history.

    Args:
        ids_of_log: int64 [L], the log's items or categories.
        candidates: int64 [E], those of the examples' candidates.
        examples: `dataset.Examples`, for their histories.

    Returns: the distinct ids that come, int64 [V], and how often, int64 [V].
    """
    # Of each click of the log, the number of histories that hold it: +1 where one begins, -1 behind its end.
    steps = np.zeros(len(ids_of_log) + 1, np.int64)
    np.add.at(steps, examples.starts, 1)
    np.add.at(steps, examples.starts + examples.lengths, -1)
    ids, inverse = np.unique(np.concatenate([ids_of_log, candidates]), return_inverse=True)
    times = np.concatenate([np.cumsum(steps)[:-1], np.ones(len(candidates), np.int64)])
    counts = np.zeros(len(ids), np.int64)
    np.add.at(counts, inverse, times)
    return ids[counts > 0], counts[counts > 0]


class MiniBatchAwareRegularization(keras.layers.Layer):
    """Adds to the loss, in training, the sum over the distinct ids j of the batch

        strength / (2 n_j) |w_j|^2

    with n_j, how often j comes in all training examples. Its gradient is strength w_j / n_j, so that SGD takes off
    lr strength w_j / n_j, the formula of the paper; other optimizers treat it as they treat any gradient.

    Args:
        strength: float, lambda.
        table: the embedding layer that has the rows w.
        ids, counts: as of `occurrences`; other ids are not regularised.
    """

    def __init__(self, strength, table, ids, counts, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength
        self.table = table
        self.rates = tse.Embedding.from_pretrained(
            np.float32(strength / counts)[:, None], keys=ids, missing="zeros", name=f"{self.name}_rates"
        )

    def call(self, inputs, candidates, history, valid, training=None):
        """Candidates [B], history [B, T] and valid bool [B, T] -> `inputs` as they are."""
        if training:
            named = tf.concat([candidates, tf.boolean_mask(history, valid)], axis=0)
            distinct = tse.ops.embedding_key_dedup(named).unique_keys
            rows = self.table(distinct, training=training)
            self.add_loss(ops.sum(self.rates(distinct) * ops.square(rows)) / 2)
        return inputs

    def compute_output_spec(self, inputs, candidates, history, valid, training=None):
        """That of `inputs`."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)
