"""What an optimizer knows of the variables that it was built for."""

import tensorflow as tf

NOT_SAVED = (
    "the state of this optimizer cannot be saved yet: a part of it is in the rows of embedding tables, "
    "and would be lost"
)


class StateInTables(tf.train.experimental.PythonState):
    """Tells a `tf.train.Checkpoint` of the optimizer that it would be saved without the tables' part of its state."""

    def serialize(self):
        """Raises."""
        raise TypeError(NOT_SAVED)

    def deserialize(self, string_value):
        """Raises."""
        raise TypeError(NOT_SAVED)


class Bound:
    """The variables an optimizer was built for, by Keras' variable key.

    A plain object: Keras would take variables in an optimizer's lists and dicts for the optimizer's own.
    """

    def __init__(self):
        """Knows none."""
        self.variables = []
        self.tables = {}  # key -> EmbeddingVariable
        self.bindings = {}  # key -> the binding of that table
        self.slots = {}  # key of a plain variable -> {slot name: variable}
        self.row_wise = set()  # keys of the plain variables with row-wise state
        self.owners = {}  # key -> the other optimizer that updates this variable
        self.others = []  # those optimizers: (optimizer, its variables)
        self.rates = {}  # key -> the learning rate that overrides the optimizer's
        self.learning_rate = None  # of the step under way
