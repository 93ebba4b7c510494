"""A walk through tables that says whether they are whole: a debug aid."""

import tensorflow as tf

from tf_sparse_emb.table_arguments import check_flag
from tf_sparse_emb.variable import EmbeddingVariable


def check(tables, finite=True):
    """Walks tables and raises unless they are whole: a debug aid, for tests and for jobs that behave strangely.

    Every row is visited where it stands and its key is looked up again. What must hold: index and rows agree; no key is
    there twice and no row belongs to two keys; as many rows are found as `size()` says, not more than `max_rows`, each
    in [0, input_dim) and, of a table on parameter servers, on the server that has its key; the lists of free rows are
    what is free; the rows that are remembered for the next update are those of their keys; rows, optimizer state and
    counts are finite.

    It takes about two lookups of every key and, beside the rows, some bytes for each key of a small part of the table.
    It may run beside anything: lookups that insert nothing go on, what changes the table waits.

    >>> layer = tse.Embedding(None, 4, seed=1)
    >>> _ = layer(np.array([3, 2**60]), training=True)
    >>> int(tse.check(layer))
    2

    Args:
        tables: `tse.EmbeddingVariable`, or a layer or model, of which all tables are walked.
        finite: bool, default True. False lets rows and state pass that are not finite.

    Returns:
        int64 scalar tensor: how many rows were found.

    Raises:
        tf.errors.DataLossError: names the table, the key and what is wrong with it.
        TypeError: if `tables` is no table and no built layer or model.
        ValueError: if it has no table (a layer has none before it is built).
    """
    check_flag("finite", finite)
    return tf.add_n([table.table.check_rows(bool(finite)) for table in _tables_of(tables)])


def _tables_of(owner):
    if isinstance(owner, EmbeddingVariable):
        return [owner]
    if not isinstance(getattr(owner, "variables", None), (list, tuple)):
        raise TypeError(f"tables must be a tse.EmbeddingVariable, a layer or a model, got {type(owner).__name__}")
    # A layer of tse.legacy has its tables in weights of its own kind.
    found = [getattr(variable, "table", None) if not _is_table(variable) else variable for variable in owner.variables]
    found = [table for table in found if _is_table(table)]
    if not found:
        raise ValueError(
            f"tables must have at least one table, got {type(owner).__name__} '{getattr(owner, 'name', '')}' without "
            "any (a layer has none before it is built)"
        )
    return found


def _is_table(variable):
    return isinstance(variable, EmbeddingVariable)
