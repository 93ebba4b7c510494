"""The folders of a chain of saves.

    directory/latest.json              which save is the last; what is beyond it was not finished
    directory/save-00000007/save.json  what the save is, and the checksums of `rest.*`
                           /0.table    a table, or what has changed in it: cc/lib/table_file.h
                           /1.0.table, /1.1.table, ...  the same of one that is spread over servers, by server
                           /rest.*     a TensorFlow checkpoint of all else

A save without `previous` is full; the numbers after it are its increments, each of which names the save that it
follows. A folder appears whole, under its name, before latest.json names it.
"""

import dataclasses
import json
import os
import re
import shutil
import zlib
from pathlib import Path

from tf_sparse_emb.whole_files import whole_file

_NAME = re.compile(r"save-(\d{8,})")
_VERSION = 2


class DamagedError(Exception):
    """A file is missing or damaged; says which."""


@dataclasses.dataclass(frozen=True)
class SavedTable:
    """A table in a save.

    Attributes:
        files: list of str, the names of its files, one for each server that has written it.
        had_all_rows: bool, whether every key had a row from the start; see `TableResource.has_all_rows`.
    """

    files: list
    had_all_rows: bool


@dataclasses.dataclass(frozen=True)
class Save:
    """What save.json says.

    Attributes:
        number: int, from 1 on.
        id: str, which no other save has.
        previous: str or None, the id of the save that this increment follows; None: a full save.
        tables: {path of a table in the graph of objects: `SavedTable`}.
        files: {name of another file: its CRC-32}.
    """

    number: int
    id: str
    previous: str | None
    tables: dict
    files: dict

    @property
    def kind(self):
        """What to call it."""
        return "full save" if self.previous is None else "increment"

    def name_of(self, file):
        """What the file of a table calls the save that it is of."""
        return f"{self.id}/{file}"


def folder_of(directory, number):
    """The folder of a save."""
    return Path(directory, f"save-{number:08d}")


def path_of(directory, save, file):
    """The path of a file of a save; absolute, because servers may have another working directory."""
    return os.path.abspath(folder_of(directory, save.number) / file)


def files_of(directory, saves, path):
    """The files of a table in a full save and its increments.

    Args:
        directory: str.
        saves: list of P `Save`s.
        path: of the table in the graph of objects.

    Returns:
        paths, names: lists, for each server that has written it, of P str: the files, and what they call their saves.
    """
    chains = [
        list(zip(saves, files, strict=True)) for files in zip(*(save.tables[path].files for save in saves), strict=True)
    ]
    return (
        [[path_of(directory, save, file) for save, file in chain] for chain in chains],
        [[save.name_of(file) for save, file in chain] for chain in chains],
    )


def write_save(folder, save):
    """Writes save.json."""
    tables = [{"path": path, **dataclasses.asdict(table)} for path, table in save.tables.items()]
    _write(Path(folder, "save.json"), {**dataclasses.asdict(save), "tables": tables})


def read_save(directory, number):
    """Reads a save.json.

    Raises:
        DamagedError: if it is missing or damaged.
    """
    folder = folder_of(directory, number)
    if not folder.is_dir():
        raise DamagedError(f"'{folder}' is missing")
    fields = _read(folder / "save.json")
    tables = {tuple(table.pop("path")): SavedTable(**table) for table in fields["tables"]}
    save = Save(**{**fields, "tables": tables})
    if save.number != number:
        raise DamagedError(f"'{folder}' holds save {save.number}: it was renamed")
    return save


def checksum(path):
    """The CRC-32 of a file.

    Raises:
        DamagedError: if it cannot be read.
    """
    crc = 0
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                crc = zlib.crc32(block, crc)
    except OSError as error:
        raise DamagedError(f"cannot read '{path}': {error.strerror}") from error
    return crc


def check_files(directory, save):
    """Raises a DamagedError unless the files beside the tables are as they were written."""
    for name, crc in save.files.items():
        path = folder_of(directory, save.number) / name
        if checksum(path) != crc:
            raise DamagedError(f"'{path}' is damaged: its checksum does not match")


def write_latest(directory, save):
    """Makes a save, whose folder is whole, the last."""
    with whole_file(Path(directory, "latest.json")) as path:
        _write(path, {"number": save.number, "id": save.id})


def read_latest(directory):
    """Returns the number and the id of the last save, or None if there is none.

    Raises:
        DamagedError: if there are saves, and latest.json is missing or damaged.
    """
    path = Path(directory, "latest.json")
    if not path.exists() and not numbers(directory):
        return None
    fields = _read(path)
    return fields["number"], fields["id"]


def numbers(directory):
    """The numbers of the folders that are there, ascending."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def read_chains(directory, last):
    """Yields the chains up to save number `last`, the newest first.

    Yields:
        saves: list of `Save`, a full one and the increments that follow it.
        problem: str, why those that should follow do not; empty if none should. If no full save can be read, the only
            chain is empty.
    """
    saves, problems = {}, {}
    for number in range(min(numbers(directory), default=1), last + 1):
        try:
            saves[number] = read_save(directory, number)
        except DamagedError as error:
            problems[number] = str(error)
    end = last
    for first in sorted((n for n, save in saves.items() if save.previous is None), reverse=True):
        chain, problem = [saves[first]], ""
        for number in range(first + 1, end + 1):
            problem = problems.get(number, "")
            if not problem and saves[number].previous != chain[-1].id:
                problem = f"'{folder_of(directory, number)}' does not follow '{folder_of(directory, number - 1)}'"
            if problem:
                break
            chain.append(saves[number])
        yield chain, problem
        end = first - 1
    if problems and not any(save.previous is None for save in saves.values()):
        yield [], problems[min(problems)]


def remove_unfinished(directory, last):
    """Removes the saves beyond the last: they were killed, or failed, before latest.json named them."""
    for number in reversed(numbers(directory)):
        if number > last:
            shutil.rmtree(folder_of(directory, number))


def remove_old(directory, max_to_keep):
    """Removes all chains but the newest so many."""
    firsts = []
    for number in reversed(numbers(directory)):
        if len(firsts) == max_to_keep:
            shutil.rmtree(folder_of(directory, number), ignore_errors=True)
            continue
        try:
            if read_save(directory, number).previous is None:
                firsts.append(number)
        except DamagedError:
            continue


def _write(path, fields):
    text = json.dumps(fields)
    Path(path).write_text(json.dumps({"version": _VERSION, "crc": zlib.crc32(text.encode()), "content": text}))


def _read(path):
    try:
        outer = json.loads(Path(path).read_text())
        text = outer["content"]
        if outer["version"] == _VERSION and zlib.crc32(text.encode()) == outer["crc"]:
            return json.loads(text)
    except OSError as error:
        raise DamagedError(f"cannot read '{path}': {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"'{path}' is damaged: it cannot be read") from error
    if outer["version"] != _VERSION:
        raise DamagedError(f"'{path}' has version {outer['version']}; this build reads version {_VERSION}")
    raise DamagedError(f"'{path}' is damaged: its checksum does not match")
