"""How a history becomes one vector: by the attention of DIN, or by its mean.

Letters: B examples, T history positions, W width of an item (item ++ category embedding).
"""

import keras
from keras import ops

ATTENTIONS = ("softmax", "plain")


class LocalActivationUnit(keras.layers.Layer):
    """Pools the history by how much each position matters for the candidate.

    The weight of a position is an MLP over [query, key, query - key, query * key] -> 80 -> 40 -> 1. With attention
    "plain" it is used as it is, the form of the paper; with "softmax" the weights are scaled by 1/sqrt(W) and
    normalised over the positions of the history, the form of the authors' code. The hidden layers are sigmoids, as
    there: Dice would take its statistics over padding.
    """

    def __init__(self, attention="softmax", hidden=(80, 40), **kwargs):
        super().__init__(**kwargs)
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
        self.attention = attention
        self.mlp = [keras.layers.Dense(units, activation="sigmoid") for units in hidden[1:]] + [keras.layers.Dense(1)]
        self.first_units = hidden[0]

    def build(self, query_shape, keys_shape, valid_shape):
        """Creates the MLP's weights."""
        self.kernel = self.add_weight(shape=(4 * keys_shape[-1], self.first_units), name="kernel")
        self.bias = self.add_weight(shape=(self.first_units,), initializer="zeros", name="bias")
        shape = (*keys_shape[:-1], self.first_units)
        for layer in self.mlp:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def weights_of(self, query, keys, valid):
        """The weight of each position, [B, T]; zero at padding."""
        # [q, k, q - k, q * k] @ kernel, by blocks of the kernel: half the products, and no [B, T, 4 W] tensor.
        of_query, of_key, of_difference, of_product = ops.split(self.kernel, 4, axis=0)
        # tensordot, because the kernel's gradient is then one matrix product, not the sum of one for each example.
        of_candidate = ops.matmul(query, of_query + of_difference) + self.bias
        of_clicks = ops.tensordot(keys, of_key - of_difference, 1) + ops.tensordot(query[:, None] * keys, of_product, 1)
        scores = ops.sigmoid(of_candidate[:, None] + of_clicks)
        for layer in self.mlp:
            scores = layer(scores)
        scores = scores[:, :, 0]
        if self.attention == "softmax":
            scores = ops.where(valid, scores / keys.shape[-1] ** 0.5, -1e9)
            scores = ops.softmax(scores, axis=-1)
        return ops.where(valid, scores, 0.0)

    def call(self, query, keys, valid):
        """Query [B, W], keys [B, T, W], valid bool [B, T] -> history vector [B, W]; zeros for an empty history."""
        return ops.einsum("bt,btw->bw", self.weights_of(query, keys, valid), keys)


class MeanPooling(keras.layers.Layer):
    """The base model's pooling: the mean over the history, whatever the candidate."""

    def call(self, keys, valid):
        """Keys [B, T, W], valid bool [B, T] -> history vector [B, W]; zeros for an empty history."""
        weights = ops.cast(valid, keys.dtype)
        count = ops.sum(weights, axis=1, keepdims=True)
        return ops.einsum("bt,btw->bw", weights, keys) / ops.maximum(count, 1.0)
