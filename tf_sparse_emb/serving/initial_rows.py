"""Initial rows and bounded norms by TensorFlow's own ops: twins of cc/lib/initial_row.h and cc/lib/max_norm.h."""

import math

import numpy as np
import tensorflow as tf

from tf_sparse_emb.initializers import RowInitializer

_STEP = 0x9E3779B97F4A7C15
_ALL = 2**64 - 1


def mix64_of_int(x):
    """Mix64 (cc/lib/hash.h) of a Python int."""
    x &= _ALL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _ALL
    return x ^ (x >> 31)


def _uint64(value):
    return tf.constant(np.uint64(value))


def _shift(x, bits):
    return tf.bitwise.right_shift(x, _uint64(bits))


def _mix64(x):
    """Mix64 of a uint64 tensor."""
    x = tf.bitwise.bitwise_xor(x, _shift(x, 30)) * _uint64(0xBF58476D1CE4E5B9)
    x = tf.bitwise.bitwise_xor(x, _shift(x, 27)) * _uint64(0x94D049BB133111EB)
    return tf.bitwise.bitwise_xor(x, _shift(x, 31))


class InitialRows:
    """The initial rows of a table, a function of (seed, key) alone; cc/lib/initial_row.h has the formulas.

    Zeros, constants and uniform rows have the bits of the table's own. The normals are computed in float64 and
    rounded, by TensorFlow's log, cos and erfinv.

    Args:
        initializer: `RowInitializer`, or None for zeros.
        seed: int.
        dim: int, D.
    """

    def __init__(self, initializer, seed, dim):
        self.initializer = initializer or RowInitializer("constant", 0.0, 0.0)
        self.seed = seed
        self.dim = dim

    @property
    def are_zeros(self):
        """Whether every initial row is zeros."""
        return self.initializer.kind == "constant" and np.float32(self.initializer.a) == 0

    def of(self, keys):
        """Returns the initial rows of keys int64 [N], float32 [N, D]."""
        # The table takes the arguments as float32.
        kind, a, b = self.initializer.kind, np.float32(self.initializer.a), np.float32(self.initializer.b)
        if kind == "constant":
            return tf.fill([tf.size(keys), self.dim], tf.constant(a))
        bits = self._bits(keys)
        if kind == "uniform":
            middle = np.float32((np.float64(b) + a) / 2)
            half_width = np.float32((np.float64(b) - a) / 2)
            u = tf.cast(tf.cast(_shift(bits, 40), tf.int32) - (1 << 23), tf.float64)
            # float64 has room for the product of two float32 and loses nothing that their sum needs: so a compiler that
            # fuses the two (XLA does, in float32) changes no bit.
            product = tf.cast(np.float64(half_width) * (u * 2.0**-23), tf.float32)
            return tf.cast(np.float64(middle) + tf.cast(product, tf.float64), tf.float32)
        high = tf.cast(_shift(bits, 40), tf.float64)
        if kind == "normal":
            u1 = (high + 1.0) * 2.0**-24
            u2 = tf.cast(tf.bitwise.bitwise_and(_shift(bits, 16), _uint64(0xFFFFFF)), tf.float64) * 2.0**-24
            standard = tf.sqrt(-2.0 * tf.math.log(u1)) * tf.cos(2.0 * math.pi * u2)
        else:
            v = (high + 0.5) * 2.0**-23 - 1.0
            standard = math.sqrt(2.0) * tf.math.erfinv(math.erf(math.sqrt(2.0)) * v)
        return tf.cast(np.float64(a) + np.float64(b) * standard, tf.float32)

    def _bits(self, keys):
        """The 64 bits of each element, uint64 [N, D]."""
        mixed_seed = mix64_of_int(self.seed + _STEP)
        base = _mix64(_mix64(tf.bitcast(keys, tf.uint64)) + _uint64(mixed_seed))
        steps = np.array([(d + 1) * _STEP & _ALL for d in range(self.dim)], np.uint64)
        return _mix64(base[:, tf.newaxis] + tf.constant(steps))


def bound_norms(rows, max_norm, norm_type):
    """rows [N, D], those with a p-norm beyond `max_norm` scaled by max_norm / (norm + 1e-7); None bounds nothing."""
    if max_norm is None:
        return rows
    sizes = tf.abs(rows)
    greatest = tf.reduce_max(sizes, 1, keepdims=True)
    if math.isinf(norm_type):
        norms = greatest
    elif norm_type == 2.0:
        norms = tf.sqrt(tf.reduce_sum(rows * rows, 1, keepdims=True))
    elif norm_type == 1.0:
        norms = tf.reduce_sum(sizes, 1, keepdims=True)
    else:
        # Of the elements over the greatest, whose powers do not all vanish.
        powers = tf.math.divide_no_nan(sizes, greatest) ** norm_type
        norms = greatest * tf.reduce_sum(powers, 1, keepdims=True) ** (1.0 / norm_type)
    return tf.where(norms > max_norm, rows * (max_norm / (norms + 1e-7)), rows)
