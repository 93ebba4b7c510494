"""Tables in Keras' files.

In `.weights.h5` and `.weights.json` the bytes of the package's own file (cc/lib/table_file.h) are cut into blocks, a
dataset each, `<table>.0`, `<table>.1`, ...; no more than a few of them are in memory.
Keras makes the weights of a `.keras` file in memory: there the file is an asset, and the weights say so. It goes into
the archive at once, not by way of the folder that Keras makes for assets and then puts into the archive.
"""

import contextlib
import itertools
import os
import zipfile

import numpy as np

_BLOCK_BYTES = 4 << 20


class _Block:
    """A block as a store takes it, which makes an array of what it is given: numpy copies an array, but not this."""

    def __init__(self, block):
        self._array = block

    def __array__(self, dtype=None, copy=None):
        return self._array


def save_table(table, store, name):
    """Puts a `TableResource` into a store of Keras, or into the archive that the store is a part of."""
    # The weights of a `.keras` file are a part of an archive, unless Keras finds that memory is short.
    archive = getattr(store, "archive", None)
    if archive is not None:
        store[f"{name}.asset"] = np.frombuffer(asset_name(name).encode(), np.uint8)
        with (
            archive.open(_member(store, name), "w", force_zip64=True) as file,
            contextlib.closing(table.saved_blocks(_BLOCK_BYTES)) as blocks,
        ):
            for block in blocks:
                file.write(block)
        return
    block_bytes = min(_BLOCK_BYTES, int(getattr(store, "max_shard_size", _BLOCK_BYTES)))
    with contextlib.closing(table.saved_blocks(block_bytes)) as blocks:
        for i, block in enumerate(blocks):
            store[f"{name}.{i}"] = _Block(block)


def check_table(table, store, name, layer):
    """Raises a ValueError unless `store` has a table of this name, which fits as far as its beginning says."""
    if waits_for_asset(store, name):
        return
    if f"{name}.asset" not in store and f"{name}.0" not in store:
        there = sorted({key.rsplit(".", 1)[0] for key in store.keys()})  # noqa: SIM118, a store is no dict
        raise ValueError(
            f"layer '{layer}': the file has no rows of table '{name}' in the place of this layer, but "
            f"[{', '.join(there)}]. It is of another model, or was saved without this package"
        )
    blocks, source = _stored(store, name)
    with contextlib.closing(blocks):
        table.load_blocks(itertools.islice(blocks, 1), source=source, only_check=True)


def load_table(table, store, name):
    """Loads a table that `save_table` put into a store, unless it waits for its asset."""
    if not waits_for_asset(store, name):
        blocks, source = _stored(store, name)
        with contextlib.closing(blocks):
            table.load_blocks(blocks, source=source)


def waits_for_asset(store, name):
    """Whether the table is in an asset that Keras hands over later; `load_weights` of a `.keras` file never does."""
    return f"{name}.asset" in store and getattr(store, "archive", None) is None


def asset_name(name):
    """The name of the file of a table."""
    return f"{name}.table"


def _stored(store, name):
    """The blocks of a table in a store, and what errors call it."""
    if f"{name}.asset" in store:
        member = _member(store, name)
        source = f"'{store.archive.filename}' ({member})"
        if member not in store.archive.namelist():
            raise ValueError(f"{source} is not there: the file has lost the rows of table '{name}'")
        return _named(_archived_blocks(store.archive.filename, member), source), source
    path = getattr(store, "path_or_io", None)
    file = f"'{path}'" if isinstance(path, (str, os.PathLike)) else "the file"
    source = f"table '{name}' in {file}"
    return _named(_stored_blocks(store, name), source), source


def _member(store, name):
    """The name in the archive of a table's asset, which is where Keras would have put it."""
    # Where in the file a layer stands, a store has no public name for.
    return "/".join(part for part in ("assets", store._h5_entry_path, asset_name(name)) if part)


def _named(blocks, source):
    """Yields the blocks; what h5py and zipfile say of a damaged file then says of which."""
    try:
        for block in blocks:
            yield np.frombuffer(memoryview(block).cast("B"), np.uint8)
    except (OSError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source} is damaged: {error}") from error


def _stored_blocks(store, name):
    i = 0
    while f"{name}.{i}" in store:
        yield store[f"{name}.{i}"]
        i += 1


def _archived_blocks(path, member):
    # Not by Keras' own archive: Python 3.12 before 3.12.9, and 3.13 before 3.13.2, lose their place in one member when
    # another is read (CPython's issue 127847), and Keras is in the midst of the weights.
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
