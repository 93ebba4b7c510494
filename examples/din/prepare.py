"""Prepares raw Amazon files for training: `python -m examples.din.prepare RAW PREPARED`, for `--dataset prepared`.

Memory is bounded, whatever the number of reviews: users, items and metadata are brought together by sorting lines on
disk (`lines.SortedLines`). What remains in memory is one user's reviews and the names of the categories.

A prepared folder holds, for U users in order of reviewerID, their L clicks in order of time, and V items by asin:

    lengths.int64 [U]          clicks of each user
    clicks.int64 [L]           items from 0, users one after another
    times.int64 [L]            unixReviewTime
    negatives.int64 [L]        for each click an item that its user has not clicked
    item_categories.int64 [V]  categories from 0, by name
    users.txt, items.txt       reviewerID and asin, one a line
    categories.json            names
    manifest.json              counts, and the checksums of these files and of the raw ones
"""

import argparse
import array
import collections
import itertools
import json
import os
import pathlib
import sys
import tempfile
from typing import NamedTuple

import numpy as np

if __package__ != "din":  # run as a script or as examples.din.prepare: make the package `din` importable
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from din import amazon_raw
from din.lines import MalformedFile, SortedLines, TextFile, sha256_of
from din.negatives import draw_negatives

MIN_REVIEWS = 5
UNKNOWN_CATEGORY = ""  # of items without metadata
FORMAT = 1
MANIFEST = "manifest.json"
MEGABYTE = 1 << 20
COMMAND = "python -m examples.din.prepare"


class Prepared(NamedTuple):
    """What `read` returns."""

    sequences: list  # of int64 items (from 0) in time order, for each user
    item_categories: np.ndarray  # int64 [V]
    negatives: list  # of int64 items, as sequences
    times: list  # of int64 seconds, as sequences


def prepare(raw_dir, folder, memory=256 * MEGABYTE):
    """Turns the review and metadata files of `raw_dir` into a prepared folder, which is there whole or not at all.

    Users with fewer than five reviews are left out (the files called 5-core have none). Reviews of one second stay in
    the order of the file. An item's category is the last name of its last path, of the last line that describes it;
    items without metadata share one category of their own.

    Args:
        raw_dir: a folder with one `reviews_*.json[.gz]` and one `meta_*.json[.gz]`.
        folder: to be made; scratch files are beside it, of about 60 bytes a review.
        memory: bytes of lines to be held in memory while they are sorted.

    Returns:
        dict: the manifest.

    Raises:
        MalformedFile: names file, line and field.
        FileExistsError: if there is something at `folder`.
    """
    reviews_path, meta_path = amazon_raw.find_files(raw_dir)
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already: remove it, or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        out = pathlib.Path(scratch, "out")
        out.mkdir()
        reviews, metadata = TextFile(reviews_path), TextFile(meta_path)

        def sorted_lines():
            return SortedLines(scratch, memory // 3)  # three are in use at a time

        clicks_by_item = sorted_lines()
        num_users, num_clicks = _write_users(out, _reviews_by_user(reviews, sorted_lines()), clicks_by_item)
        if not num_users:
            raise MalformedFile(f"{reviews_path}: no user has {MIN_REVIEWS} reviews")
        clicks_by_position = sorted_lines()
        names = _last_of_each_item(_metadata_by_item(metadata, sorted_lines()))
        num_items = _write_items(out, clicks_by_item, names, clicks_by_position)
        with _Column(out / "clicks.int64") as clicks:
            clicks.extend(int(line[line.index(b"\t") :]) for line in clicks_by_position)
        with _Column(out / "negatives.int64") as negatives:
            for drawn in draw_negatives(_sequences(out), num_items):
                negatives.extend(drawn.tolist())

        manifest = {
            "format": FORMAT,
            "min_reviews": MIN_REVIEWS,
            "sources": {file.path.name: file.sha256 for file in (reviews, metadata)},
            "users": num_users,
            "items": num_items,
            "categories": len(json.loads((out / "categories.json").read_text())),
            "clicks": num_clicks,
            "files": {path.name: sha256_of(path) for path in sorted(out.iterdir())},
        }
        (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        os.rename(out, folder)
    return manifest


def read_manifest(folder):
    """The manifest of a prepared folder, whose files are as it says.

    Raises:
        FileNotFoundError: if the folder is none.
        MalformedFile: if a file differs from its checksum, or the folder is of another version.
    """
    path = pathlib.Path(folder, MANIFEST)
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}: make it with `{COMMAND} RAW {folder}`")
    try:
        manifest = json.loads(path.read_text())
        files = manifest["files"] if manifest["format"] == FORMAT else {}
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedFile(f"{path}: not a manifest of {COMMAND}: {error!r}") from error
    if not files:
        raise MalformedFile(f"{path}: format must be {FORMAT}, got {manifest['format']!r}: prepare the raw files again")
    for name, expected in files.items():
        actual = sha256_of(path.parent / name)
        if actual != expected:
            raise MalformedFile(f"{path.parent / name}: its sha256 is {actual}, {MANIFEST} has {expected}")
    return manifest


def read(folder):
    """Reads a prepared folder, whose checksums are checked first: `Prepared`."""
    read_manifest(folder)
    columns = {
        name: np.fromfile(pathlib.Path(folder, f"{name}.int64"), "<i8")
        for name in ("lengths", "clicks", "times", "negatives", "item_categories")
    }
    starts = np.cumsum(columns["lengths"])[:-1]
    return Prepared(
        sequences=np.split(columns["clicks"], starts),
        item_categories=columns["item_categories"],
        negatives=np.split(columns["negatives"], starts),
        times=np.split(columns["times"], starts),
    )


def is_up_to_date(raw_dir, folder):
    """Whether `folder` is a prepared one, whole, of exactly these raw files."""
    if not pathlib.Path(folder, MANIFEST).exists():
        return False
    sources = {path.name: sha256_of(path) for path in amazon_raw.find_files(raw_dir)}
    return read_manifest(folder)["sources"] == sources


def _reviews_by_user(file, by_user):
    """Yields (user, its reviews in time order as lists [user, time, order, asin] of bytes), users in order."""
    for order, (user, time, asin) in enumerate(amazon_raw.reviews(file)):
        by_user.add(f"{user}\t{time:012d}\t{order:012d}\t{asin}\n".encode())
    fields = (line[:-1].split(b"\t") for line in by_user)
    return itertools.groupby(fields, key=lambda review: review[0])


def _write_users(out, users, clicks_by_item):
    """Writes users.txt, lengths, times; adds "asin, position" lines. Returns the numbers of users and clicks."""
    num_users = position = 0
    with (
        open(out / "users.txt", "wb") as ids,
        _Column(out / "lengths.int64") as lengths,
        _Column(out / "times.int64") as times,
    ):
        for user, reviews in users:
            reviews = list(reviews)
            if len(reviews) < MIN_REVIEWS:
                continue
            num_users += 1
            ids.write(user + b"\n")
            lengths.extend([len(reviews)])
            times.extend(int(time) for _, time, _, _ in reviews)
            for *_, asin in reviews:
                clicks_by_item.add(b"%b\t%012d\n" % (asin, position))
                position += 1
    return num_users, position


def _metadata_by_item(file, by_item):
    """Yields (asin, category or {"error": why there is none}), in order of asin, then of lines."""
    for order, (asin, category) in enumerate(amazon_raw.metadata(file)):
        content = category if isinstance(category, str) else {"error": str(category)}
        by_item.add(f"{asin}\t{order:012d}\t{json.dumps(content)}\n".encode())
    for line in by_item:
        asin, _, content = line.split(b"\t", 2)
        yield asin, json.loads(content)


def _last_of_each_item(metadata):
    for _, lines in itertools.groupby(metadata, key=lambda line: line[0]):
        yield collections.deque(lines, maxlen=1)[0]


def _write_items(out, clicks_by_item, names, clicks_by_position):
    """Numbers items and categories, writes them; adds "position, item" lines. Returns the number of items."""
    item = -1
    numbers = {}  # of categories, by first use
    with open(out / "items.txt", "wb") as ids, _Column(out / "by_first_use.int64") as categories:
        described, name = next(names, (None, None))
        fields = (line[:-1].split(b"\t") for line in clicks_by_item)
        for item, (asin, clicks) in enumerate(itertools.groupby(fields, key=lambda click: click[0])):
            while described is not None and described < asin:
                described, name = next(names, (None, None))
            category = name if described == asin else UNKNOWN_CATEGORY
            if not isinstance(category, str):
                raise MalformedFile(category["error"])
            ids.write(asin + b"\n")
            categories.extend([numbers.setdefault(category, len(numbers))])
            for _, position in clicks:
                clicks_by_position.add(b"%b\t%d\n" % (position, item))
    ordered = sorted(numbers)
    (out / "categories.json").write_text(json.dumps(ordered, indent=1) + "\n")
    by_name = np.empty(len(ordered), np.int64)
    by_name[[numbers[name] for name in ordered]] = np.arange(len(ordered))
    with open(out / "by_first_use.int64", "rb") as file, _Column(out / "item_categories.int64") as categories:
        while (part := np.fromfile(file, "<i8", count=MEGABYTE // 8)).size:
            categories.extend(by_name[part].tolist())
    (out / "by_first_use.int64").unlink()
    return item + 1


def _sequences(out):
    """Yields each user's items, of a folder that is being written."""
    with open(out / "lengths.int64", "rb") as lengths, open(out / "clicks.int64", "rb") as clicks:
        while (part := np.fromfile(lengths, "<i8", count=MEGABYTE // 8)).size:
            for length in part:
                yield np.fromfile(clicks, "<i8", count=length)


class _Column:
    """A file of little-endian int64 numbers, written as they come."""

    def __init__(self, path):
        self._file = open(path, "wb")  # noqa: SIM115
        self._numbers = array.array("q")

    def extend(self, numbers):
        for number in numbers:
            self._numbers.append(number)
            if len(self._numbers) * 8 >= MEGABYTE:
                self._flush()

    def _flush(self):
        if sys.byteorder == "big":
            self._numbers.byteswap()
        self._numbers.tofile(self._file)
        del self._numbers[:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._flush()
        self._file.close()


def main(arguments=None):
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Prepares raw Amazon files for --dataset prepared.")
    parser.add_argument("raw", help="folder with one reviews_*.json and one meta_*.json, plain or .gz")
    parser.add_argument("prepared", help="folder to be made; nothing is done if it is there, of the same files")
    parser.add_argument("--memory", type=int, default=256, help="megabytes of lines to be sorted at once (%(default)s)")
    options = parser.parse_args(arguments)
    if options.memory < 16:  # there would be too many files to merge
        parser.error(f"--memory must be at least 16, got {options.memory}")
    try:
        if is_up_to_date(options.raw, options.prepared):
            print(f"{options.prepared} is up to date")
            return 0
        manifest = prepare(options.raw, options.prepared, options.memory * MEGABYTE)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = ", ".join(f"{manifest[name]:,} {name}" for name in ("users", "items", "categories", "clicks"))
    print(f"{options.prepared}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
