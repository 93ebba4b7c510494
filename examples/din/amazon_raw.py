"""Reader of the raw Amazon product data of 2014 (J. McAuley, UCSD): a review file and a metadata file.

One object a line, plain or gzip. Of a review `reviewerID`, `asin` and `unixReviewTime` are used, of the metadata
`asin` and `categories` (a list of category paths, each a list of names). The metadata of 2014 is not JSON but Python
literals, with single quotes.
"""

import ast
import collections
import gzip
import json
import pathlib

import numpy as np


class MalformedLine(ValueError):
    """A line of a raw file that is not what it must be; the message names file, line and field."""


MIN_REVIEWS = 5
UNKNOWN_CATEGORY = ""


def read(data_dir):
    """Reads `reviews_*.json[.gz]` and `meta_*.json[.gz]` of a folder that holds one of each.

    Users with fewer than five reviews are left out (the files called 5-core have none). A reviewer's items are in time
    order, those of one second in the order of the file. An item's category is the last name of its last path, as in
    the preparation of the DIN paper; items without metadata share one category of their own.

    Returns: sequences, a list (users by reviewerID) of int64 item numbers (items by asin), and item_categories
        int64 [items] (categories by name).
    """
    reviews_path = _only_file(data_dir, "reviews_*.json")
    meta_path = _only_file(data_dir, "meta_*.json")

    reviews = collections.defaultdict(list)
    for where, record in _records(reviews_path):
        user = _field(where, record, "reviewerID", str)
        time = _field(where, record, "unixReviewTime", int)
        reviews[user].append((time, _field(where, record, "asin", str)))
    users = sorted(user for user, clicks in reviews.items() if len(clicks) >= MIN_REVIEWS)
    if not users:
        raise ValueError(f"{reviews_path}: no user has {MIN_REVIEWS} reviews")

    asins = sorted({asin for user in users for _, asin in reviews[user]})
    item_of = {asin: item for item, asin in enumerate(asins)}
    sequences = []
    for user in users:
        by_time = sorted(reviews[user], key=lambda click: click[0])
        sequences.append(np.array([item_of[asin] for _, asin in by_time], np.int64))

    names = [UNKNOWN_CATEGORY] * len(asins)
    for where, record in _records(meta_path):
        item = item_of.get(_field(where, record, "asin", str))
        if item is not None:
            names[item] = _category(where, record)
    _, item_categories = np.unique(names, return_inverse=True)
    return sequences, item_categories.astype(np.int64)


def _only_file(data_dir, pattern):
    found = sorted(path for suffix in ("", ".gz") for path in pathlib.Path(data_dir).glob(pattern + suffix))
    if len(found) != 1:
        names = [path.name for path in found]
        raise FileNotFoundError(f"{data_dir} must hold one file {pattern} or {pattern}.gz, found {names}")
    return found[0]


def _records(path):
    """Yields ("file, line n", object) for each line that is not blank."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, _parse(where, line)


def _parse(where, line):
    try:
        record = json.loads(line)
    except ValueError:
        try:
            record = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError) as error:
            raise MalformedLine(f"{where}: neither a JSON object nor a Python literal") from error
    if not isinstance(record, dict):
        raise MalformedLine(f"{where}: must be an object, got {type(record).__name__}")
    return record


def _field(where, record, name, kind):
    if name not in record:
        raise MalformedLine(f"{where}: field {name!r} is missing")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MalformedLine(f"{where}: field {name!r} must be {kind.__name__}, got {value!r}")
    return value


def _category(where, record):
    paths = _field(where, record, "categories", list)
    last_path = paths[-1] if paths else None
    if not isinstance(last_path, list) or not last_path or not isinstance(last_path[-1], str):
        raise MalformedLine(f"{where}: field 'categories' must end in a path of names, got {paths!r}")
    return last_path[-1]
