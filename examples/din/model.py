"""The Deep Interest Network (Zhou et al., KDD 2018, arXiv 1706.06978) and the models it is compared with.

All have the same tables, batch normalisation and MLP, and differ in how they see the history:

- base: its mean.
- wide-deep: its mean; and a weight for each pair of the candidate's category and one of the history's, averaged
  (Cheng et al., 2016, arXiv 1606.07792; the weight of each item is the bias that all models have).
- pnn: its mean; and the inner products of item and category, of candidate and history, in place of the elementwise
  product of candidate and history (Qu et al., ICDM 2016, arXiv 1611.00144).
- din: its sum, weighed by attention to the candidate.
- dien: the last state of two recurrent layers (Zhou et al., AAAI 2019, arXiv 1809.03672; `evolution.py`).

Letters: B examples, T history positions, W width of an item (item ++ category embedding).
"""

import keras
from keras import ops

from din.activations import make_activation
from din.attention import LocalActivationUnit, MeanPooling
from din.crosses import InnerProducts, PairIds
from din.evolution import InterestEvolution

MODELS = ("base", "wide-deep", "pnn", "din", "dien")


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
    auxiliary_weight=1.0,
    regularization=0.0,
    occurrences=None,
):
    """One of MODELS, as a functional Keras model that returns logits.

    Args:
        make_embedding: function(column, dim, initializer, name) -> an embedding layer for the ids of the column
            "user", "item", "category" or, for wide-deep, "category_pair".
        model: "base", "wide-deep", "pnn", "din" or "dien"; see above.
        embedding_dim: width of each table; an item is item ++ category, W = 2 * embedding_dim.
        attention: "softmax" or "plain", of din and dien; see `LocalActivationUnit`.
        activation: "dice", "prelu" or "sigmoid", of the MLP's hidden layers.
        hidden: units of the MLP's hidden layers.
        batch_norm: normalise the history vector and the candidate (`SharedBatchNormalization`).
        user_table: give the MLP an embedding of the user id as well.
        item_bias: add a trained bias per item to the logit.
        auxiliary_weight: of dien's auxiliary loss.
        regularization: strength of `MiniBatchAwareRegularization` on the item and category tables, tse layers both;
            0 is none.
        occurrences: with it, {"item": (ids, counts), "category": (ids, counts)} of the training examples.

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
    elif model == "dien":
        evolution = InterestEvolution(LocalActivationUnit(attention), auxiliary_weight, name="evolution")
        history = evolution(candidate, keys, history_ids["history_items"], valid)
    else:
        history = MeanPooling(name="mean")(keys, valid)
    if batch_norm:
        history, candidate = SharedBatchNormalization(name="batch_norm")(history, candidate)

    features = [history, candidate]
    if model == "pnn":
        fields = ops.reshape(ops.concatenate([candidate, history], axis=-1), (-1, 4, embedding_dim))
        features.append(InnerProducts(name="products")(fields))
    else:
        features.append(history * candidate)
    if user_table:
        features.append(make_embedding("user", embedding_dim, "uniform", name="user_table")(ids["user"]))
    hidden_layer = ops.concatenate(features, axis=-1)
    for units in hidden:
        hidden_layer = make_activation(activation)(keras.layers.Dense(units)(hidden_layer))
    logits = keras.layers.Dense(1, name="logits")(hidden_layer)
    if model == "wide-deep":
        pairs = PairIds()(ids["category"], history_ids["history_categories"])
        weights = make_embedding("category_pair", 1, "zeros", name="pair_weights")(pairs)
        logits = logits + MeanPooling(name="wide")(weights, valid)
    if item_bias:
        logits = logits + make_embedding("item", 1, "zeros", name="item_bias")(ids["item"])
    if regularization:
        from din.regularization import MiniBatchAwareRegularization  # here: the Keras-only baselines run without tse

        for table, column, clicked in (
            (item_table, "item", history_ids["history_items"]),
            (category_table, "category", history_ids["history_categories"]),
        ):
            regularize = MiniBatchAwareRegularization(regularization, table, *occurrences[column])
            logits = regularize(logits, ids[column], clicked, valid)
    return keras.Model({**ids, **history_ids, "history_mask": valid}, logits, name=model.replace("-", "_"))
