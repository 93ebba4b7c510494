"""Tables and matrices in TensorFlow's checkpoints, and tables in the package's own files and saves."""

import os
import re
import struct

import numpy as np
import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.interchange.rows import RowSource
from tf_sparse_emb.saving import save_folder
from tf_sparse_emb.variable import EmbeddingVariable

MAGIC = b"TSETABLE"

_TABLE = "/.ATTRIBUTES/table"
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"

# TableMeta in cc/lib/table_stream.h: numbers as they lie in memory, strings and lists behind their length.
_FIELDS = {
    "name": "s",
    "storage": "s",
    "dim": "q",
    "input_dim": "q",
    "initializer": "s",
    "initializer_a": "f",
    "initializer_b": "f",
    "seed": "q",
    "has_padding": "?",
    "padding_key": "q",
    "num_counts": "q",
    "count_decay": "d",
    "rule": "s",
    "initial_state": "floats",
    "updates": "q",
    "rows": "q",
}


def decode_description(data, where):
    """What a file or a checkpoint says of a table, a dict.

    Raises:
        ValueError: if the bytes are no such description.
    """
    fields, at = {}, 0

    def take(code):
        nonlocal at
        (value,) = struct.unpack_from(f"={code}", data, at)
        at += struct.calcsize(f"={code}")
        return value

    try:
        for name, kind in _FIELDS.items():
            if kind == "s":
                fields[name] = take(f"{take('Q')}s").decode()
            elif kind == "floats":
                fields[name] = [take("f") for _ in range(take("Q"))]
            else:
                fields[name] = take(kind)
    except (struct.error, UnicodeDecodeError):
        at = -1
    if at != len(data) or fields["dim"] <= 0 or fields["rows"] < 0:
        raise ValueError(f"{where}: the description of the table cannot be read")
    return fields


def _details(fields):
    """Of a description, what people want to know beside rows and width."""
    names = ["storage", "initializer", "initializer_a", "initializer_b", "seed"]
    names += ["input_dim"] if fields["input_dim"] >= 0 else []
    names += ["padding_key"] if fields["has_padding"] else []
    names += ["num_counts", "count_decay", "updates"] if fields["num_counts"] else []
    return {name: float(f"{x:.6g}") if isinstance(x := fields[name], float) else x for name in names}


class _CheckpointTable(RowSource):
    """A table in a checkpoint, read by slices. The checkpoint's counts are passed over."""

    def __init__(self, prefix, key, fields):
        counts = 2 * (1 + fields["num_counts"]) if fields["num_counts"] else 0
        self._prefix, self._key, self._num_counts = prefix, key, counts
        super().__init__(
            f"table '{key or fields['name']}' of {prefix}",
            fields["dim"],
            fields["rows"],
            len(fields["initial_state"]),
            fields["rule"],
            _details(fields),
        )

    def _chunks(self, max_rows):
        state_width = self._num_counts + self.state_width
        widths = {"keys": "", "rows": f" {self.dim}"} | ({"state": f" {state_width}"} if state_width else {})
        for begin in range(0, self.num_rows, max_rows):
            n = min(max_rows, self.num_rows - begin)
            parts = tf.raw_ops.RestoreV2(
                prefix=self._prefix,
                tensor_names=[f"{self._key}/.ATTRIBUTES/{name}" for name in widths],
                shape_and_slices=[f"{self.num_rows}{w} {begin},{n}{':-' if w else ''}" for w in widths.values()],
                dtypes=[tf.int64, tf.float32, tf.float32][: len(widths)],
            )
            keys, rows, state = (*(part.numpy() for part in parts), None)[:3]
            yield keys, rows, None if state is None else state[:, self._num_counts :]


class _CheckpointMatrix(RowSource):
    """A variable [V, D]: the rows of keys 0 to V - 1. TensorFlow reads it whole."""

    def __init__(self, prefix, key, shape):
        super().__init__(f"{key} of {prefix}", shape[1], shape[0])
        self._prefix, self._key = prefix, key

    def _chunks(self, max_rows):
        rows = tf.train.load_checkpoint(self._prefix).get_tensor(self._key + _VARIABLE)
        for begin in range(0, self.num_rows, max_rows):
            end = min(begin + max_rows, self.num_rows)
            yield np.arange(begin, end), rows[begin:end], None


def read_checkpoint(prefix):
    """dict of the place in the object graph -> `RowSource` of the tables and the float matrices of a checkpoint."""
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(f"{prefix} is no whole checkpoint: {error}") from None
    shapes, dtypes, found = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map(), {}
    for key in sorted(shapes):
        if key.endswith(_TABLE):
            fields = decode_description(reader.get_tensor(key), prefix)
            found[key.removesuffix(_TABLE)] = _CheckpointTable(prefix, key.removesuffix(_TABLE), fields)
        elif key.endswith(_VARIABLE) and len(shapes[key]) == 2 and dtypes[key].is_floating and min(shapes[key]) > 0:
            found[key.removesuffix(_VARIABLE)] = _CheckpointMatrix(prefix, key.removesuffix(_VARIABLE), shapes[key])
    return found


class _TableFile(RowSource):
    """A file of the package's own format, loaded into a table when it is first walked: that checks every byte."""

    def __init__(self, path, fields):
        super().__init__(path, fields["dim"], fields["rows"], details=_details(fields))
        self._path, self._table = path, None

    def _chunks(self, max_rows):
        if self._table is None:
            table = _empty_table(self.dim)
            library.sparse_emb_embedding_table_load(table.shards[0].resource_handle, self._path, "")
            self._table = table
        for keys, rows in self._table.export_chunks(max_rows):
            yield keys.numpy(), rows.numpy(), None


def is_table_file(path):
    """Whether a file begins as those of the package's own format do."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_table_file(path):
    """The `RowSource` of a file that a table was saved to."""
    return _TableFile(path, _describe(path))


class _SavedTable(RowSource):
    """A table of a full save and the increments that follow it. How many rows it has is known when it is loaded.

    Args:
        paths, names: as `save_folder.files_of` returns them, of all servers that the table was spread over.
    """

    def __init__(self, paths, names):
        fields = _describe(paths[0][0])
        self._table = _empty_table(fields["dim"])
        no_log = tf.constant(0, tf.int64)
        library.sparse_emb_embedding_table_load_chains(self._table.shards[0].resource_handle, paths, names, no_log)
        super().__init__(paths[0][-1], fields["dim"], int(self._table.size()), details=_details(fields))

    def _chunks(self, max_rows):
        for keys, rows in self._table.export_chunks(max_rows):
            yield keys.numpy(), rows.numpy(), None


def is_saves(path):
    """Whether a folder is one that `tse.saving.IncrementalCheckpoint` saves in, or one of its saves."""
    return any(os.path.exists(os.path.join(path, name)) for name in ("latest.json", "save.json"))


def read_saves(path):
    """dict of the place in the object graph -> `RowSource` of the tables as the last save, or that at `path`, has them.

    Raises:
        ValueError: if it, or a save that it follows, is missing or damaged.
    """
    path = os.path.abspath(path)
    try:
        if match := re.fullmatch(r"save-(\d+)", os.path.basename(path)):
            directory, last = os.path.dirname(path), int(match[1])
        else:
            directory, (last, _) = path, save_folder.read_latest(path)
        saves, problem = next(save_folder.read_chains(directory, last))
    except save_folder.DamagedError as error:
        saves, problem = [], str(error)
    if problem:
        raise ValueError(problem)
    return {"/".join(place): _SavedTable(*save_folder.files_of(directory, saves, place)) for place in saves[0].tables}


def _describe(path):
    """What a file of the package's own format says of its table."""
    with open(path, "rb") as file:
        _, _, _, length, _ = struct.unpack("=8sIIII", file.read(24).ljust(24, b"\0"))
        data = file.read(min(length, os.path.getsize(path)))
    return decode_description(data, path)


def _empty_table(dim):
    return EmbeddingVariable(dim, initializer="zeros", seed=0, name="file")
