"""EmbeddingLookup: one row per key."""

import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.ops.embedding_key_dedup import split_by_table
from tf_sparse_emb.ops.embedding_partition import partition_keys
from tf_sparse_emb.ops.keys import as_keys
from tf_sparse_emb.servers import is_parameter_server_strategy
from tf_sparse_emb.table_arguments import is_word

# The first dimension of a table's gradient as IndexedSlices. Huge on purpose: whatever would make a dense tensor of
# it fails at once.
MAX_KEYS = 2**62


class DistinctSlices(tf.IndexedSlices):
    """The gradient of one table from one lookup of keys that differ: nothing in it needs to be summed.

    TensorFlow makes plain `IndexedSlices` of several of them, and wherever one leaves its graph.

    Attributes:
        whole: (keys [U], table_splits [T + 1] or None, grads [U, D]) of all tables of the lookup.
        table: int, which of its tables this is.
    """

    def __init__(self, slices, whole, table):
        super().__init__(slices.values, slices.indices, slices.dense_shape)
        self.whole, self.table = whole, table


def whole_lookup(slices):
    """Returns `whole` if these gradients are those of all tables of one lookup, in their order; else None."""
    if not all(isinstance(part, DistinctSlices) and part.whole is slices[0].whole for part in slices):
        return None
    splits = slices[0].whole[1]
    num_tables = 1 if splits is None else splits.shape[0] - 1
    return slices[0].whole if [part.table for part in slices] == list(range(num_tables)) else None


def check_table(table, name="table"):
    """Raises a TypeError unless `table` is an embedding table's variable."""
    if not hasattr(table, "shards"):
        raise TypeError(f"{name} must be a tse.EmbeddingVariable, got {type(table).__name__}")


def check_missing(missing):
    """Raises a ValueError unless `missing` says what a missing key reads as."""
    if not is_word(missing, ("initial", "zeros")):
        raise ValueError(f"missing must be 'initial' or 'zeros', got {missing!r}")


def embedding_lookup(table, keys, *, insert=False, missing="initial"):
    """Looks up one row per key.

    A key that is not in the table reads as its initial row, a function of (seed, key) alone. A row beyond the table's
    max_norm is scaled, with `insert` in the table, without in the output alone. The gradient
    reaches the table's variable as `tf.IndexedSlices(grad, keys)`; look up unique keys (`embedding_key_dedup`) to
    move each row once.

    >>> table = tse.EmbeddingVariable(4)
    >>> tse.ops.embedding_lookup(table, [7, 2**40], insert=True).shape
    TensorShape([2, 4])

    Args:
        table: `tse.EmbeddingVariable` of width D.
        keys: int32, int64 or string tensor of any shape; keys may repeat.
        insert: bool, default False. Insert missing keys with their initial rows.
        missing: "initial" (default) or "zeros": what a missing key reads as when it is not inserted.

    Returns:
        float32 tensor of shape `keys.shape + [D]`.

    Raises:
        TypeError: if `table` is no table or keys are of another dtype.
        ValueError: if `missing` is another word.
        tf.errors.InvalidArgumentError: if a key is outside [0, input_dim) of a bounded table.
        tf.errors.ResourceExhaustedError: if the table would grow beyond its `max_rows`.
    """
    check_table(table)
    check_missing(missing)
    keys = as_keys(keys)
    rows = lookup_tables([table], tf.reshape(keys, [-1]), None, insert=insert, missing=missing)
    if keys.shape.rank == 1:
        return rows
    return tf.ensure_shape(tf.reshape(rows, tf.concat([tf.shape(keys), [table.dim]], 0)), keys.shape + [table.dim])


def lookup_tables(tables, keys, table_splits, *, insert, missing, keys_differ=False):
    """The rows [N, D] of keys int64 [N] of tables of one width; table_splits [T + 1] says whose keys stand where.

    `keys_differ` is the caller's word that no key of a table comes twice: gradients are `DistinctSlices` then.
    """
    splits = [] if len(tables) == 1 else [table_splits]
    anchors = [table.value for table in tables]
    options = {"insert": insert, "missing": missing, "keys_differ": keys_differ}
    servers = servers_of(tables)
    if servers is None:
        handles = [table.shards[0].resource_handle for table in tables]
        return library.sparse_emb_embedding_lookup(
            tables=handles, keys=keys, table_splits=splits, anchors=anchors, **options
        )
    # One request a server. What gradients flow to stays here, at the end.
    partition = partition_keys(keys, table_splits, len(tables), len(servers.devices))
    parts = []
    for s, device in enumerate(servers.devices):
        with tf.device(device):
            rows = library.sparse_emb_embedding_lookup(
                tables=[table.shards[s].resource_handle for table in tables],
                keys=partition.keys[s],
                table_splits=[] if len(tables) == 1 else [partition.table_splits[s]],
                anchors=[tf.zeros([0, table.dim]) for table in tables],
                **options,
            )
            parts.append(tf.cast(rows, servers.wire_dtype))
    return library.sparse_emb_embedding_stitch_rows(
        parts=[tf.cast(part, tf.float32) for part in parts],
        positions=partition.positions,
        keys=keys,
        table_splits=splits,
        anchors=anchors,
        keys_differ=keys_differ,
    )


def servers_of(tables):
    """The servers that tables are spread over, or None if they are of this process.

    Raises:
        RuntimeError: if they are not of one kind, or this is not the place to use them.
    """
    places = {table.servers for table in tables}
    if len(places) > 1:
        raise RuntimeError(
            "tables of one layer must all be of this process or all spread over the same servers, got "
            + " and ".join(f"'{table.path}' {_place(table.servers)}" for table in tables)
        )
    (servers,) = places
    if servers is None and is_parameter_server_strategy(tf.distribute.get_strategy()):
        raise RuntimeError(
            f"table '{tables[0].path}' is of this process, and workers of a ParameterServerStrategy cannot reach it: "
            "build its layer in the strategy's scope"
        )
    return servers


def _place(servers):
    return "is of this process" if servers is None else f"is spread over {len(servers.devices)} servers"


@tf.RegisterGradient("SparseEmb>EmbeddingLookup")
def _embedding_lookup_gradient(op, grad):
    return _looked_up_gradients(op, op.get_attr("num_tables"), grad)


@tf.RegisterGradient("SparseEmb>EmbeddingStitchRows")
def _embedding_stitch_rows_gradient(op, grad):
    return _looked_up_gradients(op, 2 * op.get_attr("num_servers"), grad)


def _looked_up_gradients(op, keys_input, grad):
    """The gradients of an op's inputs, of which keys and table_splits are these two."""
    table_splits = op.inputs[keys_input + 1] if op.get_attr("num_tables") > 1 else None
    return table_gradients(op, op.inputs[keys_input], table_splits, grad, op.get_attr("keys_differ"))


def table_gradients(op, keys, table_splits, grad, keys_differ):
    """The gradients of an op's inputs, which end with the anchors of the tables whose keys these are."""
    num_tables = op.get_attr("num_tables")
    anchors = op.inputs[-num_tables:]
    dense_shape = tf.constant([MAX_KEYS, anchors[0].shape[1]], tf.int64)
    grad = tf.convert_to_tensor(grad)
    if num_tables == 1:
        # An identity, because what a gradient function returns must be of the graph that is being built.
        keys = tf.identity(keys)
        slices = [tf.IndexedSlices(grad, keys, dense_shape)]
        table_splits = None
    else:
        parts = (split_by_table(values, table_splits, num_tables) for values in (grad, keys))
        slices = [tf.IndexedSlices(*pair, dense_shape) for pair in zip(*parts, strict=True)]
    if keys_differ:
        whole = (keys, table_splits, grad)
        slices = [DistinctSlices(part, whole, t) for t, part in enumerate(slices)]
    return [None] * (len(op.inputs) - num_tables) + slices
