"""What a `tf.function` makes of a table among its arguments."""

import weakref

import tensorflow as tf


class TableType(tf.types.experimental.TraceType):
    """The type of one table: a function is traced for each that it is called with, which it does not keep alive."""

    def __init__(self, table):
        self._table, self._hash = weakref.ref(table), id(table)

    def is_subtype_of(self, other):
        """Whether it is of the same table."""
        return self == other

    def most_specific_common_supertype(self, others):
        """Itself, or None: different tables have no type in common."""
        return self if all(self == other for other in others) else None

    def placeholder_value(self, placeholder_context):
        """The table itself: its handle is captured where the function uses it."""
        return self._table()

    def cast(self, value, cast_context):
        """The table as it is."""
        return value

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return isinstance(other, TableType) and self._table() is not None and self._table() is other._table()

    def __repr__(self):
        return f"TableType({self._table()!r})"
