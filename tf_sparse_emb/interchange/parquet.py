"""Apache Parquet: columns key (int64), row and state (lists of float32 of a fixed size). Needs pyarrow."""

import json

import numpy as np

from tf_sparse_emb.interchange.rows import RowSource
from tf_sparse_emb.whole_files import whole_file

_META = b"tf_sparse_emb"


def _import_pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install pyarrow") from None
    return pyarrow


def write_parquet(path, source):
    """Writes a Parquet file, a row group for each chunk."""
    pa = _import_pyarrow()
    widths = {"row": source.dim} | ({"state": source.state_width} if source.state_width else {})
    fields = [pa.field("key", pa.int64())]
    fields += [pa.field(name, pa.list_(pa.float32(), width)) for name, width in widths.items()]
    schema = pa.schema(fields, metadata={_META: json.dumps({"rule": source.rule}).encode()})
    with whole_file(path) as unfinished, pa.parquet.ParquetWriter(unfinished, schema) as writer:
        for chunk in source.chunks():
            columns = {"row": chunk.rows, "state": chunk.state}
            lists = [
                pa.FixedSizeListArray.from_arrays(pa.array(columns[name].reshape(-1)), width)
                for name, width in widths.items()
            ]
            writer.write_table(pa.Table.from_arrays([pa.array(chunk.keys), *lists], schema=schema))


class ParquetSource(RowSource):
    """A Parquet file with the columns key and row, read in chunks."""

    def __init__(self, path):
        pa = _import_pyarrow()
        try:
            file = pa.parquet.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is no whole Parquet file: {error}") from None
        with file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
            if not {"key", "row"} <= set(schema.names):
                raise ValueError(f"{path} must have the columns key and row, got {', '.join(schema.names)}")
            # Other writers may know lists of any size alone: then the first row tells.
            first = next(file.iter_batches(1), None) if num_rows else None
        meta = json.loads((schema.metadata or {}).get(_META, b"{}"))
        width = {
            name: self._width(schema.field(name).type, first, name) for name in {"row", "state"} & set(schema.names)
        }
        super().__init__(str(path), width["row"], num_rows, width.get("state", 0), meta.get("rule", ""))
        self._path = path

    @staticmethod
    def _width(kind, first, name):
        fixed = getattr(kind, "list_size", None)
        return fixed if fixed else len(first.column(name)[0]) if first is not None else 0

    def _chunks(self, max_rows):
        pa = _import_pyarrow()
        with pa.parquet.ParquetFile(self._path) as file:
            names = ["key", "row"] + (["state"] if self.state_width else [])
            for batch in file.iter_batches(max_rows, columns=names):
                keys = batch.column("key").to_numpy(zero_copy_only=False)
                state = self._matrix(batch, "state", self.state_width) if self.state_width else None
                yield keys, self._matrix(batch, "row", self.dim), state

    def _matrix(self, batch, name, width):
        column = batch.column(name)
        values = column.flatten().to_numpy(zero_copy_only=False)
        if column.null_count or len(values) != len(column) * width:
            raise ValueError(f"column {name} of {self.name} must be lists of {width} floats in every row")
        return np.asarray(values).reshape(-1, width)
