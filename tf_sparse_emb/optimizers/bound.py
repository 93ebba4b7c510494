"""What an optimizer knows of the variables that it was built for."""


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
