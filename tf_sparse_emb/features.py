"""What layers and functions do with keys: the five ops over any number of features on tables of one width.

`FeatureInput.of` takes the keys of a feature in whatever form they come; `look_up` returns the rows or the pooled rows
of all features. However many there are, keys are laid in bags, deduplicated and looked up by one op each.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.ops.embedding_bags import FeatureKeys, embedding_bags
from tf_sparse_emb.ops.embedding_duplicate import COMBINERS
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table
from tf_sparse_emb.ops.embedding_lookup import lookup_tables
from tf_sparse_emb.ops.keys import as_keys, check_key_dtype
from tf_sparse_emb.variable import EmbeddingVariable

ALL_COMBINERS = (*COMBINERS, "max")


def check_combiner(combiner, or_none=True):
    """Raises a ValueError unless the combiner is known."""
    if (combiner is None and or_none) or combiner in ALL_COMBINERS:
        return
    raise ValueError(
        f"combiner must be {'None or ' if or_none else ''}one of {', '.join(ALL_COMBINERS)}, got {combiner!r}"
    )


def check_weights_combiner(combiner):
    """Raises a ValueError unless weights can be given with this combiner."""
    if combiner not in COMBINERS:
        raise ValueError(f"weights need a combiner ({', '.join(COMBINERS)}), got combiner {combiner!r}")


class LookedUpTable(NamedTuple):
    """A table and how its rows are looked up."""

    variable: EmbeddingVariable
    regularizer: Callable | None = None
    scale_grad_by_freq: bool = False


class FeatureInput(NamedTuple):
    """The keys of a feature in a call."""

    keys: FeatureKeys
    combiner: str | None
    weights: tf.Tensor | None  # float32 [n], of all keys that come in
    labels: tf.Tensor | None  # float64 [n]
    # Brings values [n, D] of keys, or [bags, D] of bags, into the shape of the input.
    restore: Callable
    table: int = 0

    @classmethod
    def of(
        cls,
        keys,
        combiner,
        *,
        name="keys",
        weights=None,
        labels=None,
        skipped=(),
        max_length=None,
        table=0,
        input_dim=None,
        each=False,
    ):
        """Takes keys as they come.

        Args:
            keys: int32, int64 or string tensor, `tf.RaggedTensor`, or with a combiner `tf.SparseTensor`.
            combiner: None, or how the last axis is pooled.
            name: what errors call the keys.
            weights: None or of the form of keys.
            labels: None or of the form of keys, or of their leading axes: then of all keys there.
            skipped: tuple of keys that are left out of bags; for a pooled feature only.
            max_length: int or None, how many keys of a bag count; for a pooled feature only.
            table: int, the number of the feature's table.
            input_dim: int or None, the table's bound on keys.
            each: bool. Every key is a bag of its own.

        Raises:
            TypeError, ValueError: if an argument is of another dtype or form.
        """
        if weights is not None:
            check_weights_combiner(combiner)
        if isinstance(keys, tf.SparseTensor):
            if combiner is None:
                raise ValueError(
                    f"{name}: sparse keys need a combiner ({', '.join(ALL_COMBINERS)}), each row being a bag; for one "
                    "row per key use tf.RaggedTensor.from_sparse(keys) or tf.sparse.to_dense(keys)"
                )
            form = _sparse_form(keys, name)
        elif isinstance(keys, tf.RaggedTensor):
            form = _ragged_form(keys, combiner, name)
        else:
            form = _dense_form(keys, combiner, name, each)
        pooled = combiner is not None
        return cls(
            FeatureKeys(
                name,
                form.keys,
                form.kind,
                form.row_splits,
                tuple(skipped) if pooled else (),
                max_length if pooled else None,
                input_dim,
            ),
            combiner,
            None if weights is None else form.per_key(weights, "weights", tf.float32),
            None if labels is None else form.per_key(labels, "labels", tf.float64, spread=True),
            form.restore,
            table,
        )

    @property
    def group(self):
        """Features of one group are duplicated by one op: (combiner or None for a gather, whether weights are given).

        A bag of one key that counts is that key's row.
        """
        if self.keys.kind == "each" and self.keys.keeps_all and self.weights is None:
            return (None, False)
        return (self.combiner, self.weights is not None)


class _Form(NamedTuple):
    keys: tf.Tensor  # for EmbeddingBags
    kind: str
    row_splits: tf.Tensor | None
    restore: Callable
    per_key: Callable  # (values, name, dtype, spread=False) -> [n]; spread: values may lack the last axis


def _reshape(values, leading, static_leading):
    """values [n, D] as leading + [D]; a reshape only where it changes the shape."""
    dim = values.shape[-1]
    if static_leading.rank != 1:
        values = tf.reshape(values, tf.concat([tf.cast(leading, tf.int32), [dim]], 0))
    return _with_static_shape(values, static_leading.concatenate([dim]))


def _with_static_shape(values, shape):
    if not tf.executing_eagerly() or not values.shape.is_fully_defined():
        values.set_shape(shape)
    return values


def _as_float(values, name, dtype):
    if not (values.dtype.is_floating or (name == "labels" and (values.dtype.is_integer or values.dtype.is_bool))):
        raise TypeError(f"{name} must be floats, got {values.dtype.name}")
    return tf.cast(values, dtype)


def _check_form(values, kind, name):
    if not isinstance(values, kind):
        raise TypeError(f"{name} must be a tf.{kind.__name__} as the keys are, got {type(values).__name__}")


def _dense_form(keys, combiner, name, each):
    keys = as_keys(keys, name)
    if combiner is not None and not each and keys.shape.rank == 0:
        raise ValueError(f"{name}: combiner {combiner!r} pools the last axis of the keys, got a scalar")
    pooled = combiner is not None and not each
    static = keys.shape[:-1] if pooled else keys.shape

    def restore(values):
        return _reshape(values, tf.shape(keys)[:-1] if pooled else tf.shape(keys), static)

    def per_key(values, what, dtype, spread=False):
        values = _as_float(tf.convert_to_tensor(values), what, dtype)
        rank = values.shape.rank
        if spread and rank is not None and rank < (keys.shape.rank or 0):
            shape = tf.concat([tf.shape(values), tf.ones([keys.shape.rank - rank], tf.int32)], 0)
            values = tf.broadcast_to(tf.reshape(values, shape), tf.shape(keys))
        elif not values.shape.is_compatible_with(keys.shape):
            raise ValueError(f"{what} must have the shape of the keys, {keys.shape}, got {values.shape}")
        elif not (values.shape.is_fully_defined() and keys.shape.is_fully_defined()):
            message = f"{what} must have the shape of the keys ({name})"
            with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(values), tf.shape(keys), message)]):
                values = tf.identity(values)
        return tf.reshape(values, [-1])

    return _Form(keys, "last_axis" if pooled else "each", None, restore, per_key)


def _ragged_form(keys, combiner, name):
    flat = as_keys(keys.flat_values, name)
    pooled = combiner is not None
    innermost = pooled and flat.shape.rank == 1  # the bags are ragged, else they are axes of the flat values

    def restore(values):
        if not innermost:
            leading, static = tf.shape(flat), flat.shape
            if pooled:
                leading, static = leading[:-1], static[:-1]
            return keys.with_flat_values(_reshape(values, leading, static))
        outer = keys.nested_row_splits[:-1]
        return tf.RaggedTensor.from_nested_row_splits(values, outer, validate=False) if outer else values

    def per_key(values, what, dtype, spread=False):
        if spread and isinstance(values, tf.Tensor) and values.shape.rank == 1:
            # One value for each row: each key takes that of its row.
            lengths = keys.with_flat_values(tf.ones_like(flat, tf.int32))
            lengths = tf.reduce_sum(lengths, axis=list(range(1, keys.shape.rank)))
            return tf.repeat(_as_float(values, what, dtype), lengths)
        _check_form(values, tf.RaggedTensor, what)
        message = f"{what} must have the row_splits of the keys ({name})"
        if len(values.nested_row_splits) != len(keys.nested_row_splits):
            raise ValueError(message)
        checks = [
            tf.debugging.assert_equal(tf.cast(got, tf.int64), tf.cast(want, tf.int64), message)
            for got, want in zip(values.nested_row_splits, keys.nested_row_splits, strict=True)
            if got is not want
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            return tf.reshape(_as_float(values.flat_values, what, dtype), [-1])

    if innermost:
        return _Form(flat, "ragged", tf.cast(keys.nested_row_splits[-1], tf.int64), restore, per_key)
    return _Form(flat, "last_axis" if pooled else "each", None, restore, per_key)


def _sparse_form(keys, name):
    values = as_keys(keys.values, name)
    rank = keys.shape.rank
    leading = keys.dense_shape[:-1]
    rows = keys.indices[:, 0] if rank == 2 else tf.sparse.reshape(keys, [tf.reduce_prod(leading), -1]).indices[:, 0]
    num_rows = tf.reduce_prod(leading)
    check = tf.debugging.assert_non_negative(
        rows[1:] - rows[:-1], f"{name}: the indices of sparse keys must be in row-major order; see tf.sparse.reorder"
    )
    with tf.control_dependencies([] if check is None else [check]):
        row_splits = tf.searchsorted(rows, tf.range(num_rows + 1))
    static = keys.shape[:-1]

    def restore(values):
        return _reshape(values, leading, static)

    def per_key(sparse, what, dtype, spread=False):
        if spread and isinstance(sparse, tf.Tensor) and sparse.shape.rank == 1:
            return tf.gather(_as_float(sparse, what, dtype), keys.indices[:, 0])
        _check_form(sparse, tf.SparseTensor, what)
        flat = _as_float(sparse.values, what, dtype)
        if sparse.indices is keys.indices:
            return flat
        message = f"{what} must have the indices of the keys ({name})"
        check = tf.debugging.assert_equal(sparse.indices, keys.indices, message)
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(flat)

    return _Form(values, "ragged", tf.cast(row_splits, tf.int64), restore, per_key)


@tf.custom_gradient
def _scale_gradient(rows, scale):
    """rows [U, D], whose gradient is multiplied by scale [U]."""
    return tf.identity(rows), lambda grad: (grad * scale[:, tf.newaxis], None)


def look_up(tables, features, *, insert=False, missing="initial", add_loss=None):
    """Looks up the keys of features in tables of one width D.

    Args:
        tables: list of `LookedUpTable`.
        features: list of `FeatureInput`.
        insert: bool. Insert missing keys, bound norms in place and count keys: what training does.
        missing: "initial" or "zeros".
        add_loss: what takes the regularizers' losses, or None: they are left out.

    Returns:
        list of tensors, one for each feature in order: the rows of its keys, or pooled.
    """
    order = sorted(range(len(features)), key=lambda f: (str(features[f].group), f))
    features = [features[f] for f in order]
    bags = embedding_bags([feature.keys for feature in features])
    variables = [table.variable for table in tables]
    unique_keys, inverse, counts, table_splits = key_dedup_by_table(
        bags.keys, bags.feature_splits, [feature.table for feature in features]
    )
    rows = lookup_tables(variables, unique_keys, table_splits, insert=insert, missing=missing)
    rows = _mask_padding(rows, unique_keys, table_splits, tables, features)
    if add_loss is not None and any(table.regularizer for table in tables):
        for table, table_rows in zip(tables, _by_table(rows, table_splits, len(tables)), strict=True):
            if table.regularizer:
                add_loss(table.regularizer(table_rows))
    if insert and any(variable.counts for variable in variables):
        _count(variables, features, bags, unique_keys, inverse, counts, table_splits)
    if any(table.scale_grad_by_freq for table in tables):
        parts = _by_table(counts, table_splits, len(tables))
        scales = [
            1.0 / tf.cast(part, tf.float32) if table.scale_grad_by_freq else tf.ones_like(part, tf.float32)
            for table, part in zip(tables, parts, strict=True)
        ]
        rows = _scale_gradient(rows, tf.concat(scales, 0))
    values = _duplicate(rows, inverse, features, bags)
    outputs = [None] * len(features)
    for f, value in zip(order, values, strict=True):
        outputs[f] = value
    return outputs


def _by_table(values, table_splits, num_tables):
    """values [U, ...] as a list of those of each table."""
    if num_tables == 1:
        return [values]
    return tf.split(values, table_splits[1:] - table_splits[:-1], num=num_tables)


def _mask_padding(rows, unique_keys, table_splits, tables, features):
    """Keeps gradients from the rows of padding keys. Bags have none: there they are skipped."""
    unpooled = {feature.table for feature in features if not feature.keys.skipped}
    padded = [t for t, table in enumerate(tables) if table.variable.padding_key is not None and t in unpooled]
    if not padded:
        return rows
    masks = [
        tf.cast(keys != tables[t].variable.padding_key, tf.float32) if t in padded else tf.ones_like(keys, tf.float32)
        for t, keys in enumerate(_by_table(unique_keys, table_splits, len(tables)))
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
    keys = _by_table(unique_keys, table_splits, len(variables))
    amounts = _by_table(tf.stack(amounts, 1), table_splits, len(variables))
    for variable, table_keys, table_amounts in zip(variables, keys, amounts, strict=True):
        if variable.counts:
            variable.count(table_keys, table_amounts[:, : variable.num_counts])


def _duplicate(rows, inverse, features, bags):
    """The values of each feature; `features` are sorted by their group."""
    groups = []
    for feature in features:
        if groups and groups[-1][0].group == feature.group:
            groups[-1].append(feature)
        else:
            groups.append([feature])
    num_keys = bags.feature_splits[1:] - bags.feature_splits[:-1]
    num_bags = bags.first_bags[1:] - bags.first_bags[:-1]
    bounds = [sum(map(len, groups[:g])) for g in range(len(groups) + 1)]
    sizes = [tf.reduce_sum(num_keys[a:b]) for a, b in _pairs(bounds)]
    inverses = _split(inverse, sizes)
    weights = [None] * len(groups)
    if any(feature.weights is not None for feature in features):
        # `kept` counts the keys of all features: those without weights stand in with ones.
        all_weights = [
            tf.ones([tf.size(feature.keys.keys)]) if feature.weights is None else feature.weights
            for feature in features
        ]
        weights = _split(_per_kept_key(features, bags, all_weights), sizes)
    outputs = []
    for group, group_inverse, group_weights, (a, b) in zip(groups, inverses, weights, _pairs(bounds), strict=True):
        combiner = group[0].group[0]
        if combiner is None:
            values, part_sizes = ops.embedding_duplicate(rows, group_inverse), num_keys[a:b]
        else:
            row_splits = bags.bag_splits
            if len(groups) > 1:
                row_splits = row_splits[bags.first_bags[a] : bags.first_bags[b] + 1]
                row_splits -= row_splits[0]
            part_sizes = num_bags[a:b]
            if combiner == "max":
                values = ops.embedding_max_pool(rows, group_inverse, row_splits)
            else:
                values = ops.embedding_duplicate(
                    rows,
                    group_inverse,
                    row_splits=row_splits,
                    weights=group_weights if group[0].weights is not None else None,
                    combiner=combiner,
                )
        parts = [values] if len(group) == 1 else tf.split(values, part_sizes, num=len(group))
        outputs += [feature.restore(part) for feature, part in zip(group, parts, strict=True)]
    return outputs


def _split(values, sizes):
    """values in parts of these sizes, a list of scalars."""
    return [values] if len(sizes) == 1 else tf.split(values, tf.stack(sizes), num=len(sizes))


def _pairs(bounds):
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def symbolic_output(keys, combiner, dim, dtype, name):
    """The `keras.KerasTensor` that looking up symbolic keys gives.

    Raises:
        TypeError, ValueError: if the keys cannot be looked up.
    """
    check_key_dtype(tf.as_dtype(keys.dtype), name)
    if combiner is None:
        if getattr(keys, "sparse", False):
            raise ValueError(f"{name}: sparse keys need a combiner ({', '.join(ALL_COMBINERS)}), got None")
        ragged_rank = getattr(keys, "ragged_rank", None)
        ragged = {"ragged": True, "ragged_rank": ragged_rank} if getattr(keys, "ragged", False) else {}
        return keras.KerasTensor((*keys.shape, dim), dtype=dtype, **ragged)
    if len(keys.shape) < 2:
        raise ValueError(
            f"{name}: combiner {combiner!r} pools the last axis of the keys, which must be [batch, ..., keys], "
            f"got shape {tuple(keys.shape)}"
        )
    ragged = {"ragged": True} if getattr(keys, "ragged", False) and len(keys.shape) > 2 else {}
    return keras.KerasTensor((*keys.shape[:-1], dim), dtype=dtype, **ragged)
