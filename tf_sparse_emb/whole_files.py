"""Files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
import uuid


@contextlib.contextmanager
def whole_file(path):
    """Yields a temporary path beside `path`; what is written there replaces the file `path` at the end.

    It is on the disk before it gets its name. If the body raises, `path` is as it was.
    """
    path = os.path.abspath(os.fspath(path))
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        _name(error, path)
        raise
    _sync(os.path.dirname(path))


@contextlib.contextmanager
def whole_folder(path):
    """The same for a folder: yields one that exists and is empty. `path` must not exist, or be empty."""
    path = os.path.abspath(os.fspath(path))
    check_new_folder(path)
    temporary = _temporary(path)
    os.makedirs(temporary)
    try:
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                _sync(os.path.join(folder, name))
            _sync(folder)
        os.rename(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name(error, path)
        raise
    _sync(os.path.dirname(path))


def check_new_folder(path):
    """Raises a FileExistsError if there is something at `path` but an empty folder."""
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(
            f"path must not exist yet, or be an empty folder, got {os.fspath(path)!r}, which is there"
        )


def _name(error, path):
    """Has an error of the system say what was written: that of a full disk names no file."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = path


def _temporary(path):
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.unfinished")


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
