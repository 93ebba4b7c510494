"""What counts as keys: int32, int64 and strings."""

import tensorflow as tf


def as_keys(keys, name="keys"):
    """Returns `keys` as an int64 tensor of the same shape.

    int32 is widened. A string becomes the 64 bits of its farmhash64 fingerprint (`tf.fingerprint`) taken as
    int64, the same on every machine; two of a million strings collide with a probability of 3e-8.

    Args:
        keys: int32, int64 or string tensor, or what converts to one, of any shape.
        name: what the error calls them.

    Raises:
        TypeError: for any other dtype.
    """
    keys = tf.convert_to_tensor(keys, dtype_hint=tf.int64)
    if keys.dtype == tf.int64:
        return keys
    if keys.dtype == tf.int32:
        return tf.cast(keys, tf.int64)
    if keys.dtype == tf.string:
        fingerprints = tf.fingerprint(tf.reshape(keys, [-1]))
        return tf.reshape(tf.bitcast(fingerprints, tf.int64), tf.shape(keys))
    raise TypeError(f"{name} must be int32, int64 or string, got {keys.dtype.name}")
