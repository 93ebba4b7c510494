"""What the tests of refusals share: patterns of messages, and calls in eager mode, in a tf.function and in a model."""

import re

import keras
import numpy as np
import tensorflow as tf

D = 4
NAN = float("nan")
ERRORS = (ValueError, TypeError, tf.errors.InvalidArgumentError)


def _pattern(text):
    """A regular expression of a text in which only ` .* ` and ` .*` are none."""
    return ".*".join(re.escape(part) for part in text.split(".*"))


def raises_matching(text):
    return "(?s)" + _pattern(text)


# Calls, in eager mode, in a tf.function, and when a model is made.
MODES = ("eager", "function", "symbolic")


def _input_like(value):
    """A keras.Input for batches like `value`."""
    kinds = {"sparse": isinstance(value, tf.SparseTensor), "ragged": isinstance(value, tf.RaggedTensor)}
    if not any(kinds.values()):
        value = tf.convert_to_tensor(value)
    return keras.Input(tuple(value.shape)[1:], dtype=value.dtype.name, **{k: True for k, v in kinds.items() if v})


def call_in_mode(mode, layer, keys, training=None, **arguments):
    """layer(keys, ...); dicts of keys or weights are for a collection."""
    if mode == "symbolic":
        keys, arguments = tf.nest.map_structure(_input_like, (keys, arguments))
    if mode != "function":
        return layer(keys, training=training, **arguments)
    layer.build()

    @tf.function
    def call(given):
        given = dict(given)
        return layer(given.pop("keys"), training=training, **given)

    def as_tensor(value):
        return value if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) else tf.convert_to_tensor(value)

    return call(tf.nest.map_structure(as_tensor, {"keys": keys, **arguments}))


DENSE = np.array([[1, 2], [3, 1]])
RAGGED = tf.ragged.constant([[1, 2], [3]], dtype=tf.int64)
SPARSE = tf.SparseTensor([[0, 0], [0, 1], [1, 1]], tf.constant([1, 2, 3], tf.int64), [2, 2])
FORMS = {"dense": DENSE, "ragged": RAGGED, "sparse": SPARSE}


def position_pattern(message):
    (position,) = re.findall(r"got keys\[([\d, ]+)\] = ", message)
    return [int(number) for number in position.split(",")]


def ones_like_keys(keys, dtype=tf.float32):
    """Weights of the form of keys."""
    if isinstance(keys, tf.RaggedTensor):
        return keys.with_values(tf.ones_like(keys.values, dtype))
    if isinstance(keys, tf.SparseTensor):
        return tf.SparseTensor(keys.indices, tf.ones_like(keys.values, dtype), keys.dense_shape)
    return np.ones(keys.shape, tf.as_dtype(dtype).as_numpy_dtype)
