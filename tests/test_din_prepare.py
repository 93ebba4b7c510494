"""DIN example: raw Amazon files become a prepared folder; files that are wrong are named."""

import collections
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from din import data, prepare
from din.lines import MalformedFile, SortedLines, TextFile

ROOT = Path(__file__).parents[1]
SMALL_MEMORY = 3 * 2000  # some 20 lines a run


def write_lines(path, lines, newline=True):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n" * newline)


def review(user, asin, time):
    return json.dumps({"reviewerID": user, "asin": asin, "unixReviewTime": time, "reviewText": "fine", "overall": 5.0})


REVIEWS = [
    *(review("B", asin, time) for asin, time in [("x", 5), ("y", 4), ("z", 4), ("x", 1), ("w", 9)]),
    *(review("A", asin, time) for asin, time in [("v", 1), ("w", 2), ("x", 3), ("y", 4), ("z", 5)]),
    *(review("C", "u", time) for time in (0, 0, 0, 1, 1)),
    *(review("few", asin, 1) for asin in ["v", "unseen", "x", "y"]),
]
META = [
    "{'asin': 'v', 'categories': [['Games', 'PC'], ['Games', 'Kids\\' toys']], 'title': 'one'}",
    json.dumps({"asin": "w", "categories": [["Games", "PC"]]}),
    "{'asin': 'x', 'categories': [['Games']]}",
    "",
    "{'asin': 'y', 'categories': [['Games', 'PC']]}",
    "{'asin': 'unused'}",
]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def write_raw(folder, reviews=REVIEWS, meta=META, suffix=".gz"):
    write_lines(folder / f"reviews_Games.json{suffix}", reviews)
    write_lines(folder / f"meta_Games.json{suffix}", meta)


def as_lists(arrays):
    return [array.tolist() for array in arrays]


# ---- what is prepared ----


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_prepared_folder_of_raw_files(raw, tmp_path, suffix):
    write_raw(raw, suffix=suffix)
    manifest = prepare.prepare(raw, tmp_path / "out")
    prepared = prepare.read(tmp_path / "out")
    # Users A, B, C; items u v w x y z. B's reviews of one second stay in the order of the file.
    assert as_lists(prepared.sequences) == [[1, 2, 3, 4, 5], [3, 4, 5, 3, 2], [0, 0, 0, 0, 0]]
    assert as_lists(prepared.times) == [[1, 2, 3, 4, 5], [1, 4, 4, 5, 9], [0, 0, 0, 1, 1]]
    assert as_lists(prepared.negatives[:1]) == [[0, 0, 0, 0, 0]]  # the one item that A has not reviewed
    # Categories by name: the unknown one (u, z), Games (x), Kids' toys (v), PC (w, y).
    assert prepared.item_categories.tolist() == [0, 2, 3, 1, 3, 0]
    assert json.loads((tmp_path / "out" / "categories.json").read_text()) == ["", "Games", "Kids' toys", "PC"]
    assert (tmp_path / "out" / "users.txt").read_text().split() == ["A", "B", "C"]
    assert (tmp_path / "out" / "items.txt").read_text().split() == list("uvwxyz")
    assert {"users": 3, "items": 6, "categories": 4, "clicks": 15}.items() <= manifest.items()


def test_the_last_line_of_an_item_has_its_category(raw, tmp_path):
    write_raw(raw, meta=[*META, "{'asin': 'x', 'categories': [['Games', 'PC']]}"])
    prepare.prepare(raw, tmp_path / "out")
    assert prepare.read(tmp_path / "out").item_categories.tolist() == [0, 1, 2, 2, 2, 0]


def test_an_item_without_metadata_has_the_unknown_category(raw, tmp_path):
    write_raw(raw, meta=META[1:2])
    prepare.prepare(raw, tmp_path / "out")
    assert prepare.read(tmp_path / "out").item_categories.tolist() == [0, 0, 1, 0, 0, 0]
    assert json.loads((tmp_path / "out" / "categories.json").read_text()) == ["", "PC"]


def slow_preparation(reviews, meta):
    """All in memory: sequences, times, categories."""
    of_user = collections.defaultdict(list)
    for user, asin, time in reviews:
        of_user[user].append((time, asin))
    users = sorted(user for user, clicks in of_user.items() if len(clicks) >= 5)
    asins = sorted({asin for user in users for _, asin in of_user[user]})
    by_time = [sorted(of_user[user], key=lambda click: click[0]) for user in users]
    names = [dict(meta).get(asin, "") for asin in asins]
    return (
        [[asins.index(asin) for _, asin in clicks] for clicks in by_time],
        [[time for time, _ in clicks] for clicks in by_time],
        np.unique(names, return_inverse=True)[1].tolist(),
    )


@pytest.mark.parametrize("memory", [SMALL_MEMORY, prepare.MEGABYTE])
def test_sorting_on_disk_gives_what_all_in_memory_gives(raw, tmp_path, memory):
    rng = np.random.default_rng(5)
    letters = np.array(["A", "b", "é", "Z0", "_", "漢"])
    users = ["".join(rng.choice(letters, 3)) for _ in range(60)]
    asins = ["".join(rng.choice(letters, 4)) for _ in range(80)]
    reviews = [(rng.choice(users), rng.choice(asins), int(rng.integers(30))) for _ in range(700)]
    meta = [(asin, f"category\t{rng.integers(9)}\n") for asin in rng.choice(asins, 60)]
    write_raw(
        raw,
        [review(*map(str, columns), time) for *columns, time in reviews],
        [json.dumps({"asin": str(asin), "categories": [["All", name]]}) for asin, name in meta],
    )
    manifest = prepare.prepare(raw, tmp_path / "out", memory)
    prepared = prepare.read(tmp_path / "out")
    sequences, times, categories = slow_preparation(reviews, meta)
    assert as_lists(prepared.sequences) == sequences
    assert as_lists(prepared.times) == times
    assert prepared.item_categories.tolist() == categories
    assert as_lists(prepared.negatives) == as_lists(data.sample_negatives(prepared.sequences, manifest["items"]))
    assert manifest["clicks"] == sum(map(len, sequences)) > 500


def test_prepared_files_follow_the_published_protocol(raw, tmp_path):
    write_raw(raw)
    prepare.prepare(raw, tmp_path / "out")
    dataset = data.load("prepared", tmp_path / "out")
    assert (len(dataset.train), len(dataset.held_out)) == (2 * 3 * 3, 2 * 3)
    np.testing.assert_array_equal(dataset.held_out.items[::2], [6, 3, 1])
    assert dataset.held_out.items[1] == 1


# ---- what is wrong with a raw file ----


@pytest.mark.parametrize(
    ("reviews", "meta", "message"),
    [
        ([*REVIEWS, '{"reviewerID": '], META, r"reviews_Games\.json\.gz, line 20: neither a JSON object"),
        ([*REVIEWS, "[1, 2]"], META, r"line 20: must be an object, got list"),
        ([*REVIEWS, "[" * 100_000], META, r"line 20: neither a JSON object nor a Python literal"),
        ([*REVIEWS, '{"reviewerID": "A", "unixReviewTime": 1}'], META, r"line 20: field 'asin' is missing"),
        ([*REVIEWS, review("A", "v", "1")], META, r"line 20: field 'unixReviewTime' must be int, got '1'"),
        ([*REVIEWS, review("A", "v", -1)], META, r"line 20: field 'unixReviewTime' must be seconds since 1970, got -1"),
        ([*REVIEWS, review("A\tB", "v", 1)], META, r"line 20: field 'reviewerID' must be an id .* got 'A\\tB'"),
        ([*REVIEWS, review("A", "", 1)], META, r"line 20: field 'asin' must be an id of printable characters, got ''"),
        (REVIEWS[15:], META, r"no user has 5 reviews"),
        (REVIEWS, [*META, "{'asin': 'x'}"], r"meta_Games\.json\.gz, line 7: field 'categories' is missing"),
        (REVIEWS, [*META, "{'asin': 'x', 'categories': [[]]}"], r"line 7: field 'categories' must end in a path"),
        (REVIEWS, [*META, "{'asin': open('x')}"], r"line 7: neither a JSON object nor a Python literal"),
    ],
)
def test_malformed_raw_line_is_named_and_nothing_is_left(raw, tmp_path, reviews, meta, message):
    write_raw(raw, reviews, meta)
    with pytest.raises(MalformedFile, match=message):
        prepare.prepare(raw, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [raw]


def test_raw_folder_must_hold_one_file_of_each_kind(raw, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold one file reviews_\*\.json or .*found \[\]"):
        prepare.prepare(raw, tmp_path / "out")
    write_raw(raw)
    write_raw(raw, suffix="")
    with pytest.raises(FileNotFoundError, match=r"reviews_Games\.json', 'reviews_Games\.json\.gz"):
        prepare.prepare(raw, tmp_path / "out")


@pytest.mark.parametrize(("end", "line"), [(-1, 19), (-8, 19), (60, 0), (11, 0)])
def test_gzip_file_that_is_cut_off_is_named(raw, tmp_path, end, line):
    write_raw(raw)
    path = raw / "reviews_Games.json.gz"
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(MalformedFile, match=rf"reviews_Games\.json\.gz, after line {line}: the gzip file is cut off"):
        prepare.prepare(raw, tmp_path / "out")


def test_damaged_gzip_file_is_named(raw, tmp_path):
    write_raw(raw)
    path = raw / "meta_Games.json.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # its own checksum
    path.write_bytes(content)
    with pytest.raises(MalformedFile, match=r"meta_Games\.json\.gz, after line 6: not a whole gzip file: CRC"):
        prepare.prepare(raw, tmp_path / "out")
    path.write_text("plain text")
    with pytest.raises(MalformedFile, match=r"after line 0: not a whole gzip file: Not a gzipped file"):
        prepare.prepare(raw, tmp_path / "out")


def test_plain_file_that_is_cut_off_is_named(raw, tmp_path):
    write_raw(raw, suffix="")
    path = raw / "reviews_Games.json"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MalformedFile, match=r"reviews_Games\.json, line 19: neither a JSON object"):
        prepare.prepare(raw, tmp_path / "out")


def test_bytes_that_are_not_utf_8_are_named(tmp_path):
    (tmp_path / "x.json").write_bytes(b"one\ntw\xff\n")
    with pytest.raises(MalformedFile, match=r"x\.json, line 2: not UTF-8: byte 0xff at column 3"):
        list(TextFile(tmp_path / "x.json"))


# ---- the folder as a cache ----


def test_prepared_folder_is_kept_while_the_raw_files_are_the_same(raw, tmp_path, capsys):
    write_raw(raw)
    command = [str(raw), str(tmp_path / "out")]
    assert prepare.main(command) == 0
    assert capsys.readouterr().out.endswith("out: 3 users, 6 items, 4 categories, 15 clicks\n")
    made = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert prepare.main(command) == 0
    assert capsys.readouterr().out.endswith("out is up to date\n")
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == made
    write_raw(raw, [*REVIEWS, review("A", "v", 7)])
    assert prepare.main(command) == 1
    assert re.search(r"error: .*out is there already: remove it", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["clicks.int64", "negatives.int64", "categories.json"])
def test_prepared_file_with_a_wrong_checksum_is_refused(raw, tmp_path, name, capsys):
    write_raw(raw)
    prepare.prepare(raw, tmp_path / "out")
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(MalformedFile, match=rf"{name}: its sha256 is [0-9a-f]+, manifest\.json has "):
        data.load("prepared", tmp_path / "out")
    assert prepare.main([str(raw), str(tmp_path / "out")]) == 1
    assert f"{name}: its sha256 is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"format": 2, "files": {"x": "y"}}', r"format must be 1, got 2: prepare the raw files again"),
        ("{", r"manifest\.json: not a manifest of python -m examples\.din\.prepare"),
        ("[]", r"manifest\.json: not a manifest of"),
    ],
)
def test_manifest_of_something_else_is_refused(tmp_path, manifest, message):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(MalformedFile, match=message):
        prepare.read(tmp_path)


def test_folder_that_is_not_prepared_is_refused_with_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no manifest\.json: make it with `python -m examples"):
        data.load("prepared", tmp_path)


# ---- the command ----


@pytest.mark.parametrize("command", [["-m", "examples.din.prepare"], ["examples/din/prepare.py"]])
def test_the_command_prepares_and_names_what_is_wrong(raw, tmp_path, command):
    write_raw(raw, [*REVIEWS, "{"])
    run = [sys.executable, *command, str(raw), str(tmp_path / "out")]
    failed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1
    assert re.fullmatch(r"error: .*reviews_Games\.json\.gz, line 20: neither .*\n", failed.stderr)
    write_raw(raw)
    subprocess.run(run, cwd=ROOT, check=True)
    assert len(data.load("prepared", tmp_path / "out").held_out) == 6


def test_sorted_lines_are_all_lines_in_order(tmp_path):
    rng = np.random.default_rng(0)
    lines = [b"%d\n" % number for number in rng.integers(0, 500, 1000)]
    for memory in (200, 10_000, 10**9):
        in_order = SortedLines(tmp_path, memory)
        for line in lines:
            in_order.add(line)
        assert list(in_order) == sorted(lines)
    assert list(SortedLines(tmp_path, 10)) == []
