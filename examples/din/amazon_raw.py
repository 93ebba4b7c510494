"""What is read of the raw Amazon product data of 2014 (J. McAuley, UCSD): a review file and a metadata file.

One object a line, plain or gzip. Of a review `reviewerID`, `asin` and `unixReviewTime` are used, of the metadata
`asin` and `categories` (a list of category paths, each a list of names). The metadata of 2014 is not JSON but Python
literals, with single quotes.
"""

import ast
import json
import pathlib

from din.lines import MalformedFile


def find_files(raw_dir):
    """The paths of `reviews_*.json[.gz]` and `meta_*.json[.gz]` of a folder that holds one of each."""
    return _only_file(raw_dir, "reviews_*.json"), _only_file(raw_dir, "meta_*.json")


def reviews(file):
    """Yields (user, time, asin) of each review of a `TextFile`."""
    for where, record in _records(file):
        user, time = _id(where, record, "reviewerID"), _field(where, record, "unixReviewTime", int)
        if not 0 <= time < 10**12:
            raise MalformedFile(f"{where}: field 'unixReviewTime' must be seconds since 1970, got {time}")
        yield user, time, _id(where, record, "asin")


def metadata(file):
    """Yields (asin, category) of each line of a `TextFile`.

    The category is the last name of the last path, as in the preparation of the DIN paper. Where the line has no such
    name it is a `MalformedFile`, to be raised if the item is used: the files describe many more than are reviewed.
    """
    for where, record in _records(file):
        asin = _id(where, record, "asin")
        try:
            yield asin, _category(where, record)
        except MalformedFile as error:
            yield asin, error


def _only_file(raw_dir, pattern):
    found = sorted(path for suffix in ("", ".gz") for path in pathlib.Path(raw_dir).glob(pattern + suffix))
    if len(found) != 1:
        names = [path.name for path in found]
        raise FileNotFoundError(f"{raw_dir} must hold one file {pattern} or {pattern}.gz, found {names}")
    return found[0]


def _records(file):
    """Yields ("file, line n", object) for each line that is not blank."""
    for number, line in file:
        if line.strip():
            where = f"{file.path}, line {number}"
            yield where, _parse(where, line)


def _parse(where, line):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise MalformedFile(f"{where}: neither a JSON object nor a Python literal") from error
    if not isinstance(record, dict):
        raise MalformedFile(f"{where}: must be an object, got {type(record).__name__}")
    return record


def _field(where, record, name, kind):
    if name not in record:
        raise MalformedFile(f"{where}: field {name!r} is missing")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MalformedFile(f"{where}: field {name!r} must be {kind.__name__}, got {value!r}")
    return value


def _id(where, record, name):
    value = _field(where, record, name, str)
    if not value.isprintable() or not value or " " in value:
        raise MalformedFile(f"{where}: field {name!r} must be an id of printable characters, got {value!r}")
    return value


def _category(where, record):
    paths = _field(where, record, "categories", list)
    last_path = paths[-1] if paths else None
    if not isinstance(last_path, list) or not last_path or not isinstance(last_path[-1], str):
        raise MalformedFile(f"{where}: field 'categories' must end in a path of names, got {paths!r}")
    return last_path[-1]
