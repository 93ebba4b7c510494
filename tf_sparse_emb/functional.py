"""Lookups without a layer, by the names that TensorFlow's users know."""

import tensorflow as tf

from tf_sparse_emb.key_forms import FeatureInput, check_combiner
from tf_sparse_emb.look_up import LaidKeys, LookedUpTable, look_up
from tf_sparse_emb.ops.embedding_lookup import check_missing, check_table
from tf_sparse_emb.ops.keys import as_keys


def embedding_lookup(variable, keys, *, training=False, missing="initial"):
    """Looks up one row per key: `tf.nn.embedding_lookup` for a table.

    Keys are deduplicated first, so that a row is read, and its gradient travels, once.

    >>> table = tse.EmbeddingVariable(4)
    >>> tse.embedding_lookup(table, [[7, 2**40], [7, -1]], training=True).shape
    TensorShape([2, 2, 4])

    Args:
        variable: `tse.EmbeddingVariable` of width D.
        keys: int32, int64 or string tensor of any shape, or `tf.RaggedTensor`.
        training: bool, default False. Insert missing keys, bound norms in the table and count keys, unless the variable
            is not trainable.
        missing: "initial" (default) or "zeros": what a missing key reads as when it is not inserted.

    Returns:
        float32 of shape `keys.shape + [D]`, ragged where keys are.

    Raises:
        TypeError: if `variable` is no table or keys are of another dtype.
        ValueError: if keys are sparse: they need `embedding_lookup_sparse`.
        tf.errors.InvalidArgumentError: if a key is outside [0, input_dim) of a bounded table.
        tf.errors.ResourceExhaustedError: if the table would grow beyond its `max_rows`.
    """
    return _look_up(variable, keys, None, None, training, missing)


def embedding_lookup_sparse(
    variable, sp_keys, sp_weights=None, combiner="mean", *, training=False, missing="initial", name=None
):
    """Looks keys up and pools them row by row: `tf.nn.embedding_lookup_sparse` for a table.

        sum:   out[b] = sum_n w_n x_n       over the keys n of row b
        mean:  out[b] = sum_n w_n x_n / sum_n w_n
        sqrtn: out[b] = sum_n w_n x_n / sqrt(sum_n w_n^2)

    0 / 0 is 0: an empty row is zeros. Two differences from TensorFlow's function: there are always `dense_shape[0]`
    rows (TensorFlow leaves out empty rows at the end), and the table's padding key is left out.

    >>> table = tse.EmbeddingVariable(4, initializer="ones")
    >>> keys = tf.SparseTensor([[0, 0], [0, 1], [2, 0]], tf.constant([5, 6, 2**40], tf.int64), [4, 2])
    >>> tse.embedding_lookup_sparse(table, keys, combiner="sum")[:, 0]
    [2.0, 0.0, 1.0, 0.0]

    Args:
        variable: `tse.EmbeddingVariable` of width D.
        sp_keys: `tf.SparseTensor` of rank 2 or more in row-major order, or `tf.RaggedTensor`; int32, int64 or string.
        sp_weights: None (all 1) or floats of the same form, with sum, mean or sqrtn.
        combiner: "mean" (default), "sum", "sqrtn" or "max".
        training: bool, default False. Insert missing keys, bound norms in the table and count keys, unless the variable
            is not trainable.
        missing: "initial" (default) or "zeros": what a missing key reads as when it is not inserted.
        name: str or None, of the operation.

    Returns:
        float32 of shape `sp_keys.shape[:-1] + [D]`.

    Raises:
        TypeError: if `variable` is no table, sp_keys are neither sparse nor ragged, or sp_weights are not alike.
        ValueError: if the combiner is unknown, or takes no weights.
        tf.errors.InvalidArgumentError: if sparse indices are not in order, weights do not match the keys, or a key is
            outside [0, input_dim) of a bounded table.
    """
    check_combiner(combiner, or_none=False)
    if not isinstance(sp_keys, (tf.SparseTensor, tf.RaggedTensor)):
        raise TypeError(f"sp_keys must be a tf.SparseTensor or a tf.RaggedTensor, got {type(sp_keys).__name__}")
    with tf.name_scope(name or "embedding_lookup_sparse"):
        return _look_up(variable, sp_keys, sp_weights, combiner, training, missing)


def safe_embedding_lookup_sparse(
    variable,
    sp_keys,
    sp_weights=None,
    combiner="mean",
    default_key=None,
    *,
    training=False,
    missing="initial",
    name=None,
):
    """`embedding_lookup_sparse` that prunes and fills: `tf.nn.safe_embedding_lookup_sparse` for a table.

    Keys with a weight <= 0 are left out, unless the combiner is "sum". Negative keys are left out where the table has
    an input_dim; elsewhere they are keys like any other (TensorFlow leaves them out always). Rows that are empty then
    take the row of `default_key`, or zeros.

    >>> table = tse.EmbeddingVariable(2, input_dim=10, initializer="ones")
    >>> keys = tf.SparseTensor([[0, 0], [1, 0]], tf.constant([5, -1], tf.int64), [3, 1])
    >>> tse.safe_embedding_lookup_sparse(table, keys, combiner="sum")[:, 0]
    [1.0, 0.0, 0.0]

    Args:
        variable, sp_keys, sp_weights, combiner, training, missing, name: as for `embedding_lookup_sparse`.
        default_key: int, or str where the keys are strings, or None (default): the key of empty rows.

    Returns:
        float32 of shape `sp_keys.shape[:-1] + [D]`.

    Raises:
        As `embedding_lookup_sparse`.
    """
    check_table(variable, "variable")
    check_combiner(combiner, or_none=False)
    if default_key is not None:
        default_key = _as_default_key(default_key, getattr(sp_keys, "dtype", None) == tf.string)
    with tf.name_scope(name or "safe_embedding_lookup_sparse"):
        if isinstance(sp_keys, tf.RaggedTensor):
            sp_keys = sp_keys.to_sparse()
            sp_weights = sp_weights.to_sparse() if isinstance(sp_weights, tf.RaggedTensor) else sp_weights
        if not isinstance(sp_keys, tf.SparseTensor):
            raise TypeError(f"sp_keys must be a tf.SparseTensor or a tf.RaggedTensor, got {type(sp_keys).__name__}")
        if sp_weights is not None and not isinstance(sp_weights, tf.SparseTensor):
            raise TypeError(f"sp_weights must be a tf.SparseTensor as the keys are, got {type(sp_weights).__name__}")
        if sp_keys.shape.rank is None or sp_keys.shape.rank < 2:
            raise ValueError(f"sp_keys must have a known rank of 2 or more, got shape {sp_keys.shape}")
        # Checks them, and brings them to [rows, keys].
        feature = FeatureInput.of(sp_keys, combiner, name=_name(variable), weights=sp_weights)
        row_shape, static = sp_keys.dense_shape[:-1], sp_keys.shape[:-1]
        with tf.control_dependencies(feature.checks):
            keys, weights = tf.identity(feature.keys.keys), feature.weights
        rows = tf.repeat(
            tf.range(tf.reduce_prod(row_shape)), feature.keys.row_splits[1:] - feature.keys.row_splits[:-1]
        )
        keep = tf.ones_like(keys, tf.bool)
        if variable.input_dim is not None:
            keep &= keys >= 0
        if weights is not None and combiner != "sum":
            keep &= weights > 0
        if default_key is not None:
            kept = tf.math.unsorted_segment_max(tf.cast(keep, tf.int32), rows, tf.reduce_prod(row_shape))
            empty = tf.where(kept < 1)[:, 0]
            fill = tf.fill([tf.size(empty)], default_key)
            rows, keys = tf.concat([rows[keep], empty], 0), tf.concat([keys[keep], fill], 0)
            order = tf.argsort(rows, stable=True)
            rows, keys = tf.gather(rows, order), tf.gather(keys, order)
            if weights is not None:
                weights = tf.gather(tf.concat([weights[keep], tf.ones([tf.size(empty)])], 0), order)
        else:
            rows, keys = rows[keep], keys[keep]
            weights = None if weights is None else weights[keep]
        bags = tf.RaggedTensor.from_value_rowids(keys, rows, tf.reduce_prod(row_shape), validate=False)
        bag_weights = None if weights is None else bags.with_values(weights)
        pooled = _look_up(variable, bags, bag_weights, combiner, training, missing)
        if static.rank != 1:
            pooled = tf.reshape(pooled, tf.concat([row_shape, [variable.dim]], 0))
        return tf.ensure_shape(pooled, static.concatenate([variable.dim]))


def _look_up(variable, keys, weights, combiner, training, missing):
    check_table(variable, "variable")
    check_missing(missing)
    feature = FeatureInput.of(
        keys,
        combiner,
        name=_name(variable),
        weights=weights,
        skipped=() if variable.padding_key is None else (variable.padding_key,),
        input_dim=variable.input_dim,
    )
    laid = LaidKeys.of([LookedUpTable(variable)], [feature])
    return look_up(laid, insert=bool(training) and variable.trainable, missing=missing)[0]


def _as_default_key(key, keys_are_strings):
    converted = as_keys(key, "default_key")
    if (tf.convert_to_tensor(key, dtype_hint=tf.int64).dtype == tf.string) != keys_are_strings:
        raise TypeError(
            f"default_key must be {'a str' if keys_are_strings else 'an int'}, as the keys are, got {key!r}"
        )
    if converted.shape.rank not in (0, None):
        raise ValueError(f"default_key must be one key, got shape {converted.shape}")
    return converted


def _name(variable):
    return f"keys of '{variable.path}'"
