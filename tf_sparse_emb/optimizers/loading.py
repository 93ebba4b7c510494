"""Loading an optimizer's variables before they are there."""

import types

import tensorflow as tf


class LoadsBeforeBuild:
    """An optimizer that keeps what is loaded before it is built; Keras' would leave it out, with a warning.

    `build` must call `_take_loaded` at its end.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Not a dict: Keras would track it.
        self._loaded = types.SimpleNamespace(variables=None)

    def load_own_variables(self, store):
        """Restores the step and the state of plain variables; the state of tables is restored with their rows."""
        if self.built:
            super().load_own_variables(store)
        else:
            self._loaded.variables = {key: store[key] for key in store.keys()}  # noqa: SIM118, a store is no dict

    def _take_loaded(self):
        loaded, self._loaded.variables = self._loaded.variables, None
        if loaded is not None:
            with tf.init_scope():  # `fit` may build while it traces a step
                super().load_own_variables(loaded)
