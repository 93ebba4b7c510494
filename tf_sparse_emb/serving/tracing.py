"""Traces of a model's call that leave nothing behind in the model."""

import contextlib
import types

import tensorflow as tf


class Tracing:
    """Traces functions anew.

    A `tf.function` keeps its traces. One that the model calls would hand over an old trace, with the table's own ops,
    or keep a new one, with the export's: `fresh_methods` gives layers new functions while it lasts, and `check`
    refuses all others.
    """

    def __init__(self):
        self._graphs = []

    def function(self, python_function, input_signature=None, autograph=True):
        """A new `tf.function`, whose trace `check` accepts."""

        def traced(*args, **kwargs):
            self._graphs.append(tf.compat.v1.get_default_graph())
            return python_function(*args, **kwargs)

        return tf.function(traced, input_signature, autograph=autograph)

    @contextlib.contextmanager
    def fresh_methods(self, layers):
        """Within it, methods of layers that are `tf.function`s are new ones."""
        changed = []
        try:
            for layer in layers:
                for name, method in _functions_of(layer):
                    changed.append((layer, name))
                    fresh = self.function(types.MethodType(method.python_function, layer), method.input_signature)
                    # Past Keras' __setattr__, which would track it.
                    object.__setattr__(layer, name, fresh)
            yield
        finally:
            for layer, name in changed:
                object.__delattr__(layer, name)

    def check(self):
        """Raises a ValueError inside of the trace of a `tf.function` that is not of this object."""
        graph = tf.compat.v1.get_default_graph()
        while getattr(graph, "outer_graph", None) is not None:
            # Branches and loop bodies are graphs of subclasses.
            if type(graph).__name__ == "FuncGraph" and not any(graph is known for known in self._graphs):
                raise ValueError(
                    f"the model calls the tf.function '{graph.name}', which would keep what is traced for the export. "
                    "Methods of layers may be tf.functions, others may not: remove the decorator, or call its "
                    "python_function"
                )
            graph = graph.outer_graph


def _functions_of(layer):
    """(name, method) of the methods of a layer's classes that are `tf.function`s."""
    found = {}
    for kind in reversed(type(layer).__mro__):
        found.update(vars(kind))
    for name, value in found.items():
        if isinstance(value, tf.types.experimental.PolymorphicFunction) and name not in vars(layer):
            yield name, value
