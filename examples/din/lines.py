"""Text files larger than memory: read as a stream, with progress, a checksum and errors by line; sorted on disk."""

import gzip
import hashlib
import heapq
import io
import os
import pathlib
import sys
import tempfile
import time
import zlib

_BUFFER = 1 << 20


class MalformedFile(ValueError):
    """A file that is not what it must be; the message names it, and the line and the field where there is one."""


class TextFile:
    """A text file, plain or gzip (`.gz`), read once: iterating yields (line number from 1, line without its end).

    Says on stderr how far it is, once a second on a terminal and every half minute elsewhere; what takes less says
    nothing. A file that is cut off, damaged or not UTF-8 is a `MalformedFile`.

    Attributes:
        path: pathlib.Path.
        sha256: of the file's bytes as they are on the disk; None until the last line has been read.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.sha256 = None

    def __iter__(self):
        number = 0
        with open(self.path, "rb", buffering=0) as file:
            counted = _CountedFile(file)
            lines = io.BufferedReader(counted, _BUFFER)
            if self.path.suffix == ".gz":
                lines = io.BufferedReader(_Unzipped(lines), _BUFFER // 8)
            progress = _Progress(self.path.name, os.fstat(file.fileno()).st_size)
            try:
                for number, line in enumerate(lines, start=1):
                    if number % 1024 == 0:
                        progress.update(counted.bytes, number)
                    yield number, line.decode("utf-8").rstrip("\r\n")
            except EOFError as error:
                raise MalformedFile(f"{self.path}, after line {number}: the gzip file is cut off") from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise MalformedFile(f"{self.path}, after line {number}: not a whole gzip file: {error}") from error
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise MalformedFile(
                    f"{self.path}, line {number}: not UTF-8: byte 0x{byte:02x} at column {error.start + 1}"
                ) from error
            finally:
                progress.close()
            self.sha256 = counted.sha256.hexdigest()


def sha256_of(path):
    """The checksum of a file, as `TextFile` has it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_BUFFER):
            digest.update(part)
    return digest.hexdigest()


class SortedLines:
    """Lines of bytes in sorted order, however many: what is more than `memory` bytes waits in files in `folder`.

    `add` all, each with its b"\\n" at the end, then iterate, once. An external merge sort: runs of `memory` bytes are
    sorted, written, and merged line by line.
    """

    def __init__(self, folder, memory):
        self._folder, self._memory = folder, memory
        self._lines, self._bytes, self._runs = [], 0, []

    def add(self, line):
        """Takes a line."""
        self._lines.append(line)
        self._bytes += sys.getsizeof(line) + 8  # and its place in the list
        if self._bytes >= self._memory:
            self._write_run()

    def __iter__(self):
        if not self._runs:
            self._lines.sort()
            yield from self._lines
        else:
            self._write_run()  # its memory is another's now
            for run in self._runs:
                run.seek(0)
            yield from heapq.merge(*self._runs)
        for run in self._runs:
            run.close()
        self._lines, self._runs = [], []

    def _write_run(self):
        self._lines.sort()
        run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        run.writelines(self._lines)
        self._runs.append(run)
        self._lines, self._bytes = [], 0


class _CountedFile(io.RawIOBase):
    """The bytes of a file, counted and summed up as they are read."""

    def __init__(self, file):
        self._file = file
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self._file.readinto(buffer)
        self.sha256.update(memoryview(buffer)[:count])
        self.bytes += count
        return count


class _Unzipped(io.RawIOBase):
    """The content of a gzip file, as far as it goes: before it fails, what comes before has been read."""

    def __init__(self, file):
        self._file = gzip.GzipFile(fileobj=file)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self._file.read1(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class _Progress:
    """How far a file has been read, on stderr."""

    def __init__(self, name, size):
        self._name, self._size = name, size
        self._terminal = sys.stderr.isatty()
        self._interval = 1.0 if self._terminal else 30.0
        self._began = self._last = time.monotonic()
        self._said = False

    def update(self, done, lines):
        now = time.monotonic()
        if now - self._last < self._interval:
            return
        rate = lines / (now - self._began)
        text = f"{self._name}: {done / max(self._size, 1):.0%}, {lines:,} lines, {rate:,.0f} a second"
        print(
            f"\r{text:<79}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr, flush=True
        )
        self._last, self._said = now, True

    def close(self):
        if self._said and self._terminal:
            print(file=sys.stderr)
