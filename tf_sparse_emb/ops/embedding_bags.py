"""EmbeddingBags: the keys of several features as one list of keys in bags."""

from typing import NamedTuple

import tensorflow as tf

from tf_sparse_emb.gen_ops import library


class FeatureKeys(NamedTuple):
    """The keys of a feature as EmbeddingBags takes them.

    `kind` is what its bags are: "each" of its keys, its keys along the "last_axis", or "ragged" ones at `row_splits`.
    `skipped` keys stand for nothing, and only the first `max_length` keys of a bag count.
    """

    name: str
    keys: tf.Tensor
    kind: str
    row_splits: tf.Tensor | None = None
    skipped: tuple = ()
    max_length: int | None = None
    input_dim: int | None = None

    @property
    def keeps_all(self):
        """Whether no key can be left out."""
        return not self.skipped and self.max_length is None


class Bags(NamedTuple):
    """What `embedding_bags` returns, F features, N keys that are kept, B bags."""

    keys: tf.Tensor  # int64 [N]
    feature_splits: tf.Tensor  # int64 [F + 1], where the keys of each feature stand
    first_bags: tf.Tensor  # int64 [F + 1], where the bags of each feature stand
    bag_splits: tf.Tensor  # int64 [B + 1], where the keys of each bag stand
    kept: tf.Tensor  # int64 [N], where each key stood among all that came in; empty if all are kept


def embedding_bags(features, with_splits=True, same_bags=False):
    """Lays the keys of features in bags, one feature after the other.

    Args:
        features: list of `FeatureKeys`.
        with_splits: bool, default True. Without, `bag_splits` is empty: for features that are not pooled.
        same_bags: bool, default False. Whether all features must have as many bags.

    Raises:
        tf.errors.InvalidArgumentError: if a key is out of range, row_splits are none, or one feature has more bags than
            another with same_bags; nothing has changed then.
    """
    return Bags(
        *library.sparse_emb_embedding_bags(
            keys=[feature.keys for feature in features],
            row_splits=[feature.row_splits for feature in features if feature.kind == "ragged"],
            names=[feature.name for feature in features],
            kinds=[feature.kind for feature in features],
            skipped=[key for feature in features for key in feature.skipped],
            skipped_counts=[len(feature.skipped) for feature in features],
            max_lengths=[-1 if feature.max_length is None else feature.max_length for feature in features],
            input_dims=[-1 if feature.input_dim is None else feature.input_dim for feature in features],
            with_splits=with_splits,
            with_kept=not all(feature.keeps_all for feature in features),
            same_bags=same_bags,
        )
    )


tf.no_gradient("SparseEmb>EmbeddingBags")
