"""DIN example: readers, negative sampling, the leave-one-out protocol, batches."""

import gzip
import json
import pathlib
import random

import numpy as np
import pytest
from din import amazon_raw, data
from din.dataset import PADDING, batched, padded_batch, shuffled_batches

REAL_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="the processed Amazon files are not in ../shared/data; see examples/din/README.md"
)

SEQUENCES = [np.array([0, 2, 1]), np.array([3, 0, 3, 4])]
CATEGORIES = np.array([7, 8, 7, 9, 8])


def write_gzip(path, lines):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def write_video_games(
    folder, rows=("0\t0\t10", "0\t2\t11", "0\t1\t12", "1\t3\t10", "1\t0\t10", "1\t3\t11", "1\t4\t12")
):
    write_gzip(folder / "amazon_video_games_user_item_day.tsv.gz", rows)
    write_gzip(folder / "amazon_video_games_item_cate.txt.gz", map(str, CATEGORIES))


def assert_sequences_equal(actual, expected):
    assert [sequence.tolist() for sequence in actual] == [list(sequence) for sequence in expected]


# ---- the published protocol ----


def published_negatives(sequences, num_items):
    """The published code, written out."""
    random.seed(1234)
    negatives = []
    for pos in sequences:
        pos = pos.tolist()
        drawn = []
        for _ in range(len(pos)):
            neg = pos[0]
            while neg in pos:
                neg = random.randint(0, num_items - 1)
            drawn.append(neg)
        negatives.append(drawn)
    return negatives


@pytest.mark.parametrize("num_items", [5, 6, 1000])
def test_negatives_are_those_of_the_published_code(num_items):
    rng = np.random.default_rng(0)
    sequences = SEQUENCES + [rng.integers(num_items, size=4) for _ in range(20)]
    negatives = data.sample_negatives(sequences, num_items)
    assert_sequences_equal(negatives, published_negatives(sequences, num_items))


def test_user_of_every_item_has_no_negative():
    with pytest.raises(ValueError, match="sequence 1 holds all 3 items"):
        data.sample_negatives([np.array([0]), np.array([2, 0, 1])], 3)


def as_rows(examples, dataset):
    """(user, item, category, history, label) of each example."""
    return [
        (
            int(examples.users[e]),
            int(examples.items[e]),
            int(examples.categories[e]),
            dataset.log_items[examples.starts[e] : examples.starts[e] + examples.lengths[e]].tolist(),
            int(examples.labels[e]),
        )
        for e in range(len(examples))
    ]


def expected_rows(positions):
    """The pair of examples of each (sequence, position); ids shifted by one."""
    negatives = published_negatives(SEQUENCES, 5)
    rows = []
    for user, position in positions:
        history = [int(item) + 1 for item in SEQUENCES[user][:position]]
        for item, label in ((SEQUENCES[user][position], 1), (negatives[user][position], 0)):
            rows.append((user + 1, int(item) + 1, int(CATEGORIES[item]) + 1, history, label))
    return rows


@pytest.mark.parametrize(
    ("split", "train", "held_out"),
    [
        ("test", [(0, 1), (1, 1), (1, 2)], [(0, 2), (1, 3)]),
        ("validation", [(1, 1)], [(0, 1), (1, 2)]),
    ],
)
def test_leave_one_out_holds_out_each_users_last_pair(split, train, held_out):
    dataset = data.leave_one_out(SEQUENCES, CATEGORIES, split)
    assert as_rows(dataset.train, dataset) == expected_rows(train)
    assert as_rows(dataset.held_out, dataset) == expected_rows(held_out)


def test_positions_beyond_max_length_are_dropped_but_their_negatives_are_drawn():
    dataset = data.leave_one_out(SEQUENCES, CATEGORIES, max_length=2)
    assert len(dataset.train) == 0
    assert as_rows(dataset.held_out, dataset) == expected_rows([(0, 1), (1, 1)])


# ---- readers ----


def test_video_games_reader(tmp_path):
    write_video_games(tmp_path)
    sequences, categories = data.read_video_games(tmp_path)
    assert_sequences_equal(sequences, SEQUENCES)
    np.testing.assert_array_equal(categories, CATEGORIES)


def test_sports_reader_counts_items_from_zero(tmp_path):
    write_gzip(tmp_path / "amazon_sports_5core_seq.txt.gz", ["1 3 2", "4 1 4 5"])
    write_gzip(tmp_path / "amazon_sports_5core_item_cate.txt.gz", ["0", *map(str, CATEGORIES)])
    sequences, categories = data.read_sports(tmp_path)
    assert_sequences_equal(sequences, SEQUENCES)
    np.testing.assert_array_equal(categories, CATEGORIES)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0\t0\t10", "0\tx\t11"], r"user_item_day\.tsv\.gz, line 2: .*'x'"),
        (["0\t0\t10", "0\t1"], r"line 2: must hold 3 integers"),
        (["1\t0\t10", "0\t1\t10"], r"line 2: users must ascend"),
        (["0\t5\t10"], r"an item is outside the 5 items"),
        ([], r"is empty"),
    ],
)
def test_malformed_processed_file_is_named(tmp_path, rows, message):
    write_video_games(tmp_path, rows)
    with pytest.raises(ValueError, match=message):
        data.read_video_games(tmp_path)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "training_examples", "test_pairs", "items", "categories"),
    [("video-games", 144_654, 5_436, 4_295, 58), ("sports", 450_282, 35_598, 18_357, 959)],
)
def test_real_data_counts(name, training_examples, test_pairs, items, categories):
    dataset = data.load(name, REAL_DATA)
    assert len(dataset.train) == training_examples
    assert len(dataset.held_out) == 2 * test_pairs
    assert len(np.unique(dataset.held_out.users)) == test_pairs
    assert dataset.log_items.min() == 1
    assert dataset.log_items.max() == items
    assert len(np.unique(dataset.log_categories)) == categories


# ---- raw Amazon files ----


def review(user, asin, time):
    return json.dumps({"reviewerID": user, "asin": asin, "unixReviewTime": time, "reviewText": "fine", "overall": 5.0})


REVIEWS = [
    *(review("B", asin, time) for asin, time in [("x", 5), ("y", 4), ("z", 4), ("x", 1), ("w", 9)]),
    *(review("A", asin, time) for asin, time in [("v", 1), ("w", 2), ("x", 3), ("y", 4), ("z", 5)]),
    *(review("few", asin, 1) for asin in ["v", "unseen", "x", "y"]),
]
META = [
    "{'asin': 'v', 'categories': [['Games', 'PC'], ['Games', 'Kids\\' toys']], 'title': 'one'}",
    json.dumps({"asin": "w", "categories": [["Games", "PC"]]}),
    "{'asin': 'x', 'categories': [['Games']]}",
    "",
    "{'asin': 'y', 'categories': [['Games', 'PC']]}",
    "{'asin': 'not reviewed'}",
]


def write_raw(folder, reviews=REVIEWS, meta=META, compressed=True):
    if compressed:
        write_gzip(folder / "reviews_Games.json.gz", reviews)
        write_gzip(folder / "meta_Games.json.gz", meta)
    else:
        (folder / "reviews_Games.json").write_text("\n".join(reviews) + "\n", encoding="utf-8")
        (folder / "meta_Games.json").write_text("\n".join(meta) + "\n", encoding="utf-8")


@pytest.mark.parametrize("compressed", [True, False])
def test_raw_reader(tmp_path, compressed):
    write_raw(tmp_path, compressed=compressed)
    sequences, categories = amazon_raw.read(tmp_path)
    # Users A, B; items v w x y z. B's reviews of one second stay in the order of the file.
    assert_sequences_equal(sequences, [[0, 1, 2, 3, 4], [2, 3, 4, 2, 1]])
    # Categories by name: the unknown one (z), Games (x), Kids' toys (v), PC (w, y).
    np.testing.assert_array_equal(categories, [2, 3, 1, 3, 0])


def test_raw_files_follow_the_published_protocol(tmp_path):
    write_raw(tmp_path, [*REVIEWS, *(review("C", "zz", time) for time in range(5))])
    dataset = data.load("amazon-raw", tmp_path)
    assert (len(dataset.train), len(dataset.held_out)) == (2 * 3 * 3, 2 * 3)
    np.testing.assert_array_equal(dataset.held_out.items[::2], [5, 2, 6])


@pytest.mark.parametrize(
    ("reviews", "meta", "message"),
    [
        ([*REVIEWS, '{"reviewerID": '], META, r"reviews_Games\.json\.gz, line 15: neither a JSON object"),
        ([*REVIEWS, "[1, 2]"], META, r"line 15: must be an object, got list"),
        ([*REVIEWS, '{"reviewerID": "A", "unixReviewTime": 1}'], META, r"line 15: field 'asin' is missing"),
        ([*REVIEWS, review("A", "v", "1")], META, r"line 15: field 'unixReviewTime' must be int, got '1'"),
        (REVIEWS[10:], META, r"no user has 5 reviews"),
        (REVIEWS, [*META, "{'asin': 'x'}"], r"meta_Games\.json\.gz, line 7: field 'categories' is missing"),
        (REVIEWS, [*META, "{'asin': 'x', 'categories': [[]]}"], r"line 7: field 'categories' must end in a path"),
        (REVIEWS, [*META, "{'asin': open('x')}"], r"line 7: neither a JSON object nor a Python literal"),
    ],
)
def test_malformed_raw_line_is_named(tmp_path, reviews, meta, message):
    write_raw(tmp_path, reviews, meta)
    with pytest.raises(ValueError, match=message):
        amazon_raw.read(tmp_path)


def test_raw_folder_must_hold_one_file_of_each_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold one file reviews_\*\.json or .*found \[\]"):
        amazon_raw.read(tmp_path)
    write_raw(tmp_path)
    write_raw(tmp_path, compressed=False)
    with pytest.raises(FileNotFoundError, match=r"reviews_Games\.json', 'reviews_Games\.json\.gz"):
        amazon_raw.read(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "books"}, "dataset must be one of generated, video-games"),
        ({"name": "sports"}, "'sports' needs a data_dir"),
        ({"name": "generated", "split": "train"}, "split must be one of test, validation"),
    ],
)
def test_load_names_the_wrong_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(**arguments)


# ---- batches ----


def test_padded_batch_pads_to_the_longest_history():
    dataset = data.leave_one_out(SEQUENCES, CATEGORIES)
    inputs, labels = padded_batch(dataset, dataset.train[::2])
    np.testing.assert_array_equal(labels, [1, 1, 1])
    np.testing.assert_array_equal(inputs["item"], [3, 1, 4])
    np.testing.assert_array_equal(inputs["history_items"], [[1, PADDING], [4, PADDING], [4, 1]])
    np.testing.assert_array_equal(inputs["history_categories"], [[8, PADDING], [10, PADDING], [10, 8]])
    np.testing.assert_array_equal(inputs["history_mask"], [[True, False], [True, False], [True, True]])


@pytest.mark.parametrize("num_examples", [1, 8, 203])
def test_shuffled_batches_are_a_permutation(num_examples):
    lengths = np.random.default_rng(0).integers(1, 100, num_examples)
    batches = shuffled_batches(lengths, 8, np.random.default_rng(1), window=10)
    assert sorted(np.concatenate(batches)) == list(range(num_examples))
    assert max(map(len, batches)) <= 8


def test_histories_of_a_batch_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    batches = shuffled_batches(lengths, 8, np.random.default_rng(1), window=50)
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded <= 1.1 * lengths.sum()


def test_epochs_differ_and_runs_of_one_seed_repeat():
    dataset = data.leave_one_out([np.arange(20), np.arange(10)], np.arange(30))

    def epochs(seed):
        batches = batched(dataset, dataset.train, 8, shuffle_seed=seed)
        assert int(batches.cardinality()) == 7
        return [np.concatenate([inputs["item"] for inputs, _ in batches]).tolist() for _ in range(2)]

    first, second = epochs(1)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(dataset.train.items.tolist())
    assert epochs(1) == [first, second]
    assert epochs(2) != [first, second]


def test_batches_without_a_seed_keep_the_order():
    dataset = data.leave_one_out(SEQUENCES, CATEGORIES)
    labels = np.concatenate([labels for _, labels in batched(dataset, dataset.train, 4)])
    np.testing.assert_array_equal(labels, dataset.train.labels)
