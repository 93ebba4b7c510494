"""The ops of a forward pass by TensorFlow's own: stand-ins for those of `gen_ops.library`, by the same names.

Keys are not deduplicated: without a gradient a row may be gathered twice, which costs less than finding out.
"""

import tensorflow as tf

from tf_sparse_emb.serving.folded_table import assert_in_range


class StockOps:
    """The ops on folded tables.

    Args:
        find_table: function that returns the `FoldedTable` of a table's handle.
        missing: "initial" or "zeros", what missing keys read as; None: what each lookup asks for.
        on_call: function, called at every op.
    """

    def __init__(self, find_table, missing, on_call):
        self._find_table = find_table
        self._missing = missing
        self._on_call = on_call
        self._identity = None  # the inverse of the last dedup, where that is 0, 1, 2 ...

    def __getattr__(self, name):
        if not name.startswith("sparse_emb_"):
            raise AttributeError(name)
        op = name.removeprefix("sparse_emb_")
        if op == "embedding_table":
            raise ValueError(
                "the call of the model creates an embedding table, and an export has nothing to put into it: build "
                "the model first, by calling it on data or by fit"
            )
        raise ValueError(f"the call of the model uses {op}, which has no counterpart in an export for serving")

    def sparse_emb_embedding_bags(
        self,
        *,
        keys,
        row_splits,
        names,
        kinds,
        skipped,
        skipped_counts,
        max_lengths,
        input_dims,
        with_splits,
        with_kept,
        same_bags,
    ):
        """Lays keys in bags; see `tf_sparse_emb.ops.embedding_bags`."""
        self._on_call()
        row_splits, skipped = list(row_splits), list(skipped)
        all_keys, sizes, num_bags, all_splits, kept = [], [], [], [], []
        first_key, position = tf.constant(0, tf.int64), tf.constant(0, tf.int64)
        for f, (keys_in, kind) in enumerate(zip(keys, kinds, strict=True)):
            feature_skipped, skipped = skipped[: skipped_counts[f]], skipped[skipped_counts[f] :]
            flat = tf.reshape(keys_in, [-1])
            splits = None
            if kind == "ragged":
                splits = row_splits.pop(0)
            elif kind == "last_axis":
                length = tf.shape(keys_in, tf.int64)[-1]
                splits = length * tf.range(tf.reduce_prod(tf.shape(keys_in, tf.int64)[:-1]) + 1)
            elif with_splits or feature_skipped or max_lengths[f] >= 0:
                splits = tf.range(tf.size(flat, tf.int64) + 1)
            checks = []
            if kind == "ragged":
                checks.append(_assert_splits(splits, flat, names[f]))
            if input_dims[f] >= 0:
                checks.append(assert_in_range(flat, input_dims[f], names[f], feature_skipped))
            with tf.control_dependencies(checks):
                flat = tf.identity(flat)
                splits = None if splits is None else tf.identity(splits)
            size_in = tf.size(flat, tf.int64)
            if feature_skipped or max_lengths[f] >= 0:
                flat, splits, places = _leave_out(flat, splits, feature_skipped, max_lengths[f])
            else:
                places = tf.range(size_in)
            all_keys.append(flat)
            sizes.append(tf.size(flat, tf.int64))
            num_bags.append(tf.size(flat if splits is None else splits[1:], tf.int64))
            if with_splits:
                all_splits.append(first_key + splits[1:])
            kept.append(position + places)
            first_key, position = first_key + sizes[-1], position + size_in
        with tf.control_dependencies([_assert_same(num_bags, names)] if same_bags else []):
            bag_keys = tf.identity(_concat(all_keys))
        return (
            bag_keys,
            _ends(sizes),
            _ends(num_bags),
            tf.concat([[0], *all_splits], 0) if with_splits else tf.zeros([0], tf.int64),
            _concat(kept) if with_kept else tf.zeros([0], tf.int64),
        )

    def sparse_emb_embedding_key_dedup(self, *, keys, feature_splits, tables=(0,)):
        """All keys, table by table, repeated ones too: unique_keys, inverse, counts and table_splits."""
        self._on_call()
        inverse = tf.range(tf.size(keys))
        counts = tf.ones_like(inverse)
        num_tables = max(tables) + 1
        if not feature_splits:
            self._identity = inverse
            return keys, inverse, counts, tf.stack([0, tf.size(keys, tf.int64)])
        sizes = feature_splits[0][1:] - feature_splits[0][:-1]
        table_splits = _ends(tf.unstack(tf.math.unsorted_segment_sum(sizes, list(tables), num_tables), num_tables))
        order = sorted(range(len(tables)), key=lambda f: tables[f])
        if order == list(range(len(tables))):
            self._identity = inverse
            return keys, inverse, counts, table_splits
        parts = tf.split(keys, sizes, num=len(tables))
        places = tf.split(inverse, sizes, num=len(tables))
        # places[order] says where the keys in order came from: its inverse permutation leads back.
        came_from = tf.concat([places[f] for f in order], 0)
        leads_back = tf.tensor_scatter_nd_update(tf.zeros_like(inverse), came_from[:, tf.newaxis], inverse)
        return tf.concat([parts[f] for f in order], 0), leads_back, counts, table_splits

    def sparse_emb_embedding_lookup(self, *, tables, keys, table_splits, anchors, insert, missing, keys_differ):
        """The rows of keys; inserts nothing."""
        self._on_call()
        missing = self._missing or missing
        folded = [self._find_table(handle) for handle in tables]
        if len(folded) == 1:
            return folded[0].lookup(keys, missing)
        sizes = table_splits[0][1:] - table_splits[0][:-1]
        parts = tf.split(keys, sizes, num=len(folded))
        return tf.concat([table.lookup(part, missing) for table, part in zip(folded, parts, strict=True)], 0)

    def sparse_emb_embedding_dedup_lookup(
        self, *, tables, keys, feature_splits, anchors, feature_tables, insert, missing
    ):
        """The two together."""
        unique_keys, inverse, counts, table_splits = self.sparse_emb_embedding_key_dedup(
            keys=keys, feature_splits=feature_splits, tables=feature_tables
        )
        rows = self.sparse_emb_embedding_lookup(
            tables=tables,
            keys=unique_keys,
            table_splits=[] if len(tables) == 1 else [table_splits],
            anchors=anchors,
            insert=insert,
            missing=missing,
            keys_differ=True,
        )
        return unique_keys, inverse, counts, table_splits, rows

    def sparse_emb_embedding_table_contains(self, table, keys):
        """Whether keys have rows."""
        self._on_call()
        return self._find_table(table).contains(keys)

    def sparse_emb_embedding_duplicate(self, rows, inverse, *, combiner, row_splits, weights, num_features):
        """The gather, or pooled rows; those of several features side by side."""
        self._on_call()
        values = self._duplicate(rows, inverse, combiner, row_splits, weights)
        if num_features == 1:
            return values
        width = values.shape[1]
        by_feature = tf.reshape(values, [num_features, -1, width])
        return tf.reshape(tf.transpose(by_feature, [1, 0, 2]), [-1, num_features * width])

    def _duplicate(self, rows, inverse, combiner, row_splits, weights):
        if inverse is not self._identity:
            rows = tf.gather(rows, inverse)
        if combiner == "none":
            return rows
        (splits,) = row_splits
        bag, num_bags = _bag_of_each(splits, tf.size(inverse)), tf.size(splits) - 1
        weights = weights[0] if weights else None
        pooled = rows if weights is None else rows * weights[:, tf.newaxis]
        pooled = tf.math.unsorted_segment_sum(pooled, bag, num_bags)
        if combiner == "sum":
            return pooled
        if weights is None:
            divisor = tf.cast(splits[1:] - splits[:-1], tf.float32)
        else:
            divisor = tf.math.unsorted_segment_sum(weights if combiner == "mean" else weights**2, bag, num_bags)
        divisor = divisor if combiner == "mean" else tf.sqrt(divisor)
        return pooled * tf.math.divide_no_nan(1.0, divisor)[:, tf.newaxis]

    def sparse_emb_embedding_max_pool(self, rows, inverse, row_splits):
        """The greatest elements of bags, and no argmax."""
        self._on_call()
        if inverse is not self._identity:
            rows = tf.gather(rows, inverse)
        bag = _bag_of_each(row_splits, tf.size(inverse))
        greatest = tf.math.unsorted_segment_max(rows, bag, tf.size(row_splits) - 1)
        return tf.where((row_splits[1:] > row_splits[:-1])[:, tf.newaxis], greatest, 0.0), None


def _concat(parts):
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)


def _ends(sizes):
    """0, and where each of the parts of these sizes ends."""
    return tf.concat([[0], tf.cumsum(tf.stack(sizes))], 0)


def _assert_splits(splits, keys, name):
    is_right = (splits[0] == 0) & (splits[-1] == tf.size(keys, tf.int64)) & tf.reduce_all(splits[1:] >= splits[:-1])
    message = f"row_splits must go from 0 to the number of keys and not descend ({name}), got"
    return tf.raw_ops.Assert(condition=is_right, data=[message, splits], summarize=20)


def _assert_same(num_bags, names):
    is_same = tf.reduce_all(tf.equal(tf.stack(num_bags), num_bags[0]))
    message = f"all features must have as many bags ({', '.join(names)}), got"
    return tf.raw_ops.Assert(condition=is_same, data=[message, tf.stack(num_bags)], summarize=len(names))


def _bag_of_each(splits, num_keys):
    """The bag of each of the keys: how many bags have ended before it."""
    ended = tf.math.unsorted_segment_sum(tf.ones_like(splits[1:]), splits[1:], num_keys + 1)
    return tf.cumsum(ended[:num_keys])


def _leave_out(keys, splits, skipped, max_length):
    """Keys without skipped ones and those beyond max_length: keys, splits, and where each stood."""
    keep = tf.ones_like(keys, tf.bool)
    for key in skipped:
        keep &= tf.not_equal(keys, key)
    if max_length >= 0:
        places = tf.range(tf.size(keys, tf.int64))
        keep &= places - tf.gather(splits, _bag_of_each(splits, tf.size(keys))) < max_length
    num_kept = tf.concat([[0], tf.cumsum(tf.cast(keep, tf.int64))], 0)
    places = tf.where(keep)[:, 0]
    return tf.gather(keys, places), tf.gather(num_kept, splits), places
