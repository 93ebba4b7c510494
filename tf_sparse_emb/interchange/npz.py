"""NumPy's files: `.npz` with the arrays keys, rows and state, and `.npy`, a matrix [V, D]."""

import json
import zipfile

import numpy as np

from tf_sparse_emb.interchange.rows import ArraySource, RowSource
from tf_sparse_emb.whole_files import whole_file


def write_npz(path, source):
    """Writes keys int64 [V], rows float32 [V, D], and state float32 [V, S] with the name of its rule, if there is one.

    Memory: the keys and a chunk. `numpy.load` reads it.
    """
    with whole_file(path) as unfinished, zipfile.ZipFile(unfinished, "w", allowZip64=True) as archive:
        keys, position = np.empty(source.num_rows, np.int64), 0
        with _member(archive, "rows", (source.num_rows, source.dim), "<f4") as file:
            for chunk in source.chunks():
                keys[position : position + len(chunk.keys)] = chunk.keys
                position += len(chunk.keys)
                file.write(chunk.rows.astype("<f4", copy=False).tobytes())
        with _member(archive, "keys", keys.shape, "<i8") as file:
            file.write(keys.astype("<i8", copy=False).tobytes())
        if source.state_width:
            position = 0
            with _member(archive, "state", (source.num_rows, source.state_width), "<f4") as file:
                for chunk in source.chunks():
                    if not np.array_equal(keys[position : position + len(chunk.keys)], chunk.keys):
                        raise RuntimeError(f"{source.name} changed while it was written; do not train it meanwhile")
                    position += len(chunk.keys)
                    file.write(chunk.state.astype("<f4", copy=False).tobytes())
        archive.writestr("meta.json", json.dumps({"rule": source.rule}))


def _member(archive, name, shape, dtype):
    file = archive.open(f"{name}.npy", "w", force_zip64=True)
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


class NpzSource(RowSource):
    """A `.npz` file, of `write_npz` or of `numpy.savez(path, keys=..., rows=...)`, read in chunks."""

    def __init__(self, path):
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
                if not {"keys", "rows"} <= names:
                    raise ValueError(f"{path} must have the arrays keys and rows, got {', '.join(sorted(names))}")
                shapes = {}
                for name in sorted(names & {"keys", "rows", "state"}):
                    with archive.open(f"{name}.npy") as file:
                        shapes[name] = self._header(file, name)[0]
                has_meta = "meta.json" in archive.namelist()
                rule = json.loads(archive.read("meta.json")).get("rule", "") if has_meta else ""
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is no whole .npz file: {error}") from None
        lengths = {name: shape[0] if shape else None for name, shape in shapes.items()}
        if len(set(lengths.values())) > 1 or len(shapes["rows"]) != 2 or len(shapes["keys"]) != 1:
            raise ValueError(f"{path} must have keys [V] and rows [V, D], got {shapes}")
        state_width = shapes["state"][1] if "state" in shapes else 0
        super().__init__(str(path), shapes["rows"][1], shapes["rows"][0], state_width, rule)

    def _header(self, file, name):
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
        if fortran_order and len(shape) > 1:
            raise ValueError(f"{name} of {self._path} must be in C order, got Fortran order")
        if dtype.kind not in "fiu":
            raise ValueError(f"{name} of {self._path} must be numbers, got {dtype}")
        return shape, dtype

    def _chunks(self, max_rows):
        try:
            with (
                zipfile.ZipFile(self._path) as archive,
                archive.open("keys.npy") as keys,
                archive.open("rows.npy") as rows,
            ):
                state = archive.open("state.npy") if self.state_width else None
                dtypes = [self._header(file, name)[1] for file, name in ((keys, "keys"), (rows, "rows"))]
                if state:
                    self._header(state, "state")
                for begin in range(0, self.num_rows, max_rows):
                    n = min(max_rows, self.num_rows - begin)
                    yield (
                        self._read(keys, dtypes[0], (n,)),
                        self._read(rows, dtypes[1], (n, self.dim)),
                        self._read(state, np.dtype("<f4"), (n, self.state_width)) if state else None,
                    )
                for file in (keys, rows, state):
                    if file is not None and file.read(1):
                        raise ValueError(f"{self._path} has more bytes than its header says")
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{self._path} is damaged: {error}") from None

    def _read(self, file, dtype, shape):
        num_bytes = dtype.itemsize * int(np.prod(shape))
        data = file.read(num_bytes)
        if len(data) != num_bytes:
            raise ValueError(f"{self._path} is damaged: it ends too early")
        return np.frombuffer(data, dtype).reshape(shape)


def read_npy(path):
    """The `RowSource` of a matrix [V, D] in a `.npy` file: the rows of keys 0 to V - 1."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file: {error}") from None
    return ArraySource(str(path), None, rows)
