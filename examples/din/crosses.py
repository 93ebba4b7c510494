"""Features made of two: the inner products of PNN, and the crossed ids of Wide & Deep.

Letters: B examples, T history positions, F fields, D width of a field.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

# Odd, so that no candidate shares its pairs with another: the product is a permutation of the 64-bit numbers.
_SPREAD = 0x1E3779B97F4A7C15


class InnerProducts(keras.layers.Layer):
    """<f_i, f_j> of all fields i < j: the product layer of IPNN (Qu et al., ICDM 2016, arXiv 1611.00144)."""

    def call(self, fields):
        """Fields [B, F, D] -> [B, F (F - 1) / 2], in the order (0, 1), (0, 2), ..., (1, 2), ..."""
        first, second = np.triu_indices(fields.shape[1], k=1)
        return ops.sum(ops.take(fields, first, axis=1) * ops.take(fields, second, axis=1), axis=-1)


class PairIds(keras.layers.Layer):
    """One id for each pair (candidate, position): candidate * odd + position, modulo 2^64.

    The cross product of Wide & Deep (Cheng et al., 2016, arXiv 1606.07792). There is no vocabulary of pairs: a dynamic
    table takes them as they come. Ids below 2^31 cannot meet in practice, hashed ones as seldom as 64-bit hashes do.
    """

    def call(self, candidate, history):
        """Int64 [B] and [B, T] -> int64 [B, T]."""
        return candidate[:, None] * tf.constant(_SPREAD, tf.int64) + history

    def compute_output_spec(self, candidate, history):
        """Int64, whatever the layer's floating-point policy."""
        return keras.KerasTensor(history.shape, dtype="int64")
