"""The Deep Interest Network (Zhou et al., KDD 2018, arXiv 1706.06978) and its base model.

Letters: B examples, T history positions, W width of an item (item ++ category embedding).
"""

import keras
from keras import ops

ACTIVATIONS = ("dice", "prelu", "sigmoid")
ATTENTIONS = ("softmax", "plain")
MODELS = ("din", "base")


class Dice(keras.layers.Layer):
    """The paper's activation: f(s) = p s + (1 - p) alpha s, p = sigmoid((s - E[s]) / sqrt(Var[s] + 1e-8)).

    E and Var are those of the batch in training and moving averages otherwise; alpha [units] starts at zero.
    """

    def build(self, input_shape):
        """Creates alpha and the moving averages."""
        self.alpha = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="alpha")
        self.standardize = keras.layers.BatchNormalization(epsilon=1e-8, center=False, scale=False)
        self.standardize.build(input_shape)

    def call(self, inputs, training=None):
        """Inputs [B, units] -> [B, units]."""
        p = ops.sigmoid(self.standardize(inputs, training=training))
        return (p + (1 - p) * self.alpha) * inputs


def make_activation(name):
    """A new activation layer, for [B, units]."""
    if name == "dice":
        return Dice()
    if name == "prelu":
        return keras.layers.PReLU()
    if name == "sigmoid":
        return keras.layers.Activation("sigmoid")
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")


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
        query = query[:, None, :]
        scores = query @ (of_query + of_difference) + keys @ (of_key - of_difference) + (query * keys) @ of_product
        scores = ops.sigmoid(scores + self.bias)
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


class SharedBatchNormalization(keras.layers.Layer):
    """One batch normalisation for the history vector and the candidate.

    Both are points of one embedding space and are compared with each other, so they must be shifted and scaled alike.
    Two separate normalisations, or one layer called twice (each call has its own batch statistics in training), would
    remove the difference of their means, or worse: in the authors' first code the positive and the negative of a pair
    passed through different normalisations, so the statistics told the label and the published figures were too high.
    Stacked, history and candidate, positives and negatives, have the same statistics in one call, in training as in
    evaluation, and nothing depends on the label.
    """

    def build(self, history_shape, candidate_shape):
        """Creates the one normalisation, over [B, 2, W]."""
        self.normalize = keras.layers.BatchNormalization()
        self.normalize.build((history_shape[0], 2, history_shape[1]))

    def call(self, history, candidate, training=None):
        """History [B, W], candidate [B, W] -> both normalised."""
        both = self.normalize(ops.stack([history, candidate], axis=1), training=training)
        return both[:, 0], both[:, 1]


def build_model(
    make_embedding,
    model="din",
    embedding_dim=64,
    attention="softmax",
    activation="dice",
    hidden=(80, 40),
    batch_norm=True,
    user_table=False,
    item_bias=True,
):
    """DIN, or with model="base" mean pooling in place of attention, as a functional Keras model that returns logits.

    Args:
        make_embedding: function(column, dim, initializer, name) -> an embedding layer for the ids of the column
            "user", "item" or "category".
        embedding_dim: width of each table; an item is item ++ category, W = 2 * embedding_dim.
        attention: "softmax" or "plain", see `LocalActivationUnit`.
        activation: "dice", "prelu" or "sigmoid", of the MLP's hidden layers.
        hidden: units of the MLP's hidden layers.
        batch_norm: normalise the history vector and the candidate (`SharedBatchNormalization`).
        user_table: give the MLP an embedding of the user id as well.
        item_bias: add a trained bias per item to the logit.

    Returns:
        keras.Model: inputs as of `dataset.padded_batch`, output float32 [B, 1].
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    ids = {name: keras.Input((), dtype="int64", name=name) for name in ("user", "item", "category")}
    history_ids = {
        name: keras.Input((None,), dtype="int64", name=name) for name in ("history_items", "history_categories")
    }
    valid = keras.Input((None,), dtype="bool", name="history_mask")

    # One item and one category table, each looked up twice: for the candidate and for the history.
    item_table = make_embedding("item", embedding_dim, "uniform", name="item_table")
    category_table = make_embedding("category", embedding_dim, "uniform", name="category_table")
    candidate = ops.concatenate([item_table(ids["item"]), category_table(ids["category"])], axis=-1)
    keys = ops.concatenate(
        [item_table(history_ids["history_items"]), category_table(history_ids["history_categories"])], axis=-1
    )

    if model == "din":
        history = LocalActivationUnit(attention, name="attention")(candidate, keys, valid)
    else:
        history = MeanPooling(name="mean")(keys, valid)
    if batch_norm:
        history, candidate = SharedBatchNormalization(name="batch_norm")(history, candidate)

    features = [history, candidate, history * candidate]
    if user_table:
        features.append(make_embedding("user", embedding_dim, "uniform", name="user_table")(ids["user"]))
    hidden_layer = ops.concatenate(features, axis=-1)
    for units in hidden:
        hidden_layer = make_activation(activation)(keras.layers.Dense(units)(hidden_layer))
    logits = keras.layers.Dense(1, name="logits")(hidden_layer)
    if item_bias:
        logits = logits + make_embedding("item", 1, "zeros", name="item_bias")(ids["item"])
    return keras.Model({**ids, **history_ids, "history_mask": valid}, logits, name=model)
