"""The raw files of TensorFlow Recommenders Addons: `<prefix>-keys`, int64, and `<prefix>-values`, float32 rows.

Both little-endian, without a header. TFRA writes a pair for each shard of a table: `<name>_mht_1of2_rank0_size1-keys`.
"""

import glob
import os

import numpy as np

from tf_sparse_emb.interchange.rows import RowSource
from tf_sparse_emb.whole_files import whole_file

KEYS, VALUES = "-keys", "-values"


def write_raw(prefix, source):
    """Writes `<prefix>-keys` and `<prefix>-values`. The keys get their name last."""
    prefix = os.fspath(prefix)
    with (
        whole_file(prefix + KEYS) as keys_path,
        whole_file(prefix + VALUES) as values_path,
        open(keys_path, "wb") as keys,
        open(values_path, "wb") as rows,
    ):
        for chunk in source.chunks():
            keys.write(chunk.keys.astype("<i8", copy=False).tobytes())
            rows.write(chunk.rows.astype("<f4", copy=False).tobytes())


class RawSource(RowSource):
    """One pair of files, or those of all shards of `<prefix>_mht_*`."""

    def __init__(self, prefix):
        prefix = os.fspath(prefix)
        for suffix in (KEYS, VALUES):
            prefix = prefix.removesuffix(suffix)
        prefixes = [prefix] if os.path.exists(prefix + KEYS) else shards_of(prefix)
        if not prefixes:
            raise FileNotFoundError(f"there is no {prefix}{KEYS}")
        num_rows, dims = 0, set()
        for part in prefixes:
            if not os.path.exists(part + VALUES):
                raise FileNotFoundError(f"there is {part}{KEYS}, but no {part}{VALUES}")
            key_bytes, row_bytes = os.path.getsize(part + KEYS), os.path.getsize(part + VALUES)
            n = key_bytes // 8
            if key_bytes % 8 or (row_bytes % (4 * n) if n else row_bytes):
                raise ValueError(
                    f"{part}{KEYS} must have 8 bytes a key and {part}{VALUES} as many rows of float32, got {key_bytes} "
                    f"and {row_bytes} bytes"
                )
            num_rows += n
            if n:
                dims.add(row_bytes // (4 * n))
        if len(dims) != 1 or 0 in dims:
            raise ValueError(f"{prefix} must have rows of one width, got {sorted(dims) or 'no rows'}")
        super().__init__(prefix, dims.pop(), num_rows, details={"files": len(prefixes)})
        self._prefixes = prefixes

    def _chunks(self, max_rows):
        for prefix in self._prefixes:
            with open(prefix + KEYS, "rb") as keys, open(prefix + VALUES, "rb") as rows:
                while len(chunk := np.fromfile(keys, "<i8", max_rows)):
                    yield chunk, np.fromfile(rows, "<f4", len(chunk) * self.dim).reshape(-1, self.dim), None


def shards_of(prefix):
    """The prefixes of the shards that TFRA wrote of a table."""
    return sorted(path.removesuffix(KEYS) for path in glob.glob(f"{glob.escape(prefix)}_mht_*{KEYS}"))
