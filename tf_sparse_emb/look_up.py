"""What layers and functions do with keys: the ops over any number of features on tables of one width.

However many features there are, their keys are laid in bags by one op, and deduplicated and looked up by another.
Laying checks all that can be wrong with keys; so first all are laid, then tables may change.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.key_forms import FeatureInput
from tf_sparse_emb.ops.embedding_bags import Bags, embedding_bags
from tf_sparse_emb.ops.embedding_dedup_lookup import dedup_lookup_tables
from tf_sparse_emb.ops.embedding_key_dedup import split_by_table
from tf_sparse_emb.variable import EmbeddingVariable


class LookedUpTable(NamedTuple):
    """A table and how its rows are looked up."""

    variable: EmbeddingVariable
    regularizer: Callable | None = None
    scale_grad_by_freq: bool = False


class LaidKeys(NamedTuple):
    """The keys of features, checked and in bags."""

    tables: list[LookedUpTable]
    features: list[FeatureInput]  # sorted by group
    order: list[int]  # the position of each in the list that came
    bags: Bags
    side_by_side: bool  # whether `look_up` returns the values of all features as one tensor

    @classmethod
    def of(cls, tables, features, side_by_side=False):
        """Lays the keys of a list of `FeatureInput` on tables of one width.

        Args:
            side_by_side: bool, default False. Lay the values of the features side by side, if one op duplicates all of
                them; they must have as many bags then.

        Raises:
            tf.errors.InvalidArgumentError: if a key is out of its table's range, weights do not match keys, or features
                that stand side by side have not as many bags.
        """
        groups = {feature.group for feature in features}
        side_by_side = side_by_side and len(groups) == 1 and ("max", False) not in groups
        order = sorted(range(len(features)), key=lambda f: (features[f].group[0] or "", features[f].group[1], f))
        features = [features[f] for f in order]
        with tf.control_dependencies([check for feature in features for check in feature.checks]):
            bags = embedding_bags(
                [feature.keys for feature in features],
                with_splits=any(feature.group[0] is not None for feature in features),
                same_bags=side_by_side,
            )
        return cls(tables, features, order, bags, side_by_side)


def look_up(laid, *, insert=False, missing="initial", add_loss=None, after=()):
    """Looks up keys in tables of one width D.

    Args:
        laid: `LaidKeys`.
        insert: bool. Insert missing keys, bound norms in place and count keys: what training does.
        missing: "initial" or "zeros".
        add_loss: what takes the regularizers' losses, or None: they are left out.
        after: tensors that must be there before a table changes.

    Returns:
        list of tensors, one for each feature in the order that they came: the rows of its keys, or pooled. Or, if they
        are laid so, one tensor [B, F D] of the values of all features side by side.
    """
    tables, features, order, bags, side_by_side = laid
    variables = [table.variable for table in tables]
    with tf.control_dependencies(list(after)):
        unique_keys, inverse, counts, table_splits, rows = dedup_lookup_tables(
            variables,
            bags.keys,
            bags.feature_splits,
            [feature.table for feature in features],
            insert=insert,
            missing=missing,
        )
    rows = _mask_padding(rows, unique_keys, table_splits, tables, features)
    if add_loss is not None and any(table.regularizer for table in tables):
        for table, table_rows in zip(tables, split_by_table(rows, table_splits, len(tables)), strict=True):
            if table.regularizer:
                add_loss(table.regularizer(table_rows))
    if insert and any(variable.counts for variable in variables):
        _count(variables, features, bags, unique_keys, inverse, counts, table_splits)
    if any(table.scale_grad_by_freq for table in tables):
        parts = split_by_table(counts, table_splits, len(tables))
        scales = [
            1.0 / tf.cast(part, tf.float32) if table.scale_grad_by_freq else tf.ones_like(part, tf.float32)
            for table, part in zip(tables, parts, strict=True)
        ]
        rows = _scale_gradient(rows, tf.concat(scales, 0))
    weights = _all_weights(features, bags)
    if side_by_side:
        return _duplicate_rows(rows, inverse, features[0].group[0], weights, bags.bag_splits, len(features))
    outputs = [None] * len(features)
    for f, value in zip(order, _duplicate(rows, inverse, features, weights, bags), strict=True):
        outputs[f] = value
    return outputs


@tf.custom_gradient
def _scale_gradient(rows, scale):
    """rows [U, D], whose gradient is multiplied by scale [U]."""
    return tf.identity(rows), lambda grad: (grad * scale[:, tf.newaxis], None)


def _mask_padding(rows, unique_keys, table_splits, tables, features):
    """Keeps gradients from the rows of padding keys. Bags have none: there they are skipped."""
    unpooled = {feature.table for feature in features if not feature.keys.skipped}
    padded = [t for t, table in enumerate(tables) if table.variable.padding_key is not None and t in unpooled]
    if not padded:
        return rows
    masks = [
        tf.cast(keys != tables[t].variable.padding_key, tf.float32) if t in padded else tf.ones_like(keys, tf.float32)
        for t, keys in enumerate(split_by_table(unique_keys, table_splits, len(tables)))
    ]
    return _scale_gradient(rows, tf.concat(masks, 0))


def _per_kept_key(features, bags, values):
    """The concatenated values, one tensor for each feature, of those keys that EmbeddingBags has kept."""
    values = values[0] if len(values) == 1 else tf.concat(values, 0)
    if all(feature.keys.keeps_all for feature in features):
        return values
    return tf.gather(values, bags.kept)


def _count(variables, features, bags, unique_keys, inverse, counts, table_splits):
    """Adds the keys of this call, and their labels, to the tables' counts."""
    amounts = [tf.cast(counts, tf.float64)]
    if any(variable.counts == "clicked" for variable in variables):
        labels = [
            tf.zeros([tf.size(feature.keys.keys)], tf.float64) if feature.labels is None else feature.labels
            for feature in features
        ]
        labels = _per_kept_key(features, bags, labels)
        amounts.append(tf.math.unsorted_segment_sum(labels, inverse, tf.size(unique_keys)))
    keys = split_by_table(unique_keys, table_splits, len(variables))
    amounts = split_by_table(tf.stack(amounts, 1), table_splits, len(variables))
    for variable, table_keys, table_amounts in zip(variables, keys, amounts, strict=True):
        if variable.counts:
            variable.add_counts(table_keys, table_amounts[:, : variable.num_counts], keys_differ=True)


def _all_weights(features, bags):
    """The weights of all keys, or None where no feature has any."""
    if all(feature.weights is None for feature in features):
        return None
    # `kept` counts the keys of all features: those without weights stand in with ones.
    weights = [
        tf.ones([tf.size(feature.keys.keys)]) if feature.weights is None else feature.weights for feature in features
    ]
    return _per_kept_key(features, bags, weights)


def _duplicate(rows, inverse, features, all_weights, bags):
    """The values of each feature; `features` are sorted by their group."""
    if len({feature.group for feature in features}) == 1:
        return _duplicate_group(rows, inverse, features, all_weights, bags.bag_splits, bags)

    outputs, first = [], 0
    while first < len(features):
        group = [feature for feature in features if feature.group == features[first].group]
        end = first + len(group)
        keys = slice(bags.feature_splits[first], bags.feature_splits[end])
        bag_splits = None
        if group[0].group[0] is not None:
            bag_splits = bags.bag_splits[bags.first_bags[first] : bags.first_bags[end] + 1]
            bag_splits -= bag_splits[0]
        part = bags._replace(
            feature_splits=bags.feature_splits[first : end + 1], first_bags=bags.first_bags[first : end + 1]
        )
        weights = None if group[0].weights is None else all_weights[keys]
        outputs += _duplicate_group(rows, inverse[keys], group, weights, bag_splits, part)
        first = end
    return outputs


def _duplicate_rows(rows, inverse, combiner, weights, bag_splits, num_features=1):
    """The values of keys, or of bags with a combiner."""
    if combiner is None:
        return ops.embedding_duplicate(rows, inverse, num_features=num_features)
    if combiner == "max":
        return ops.embedding_max_pool(rows, inverse, bag_splits)
    return ops.embedding_duplicate(
        rows, inverse, row_splits=bag_splits, weights=weights, combiner=combiner, num_features=num_features
    )


def _duplicate_group(rows, inverse, features, weights, bag_splits, bags):
    """The values of features of one group, whose keys and bags are those of `bags`."""
    combiner = features[0].group[0]
    values = _duplicate_rows(rows, inverse, combiner, weights, bag_splits)
    splits = bags.feature_splits if combiner is None else bags.first_bags
    if len(features) == 1:
        return [features[0].restore(values)]
    parts = tf.split(values, splits[1:] - splits[:-1], num=len(features))
    return [feature.restore(part) for feature, part in zip(features, parts, strict=True)]
