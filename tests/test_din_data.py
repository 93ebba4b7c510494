"""DIN example: readers, negative sampling, the leave-one-out protocol, batches."""

import dataclasses
import gzip
import hashlib
import pathlib
import random

import numpy as np
import pytest
from din import data
from din.dataset import PADDING, batched, padded_batch, shuffled_batches
from din.lines import MalformedFile

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


def test_days_stay_beside_their_clicks(tmp_path):
    write_video_games(tmp_path)
    users, items, days, _ = data.read_video_games_clicks(tmp_path)
    np.testing.assert_array_equal(users, [0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(items, np.concatenate(SEQUENCES))
    np.testing.assert_array_equal(days, [10, 11, 12, 10, 10, 11, 12])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0\t0\t10", "0\tx\t11"], r"user_item_day\.tsv\.gz, line 2: field 'item' must be an integer, got 'x'"),
        (["0\t0\t10", "0\t1"], r"line 2: must hold 3 integers \(user, item, day\), got '0\\t1'"),
        (["0\t0\t10", ""], r"line 2: must hold 3 integers"),
        (["1\t0\t10", "0\t1\t10"], r"line 2: users must ascend, got 0 after 1"),
        (["0\t0\t10", "0\t1\t9"], r"line 2: the days of a user must ascend, got 9 after 10"),
        (["0\t5\t10"], r"line 1: item must be in \[0, 5\), the category file's, got 5"),
        ([], r"is empty"),
    ],
)
def test_malformed_processed_file_is_named(tmp_path, rows, message):
    write_video_games(tmp_path, rows)
    with pytest.raises(MalformedFile, match=message):
        data.read_video_games(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1 3 2", "4 six"], r"core_seq\.txt\.gz, line 2: field 2 must be an integer, got 'six'"),
        (["1 3 2", "0 1"], r"line 2: item must be in \[1, 6\), the category file's, got 0"),
        (["1 3 2", ""], r"line 2: must hold some integers, got ''"),
    ],
)
def test_malformed_line_of_sports_is_named(tmp_path, rows, message):
    write_gzip(tmp_path / "amazon_sports_5core_seq.txt.gz", rows)
    write_gzip(tmp_path / "amazon_sports_5core_item_cate.txt.gz", ["0", *map(str, CATEGORIES)])
    with pytest.raises(MalformedFile, match=message):
        data.read_sports(tmp_path)


def test_files_are_compared_with_the_checksums_beside_them(tmp_path):
    write_video_games(tmp_path)
    path = tmp_path / "amazon_video_games_user_item_day.tsv.gz"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{right}  {path.name}\n{'0' * 64}  another_file.gz\n")
    assert_sequences_equal(data.read_video_games(tmp_path)[0], SEQUENCES)
    sums.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(MalformedFile, match=rf"user_item_day.*sha256 is {right}, SHA256SUMS has 0000"):
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


def test_users_of_one_click_give_no_examples():
    dataset = data.leave_one_out([np.array([2]), *SEQUENCES, np.array([1])], CATEGORIES)
    assert set(dataset.train.users) | set(dataset.held_out.users) == {2, 3}


def test_batch_of_empty_histories_has_no_positions():
    dataset = data.leave_one_out(SEQUENCES, CATEGORIES)
    examples = dataclasses.replace(dataset.train, lengths=np.zeros_like(dataset.train.lengths))
    inputs, _ = padded_batch(dataset, examples)
    assert inputs["history_items"].shape == inputs["history_mask"].shape == (len(examples), 0)
    inputs, _ = padded_batch(dataset, dataset.train[:0])
    assert inputs["history_items"].shape == (0, 0)


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
