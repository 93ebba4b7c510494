"""A table as TensorFlow's own structures: variables of keys and rows, and a hash table from key to row number."""

import math

import numpy as np
import tensorflow as tf

from tf_sparse_emb.initializers import choose_row_initializer
from tf_sparse_emb.serving.initial_rows import InitialRows, bound_norms

_CHUNK_BYTES = 1 << 22


class _KeyIndex(tf.saved_model.experimental.TrackableResource):
    """A hash table from key to position in `keys`, filled from that variable when a SavedModel is loaded.

    `tf.lookup.StaticHashTable` would write keys and positions into the graph, 16 bytes a key.
    """

    def __init__(self, keys, name):
        super().__init__()
        self.keys = keys
        self._shared_name = name
        # The handle is made when it is first asked for: here, because inside a trace it would be of that graph.
        with tf.init_scope():
            self._handle = self.resource_handle

    def _create_resource(self):
        types = {"key_dtype": tf.int64, "value_dtype": tf.int64}
        graph = tf.compat.v1.get_default_graph()
        if tf.executing_eagerly() or graph.building_function:
            return tf.raw_ops.AnonymousHashTable(**types)
        # In the plain graph that TensorFlow Serving runs, a resource is found again by its name.
        return tf.raw_ops.HashTableV2(shared_name=self._shared_name, **types)

    def _initialize(self):
        keys = self.keys.read_value()
        positions = tf.range(tf.size(keys, tf.int64), dtype=tf.int64)
        tf.raw_ops.LookupTableImportV2(table_handle=self.resource_handle, keys=keys, values=positions)

    def find(self, keys, default):
        """The position of each of keys int64 [N], `default` for those that are not there."""
        positions = tf.raw_ops.LookupTableFindV2(
            table_handle=self.resource_handle, keys=keys, default_value=tf.constant(default, tf.int64)
        )
        positions.set_shape(keys.shape)
        return positions


class FoldedTable(tf.Module):
    """The rows of an `EmbeddingVariable` as they are now, to be looked up by TensorFlow's own ops.

    The table of a whole vocabulary (storage "index") is an array; others have `keys` [V], and one more row, of zeros,
    where missing keys are found. A padding key that has no row is given its zeros here. Rows are bounded by `max_norm`,
    as a lookup outside of training returns them.

    Memory: the encoded rows, the keys, and one chunk.

    Args:
        variable: `EmbeddingVariable`.
        row_format: `RowFormat`.
        name: str, of its resource in the export.

    Raises:
        ValueError: if a row is beyond the format.
        RuntimeError: if the table changes meanwhile.
    """

    def __init__(self, variable, row_format, name):
        super().__init__(name=name)
        self.path = variable.path
        self.dim = variable.dim
        self.input_dim = variable.input_dim
        self.max_norm = variable.max_norm
        self.norm_type = variable.norm_type
        self.row_format = row_format
        initializer = choose_row_initializer("initializer", variable.initializer, variable.storage)
        self.initial_rows = InitialRows(initializer, variable.seed, variable.dim)
        self.max_error = 0.0
        self._squared_error = 0.0
        size = int(variable.size())
        is_array = variable.storage == "index" and size == variable.input_dim
        padding = []
        if not is_array and variable.padding_key is not None and not variable.contains([variable.padding_key])[0]:
            padding = [variable.padding_key]
        self.num_rows = size + len(padding)
        beside = 0 if is_array else 1
        rows = _aligned_zeros([self.num_rows + beside, self.dim], row_format.dtype)
        scales = _aligned_zeros([self.num_rows + beside], "float32") if row_format.has_scales else None
        keys = _aligned_zeros([self.num_rows], "int64")
        keys[size:] = padding
        self._copy_rows(variable, size, keys, rows, scales)
        self.rows = _variable(rows, "rows")
        self.scales = None if scales is None else _variable(scales, "scales")
        self.keys = self._index = None
        if is_array:
            if not np.array_equal(keys, np.arange(size)):
                self._changed()
            return
        self.keys = _variable(keys, "keys")
        if self.num_rows > 0:  # TensorFlow's hash tables cannot be initialised without a key.
            self._index = _KeyIndex(self.keys, name)

    def _copy_rows(self, variable, size, keys, rows, scales):
        """Copies the table into the arrays, chunk by chunk."""
        position = 0
        for chunk_keys, chunk in variable.export_chunks(max(1, _CHUNK_BYTES // (4 * self.dim))):
            if self.max_norm is not None:
                chunk = variable.lookup(chunk_keys)
            end = position + len(chunk_keys)
            if end > size:
                self._changed()
            keys[position:end], chunk = chunk_keys.numpy(), chunk.numpy()
            encoded, chunk_scales = self.row_format.encode(chunk, keys[position:end], self.path)
            rows[position:end] = encoded
            if scales is not None:
                scales[position:end] = chunk_scales
            if encoded is not chunk:
                errors = np.abs(self.row_format.decode(encoded, chunk_scales).astype(np.float64) - chunk)
                self.max_error = max(self.max_error, float(errors.max()))
                self._squared_error += float((errors**2).sum())
            position = end
        if position != size or int(variable.size()) != size:
            self._changed()

    def _changed(self):
        raise RuntimeError(f"table '{self.path}' changed while it was exported; do not train it at the same time")

    @property
    def rms_error(self):
        """The root of the mean squared error of an element, float."""
        return (self._squared_error / max(1, self.num_rows * self.dim)) ** 0.5

    @property
    def num_bytes(self):
        """The bytes of keys and rows."""
        num_keys = 0 if self.keys is None else self.num_rows
        return 8 * num_keys + self.num_rows * self.row_format.bytes_of_row(self.dim)

    def contains(self, keys):
        """Whether each of keys int64 [N] has a row."""
        with tf.device("CPU:0"):
            if self.keys is None:
                return (keys >= 0) & (keys < self.input_dim)
            return self._find(keys) < self.num_rows

    def lookup(self, keys, missing):
        """The rows of keys int64 [N], float32 [N, D]; a missing key reads as its initial row, or as zeros."""
        with tf.device("CPU:0"):
            if self.keys is None:
                return self._read(keys)
            checks = []
            if self.input_dim is not None:
                checks = [assert_in_range(keys, self.input_dim, f"keys of table '{self.path}'")]
            with tf.control_dependencies(checks):
                positions = self._find(keys)
            rows = self._read(positions)
            if missing == "zeros" or self.initial_rows.are_zeros:
                return rows
            is_missing = tf.equal(positions, self.num_rows)
            return tf.cond(
                tf.reduce_any(is_missing), lambda: self._with_initial_rows(rows, keys, is_missing), lambda: rows
            )

    def _find(self, keys):
        """The positions of keys, that of the row of zeros for missing ones."""
        return tf.zeros_like(keys) if self._index is None else self._index.find(keys, self.num_rows)

    def _read(self, positions):
        scales = None if self.scales is None else tf.gather(self.scales, positions)
        return self.row_format.decode(tf.gather(self.rows, positions), scales)

    def _with_initial_rows(self, rows, keys, is_missing):
        places = tf.where(is_missing)
        initial = self.initial_rows.of(tf.gather(keys, places[:, 0]))
        return tf.tensor_scatter_nd_update(rows, places, bound_norms(initial, self.max_norm, self.norm_type))


def _aligned_zeros(shape, dtype):
    """A NumPy array of zeros that TensorFlow can take without a copy."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(num_bytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


def _variable(array, name):
    """A variable that holds the memory of the array.

    Filling a `tf.Variable` part by part costs a copy of it: its sparse updates make every later read one.
    """
    value = tf.experimental.dlpack.from_dlpack(array.__dlpack__()) if array.size else tf.constant(array)
    with tf.device("CPU:0"):
        return tf.Variable(value, trainable=False, name=name)


def assert_in_range(keys, input_dim, name, allowed=()):
    """An op that fails unless all keys are in [0, input_dim) or allowed."""
    is_right = (keys >= 0) & (keys < input_dim)
    for key in allowed:
        is_right |= tf.equal(keys, key)
    message = f"keys must be in [0, {input_dim}) ({name}), got"
    return tf.raw_ops.Assert(condition=tf.reduce_all(is_right), data=[message, keys], summarize=20)
