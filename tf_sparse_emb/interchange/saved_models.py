"""Tables in exports of `tse.export_for_serving`, and matrices in Keras' `.weights.h5` files."""

import json
import os

import h5py
import numpy as np
import tensorflow as tf

from tf_sparse_emb.interchange.rows import ArraySource, RowSource
from tf_sparse_emb.serving.export import DESCRIPTION
from tf_sparse_emb.serving.row_formats import RowFormat


class _ServedTable(RowSource):
    """A table in an export, whose arrays TensorFlow reads whole: when they are first asked for."""

    def __init__(self, path, table):
        details = {name: value for name, value in table.items() if name not in ("name", "dim", "rows", "variables")}
        super().__init__(f"table '{table['name']}' of {path}", table["dim"], table["rows"], details=details)
        self._variables = table["variables"]
        self._path, self._format, self._arrays = path, RowFormat(table["rows_dtype"]), None

    def _chunks(self, max_rows):
        if self._arrays is None:
            reader = tf.train.load_checkpoint(os.path.join(self._path, "variables", "variables"))
            self._arrays = {name: reader.get_tensor(key) for name, key in self._variables.items()}
        arrays = self._arrays
        for begin in range(0, self.num_rows, max_rows):
            end = min(begin + max_rows, self.num_rows)
            scales = arrays["scales"][begin:end] if "scales" in arrays else None
            keys = arrays["keys"][begin:end] if "keys" in arrays else np.arange(begin, end)
            yield keys, self._format.decode(arrays["rows"][begin:end], scales), None


def read_saved_model(path):
    """dict of table name -> `RowSource` of an export for serving."""
    description = os.path.join(path, DESCRIPTION)
    if not os.path.exists(description):
        raise ValueError(f"{path} is a SavedModel, but not one of tse.export_for_serving: it has no {DESCRIPTION}")
    with open(description, encoding="utf-8") as file:
        tables = json.load(file)["tables"]
    return {table["name"]: _ServedTable(path, table) for table in tables}


class _H5Matrix(RowSource):
    def __init__(self, path, dataset, shape):
        super().__init__(f"{dataset} of {path}", shape[1], shape[0])
        self._path, self._dataset = path, dataset

    def _chunks(self, max_rows):
        with h5py.File(self._path) as file:
            yield from ArraySource(self.name, None, file[self._dataset])._chunks(max_rows)


def read_h5(path):
    """dict of dataset -> `RowSource` of the float matrices [V, D] in a `.weights.h5` file: rows of keys 0 to V - 1."""
    shapes = {}

    def visit(name, part):
        if (
            isinstance(part, h5py.Dataset)
            and part.ndim == 2
            and part.dtype.kind == "f"
            and not name.startswith("optimizer")
        ):
            shapes[name] = part.shape

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise ValueError(f"{path} is no whole HDF5 file: {error}") from None
    return {name: _H5Matrix(path, name, shape) for name, shape in shapes.items()}
