"""Tables as optimizers see them: several at once, and their slots."""

import tensorflow as tf

from tf_sparse_emb.ops.embedding_key_dedup import split_by_table
from tf_sparse_emb.ops.keys import as_keys


class TableGroup:
    """Tables of one width that a step updates by one op; it stands where a variable would.

    Attributes:
        tables: list of T `tse.EmbeddingVariable`.
        shape: that of each, (0, D).
        table_splits: int64 [T + 1]: the unique keys of table t stand from table_splits[t] to table_splits[t + 1] - 1.
    """

    def __init__(self, tables, table_splits):
        self.tables, self.table_splits = tables, table_splits
        self.shape = tables[0].shape

    def split(self, values):
        """Returns values [U, ...] as a list of those of each table."""
        return split_by_table(values, self.table_splits, len(self.tables))

    def split_gradient(self, gradient):
        """Returns the `IndexedSlices` of each table."""
        parts = zip(self.split(gradient.values), self.split(gradient.indices), strict=True)
        return [tf.IndexedSlices(values, keys, gradient.dense_shape) for values, keys in parts]


class TableSlot(tf.train.experimental.PythonState):
    """A slot of an optimizer for a table: it lives in the table's rows, and is read by key.

    Attributes:
        name: str.
        width: int, floats a row.
    """

    def __init__(self, table, name, begin, end):
        self.name, self.width = name, end - begin
        self._table, self._columns = table, slice(table.dim + begin, table.dim + end)

    def lookup(self, keys):
        """Returns the slot of keys, float32 `keys.shape + [width]`; a key that is not there has its initial value."""
        keys = as_keys(keys)
        rows = self._table.read_rows(tf.reshape(keys, [-1]), with_state=True)[:, self._columns]
        return tf.reshape(rows, tf.concat([tf.shape(keys), [self.width]], 0))

    # An optimizer of tf_keras lends its slots to a tf.train.Checkpoint, which takes objects of this kind.

    def serialize(self):
        """Returns nothing: the slot is saved with the table's rows."""
        return ""

    def deserialize(self, string_value):
        """Does nothing: the slot is restored with the table's rows."""

    def export(self):
        """Returns all keys, int64 [V], and their slots, float32 [V, width]."""
        keys, rows = self._table.export(with_state=True)
        return keys, rows[:, self._columns]


def constrain(table, keys):
    """Applies a table's constraint to the rows of keys, but for the padding key's."""
    if table.constraint is None:
        return
    if table.padding_key is not None:
        keys = tf.boolean_mask(keys, keys != table.padding_key)
    table.upsert(keys, table.constraint(table.read_rows(keys)))
