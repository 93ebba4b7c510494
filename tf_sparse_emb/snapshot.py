"""A table's content at one moment, in memory."""

import numpy as np


class TableSnapshot:
    """What `get_weights` returns for an embedding table, and `set_weights` takes: keys, rows and state.

    Its `shape` is that of the table's variable, (0, D), however many rows it holds: Keras compares the two. It is no
    array: what would take it for one raises a TypeError.

    >>> table = tse.EmbeddingVariable(4, seed=1)
    >>> _ = table.lookup([7, 9], insert=True)
    >>> snapshot = table.numpy()
    >>> table.clear()
    >>> table.assign(snapshot)
    >>> int(table.size())
    2

    Attributes:
        keys: int64 [V].
        rows: float32 [V, D], the embeddings.
        state: float32 [V, S], the optimizer's state, that of `rule`.
        counts: float64 [V, K]; see `counts` of `tse.EmbeddingVariable`.
        rule: str, the update rule that the table was bound to; empty if to none.
    """

    def __init__(self, keys, rows, state, counts, rule):
        self.keys, self.rows, self.state, self.counts, self.rule = keys, rows, state, counts, rule

    @property
    def shape(self):
        """(0, D)."""
        return (0, self.rows.shape[1])

    @property
    def dtype(self):
        """That of the rows."""
        return self.rows.dtype

    def __eq__(self, other):
        """Whether both hold the same rows, state and counts under the same keys, in whatever order."""
        if not isinstance(other, TableSnapshot):
            return NotImplemented
        if self.rule != other.rule or len(self.keys) != len(other.keys):
            return False
        mine, theirs = np.argsort(self.keys), np.argsort(other.keys)
        return all(
            np.array_equal(getattr(self, part)[mine], getattr(other, part)[theirs])
            for part in ("keys", "rows", "state", "counts")
        )

    __hash__ = None

    def __repr__(self):
        """Names its size."""
        return f"<TableSnapshot of {len(self.keys)} rows of width {self.rows.shape[1]}>"

    def __array__(self, *args, **kwargs):
        """Raises: keys and rows are no single array."""
        raise TypeError("a TableSnapshot is no array; its arrays are keys, rows, state and counts")
