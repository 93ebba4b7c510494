"""Which variables have a learning rate or an optimizer of their own."""

import re

import keras

from tf_sparse_emb.variable import EmbeddingVariable


class Overrides:
    """An ordered list of (regular expression, learning rate or optimizer); the first found in a path holds.

    Args:
        overrides: None or dict of table, layer with one table, or regular expression -> float, schedule or optimizer.

    Raises:
        ValueError: if a key or a value is none of these.
    """

    def __init__(self, overrides):
        if overrides is not None and not isinstance(overrides, dict):
            raise ValueError(f"overrides must be a dict or None, got {type(overrides).__name__}")
        self._entries = [(_pattern(key), _value(value)) for key, value in (overrides or {}).items()]

    def __bool__(self):
        """Whether there is any."""
        return bool(self._entries)

    @property
    def optimizers(self):
        """The optimizers among the values."""
        return [value for _, value in self._entries if isinstance(value, keras.optimizers.Optimizer)]

    def of(self, path):
        """Returns the learning rate or optimizer of the variable of this path, or None."""
        return next((value for pattern, value in self._entries if re.search(pattern, path)), None)

    def get_config(self):
        """Returns what makes the same overrides again, as JSON takes it; None for none."""
        return {pattern: _serialize(value) for pattern, value in self._entries} or None


def _pattern(key):
    if isinstance(key, str):
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"a key of overrides must be a regular expression, got {key!r}: {error}") from None
        return key
    table = key if isinstance(key, EmbeddingVariable) else getattr(key, "embeddings", None)
    if not isinstance(table, EmbeddingVariable):
        raise ValueError(
            "a key of overrides must be a tse.EmbeddingVariable, a built layer that has one, or a regular expression, "
            f"got {key!r}"
        )
    return f"^{re.escape(table.path)}$"


def _value(value):
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, (keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule)):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise ValueError(
        "a value of overrides must be a learning rate (a float or a LearningRateSchedule) or a Keras optimizer, got "
        f"{value!r}"
    )


def _serialize(value):
    return value if isinstance(value, float) else keras.saving.serialize_keras_object(value)
