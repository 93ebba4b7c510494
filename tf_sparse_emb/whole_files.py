"""Files and folders that are there whole or not at all.

What is being written has the name `.<name>.<8 hex digits>.unfinished`, and is locked by the process that writes it. The
lock of a process goes with it: what bears such a name and is not locked was left by one that was killed.
"""

import contextlib
import fcntl
import os
import re
import shutil
import uuid

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.unfinished")


@contextlib.contextmanager
def whole_file(path):
    """Yields the path of an empty file beside `path`; what is written there replaces the file `path` at the end.

    It is on the disk before it gets its name. If the body raises, `path` is as it was. The body must write to the file
    that is there, not put another in its place. What killed processes have left in the folder is removed first.
    """
    path = os.path.abspath(os.fspath(path))
    with _unfinished(path, _make_file) as temporary:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    _sync(os.path.dirname(path))


@contextlib.contextmanager
def whole_folder(path):
    """The same for a folder. `path` must not exist, or be empty."""
    path = os.path.abspath(os.fspath(path))
    check_new_folder(path)
    with _unfinished(path, os.makedirs) as temporary:
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                _sync(os.path.join(folder, name))
            _sync(folder)
        os.rename(temporary, path)
    _sync(os.path.dirname(path))


def check_new_folder(path):
    """Raises a FileExistsError if there is something at `path` but an empty folder."""
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(
            f"path must not exist yet, or be an empty folder, got {os.fspath(path)!r}, which is there"
        )


@contextlib.contextmanager
def _unfinished(path, make):
    """Yields what `make` makes beside `path`, locked; removes it if the body raises."""
    _remove_abandoned(os.path.dirname(path))
    temporary, lock = _make_locked(path, make)
    try:
        yield temporary
    except BaseException as error:
        _remove(temporary)
        # That of a full disk names no file.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = path
        raise
    finally:
        os.close(lock)


def _make_locked(path, make):
    """Returns the path of what `make` has made, and the descriptor that holds its lock."""
    folder, name = os.path.split(path)
    while True:
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.unfinished")
        make(temporary)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(temporary, os.O_RDONLY)
            # On a file system without locks nobody takes it for abandoned.
            if _is_locked(lock) is not False and _is_at(lock, temporary):
                return temporary, lock
            os.close(lock)
        # _remove_abandoned of another process came between.


def _remove_abandoned(folder):
    """Removes what killed processes have left in a folder."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for name in filter(_UNFINISHED.fullmatch, names):
        abandoned = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # of another user, or removed meanwhile
            lock = os.open(abandoned, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _is_locked(lock) and _is_at(lock, abandoned):
                    _remove(abandoned)
            finally:
                os.close(lock)


def _is_locked(descriptor):
    """Whether the descriptor now has the lock: False if another has it, None if there are no locks here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(descriptor, path):
    return os.path.lexists(path) and os.path.samestat(os.fstat(descriptor), os.lstat(path))


def _make_file(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
