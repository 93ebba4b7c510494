"""DIN example: clicks in the order of time, and hashed ids."""

import json

import numpy as np
import pytest
from din import data, stream, train

# Three users; items 0 to 6 in three categories; item 6 is never clicked.
USERS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
ITEMS = np.array([0, 1, 2, 3, 1, 4, 0, 5])
DAYS = np.array([10, 12, 21, 35, 11, 22, 36, 10])
CATEGORIES = np.array([7, 7, 8, 8, 9, 9, 9])


def small_stream():
    return stream.make_stream(USERS, ITEMS, DAYS, CATEGORIES, period_days=10, min_clicks=1)


def test_periods_have_the_clicks_of_their_days_with_the_history_before():
    small = small_stream()
    assert small.first_days == [10, 21, 35]
    assert small.appears.tolist() == [0, 0, 1, 2, 1, 0, 3]
    clicks = [examples[::2] for examples in small.periods]
    assert [part.items.tolist() for part in clicks] == [[2], [3, 5], [4, 1]]  # 1 + item, without the users' first
    assert [part.users.tolist() for part in clicks] == [[1], [1, 2], [1, 2]]
    for examples in small.periods:
        for e in range(len(examples)):
            history = small.log.log_items[examples.starts[e] : examples.starts[e] + examples.lengths[e]]
            before = {1: [1, 2, 3, 4], 2: [2, 5, 1]}[examples.users[e]]
            assert history.tolist() == before[: examples.lengths[e]]
            assert examples.categories[e] == CATEGORIES[examples.items[e] - 1] + 1
        assert examples.labels.tolist() == [1.0, 0.0] * (len(examples) // 2)
    assert [part.lengths.tolist() for part in clicks] == [[1], [2, 1], [3, 2]]
    assert [new[::2].tolist() for new in small.new] == [[True], [True, True], [True, False]]


def test_negatives_have_appeared_and_are_never_clicked():
    rng = np.random.default_rng(1)
    users = np.sort(rng.integers(30, size=600))
    days = np.concatenate([np.sort(rng.integers(400, size=count)) for count in np.bincount(users)])
    items = rng.integers(1 + days // 4)  # later items appear later
    log = stream.make_stream(users, items, days, np.arange(101), period_days=50, min_clicks=20)
    first_day = {item: days[items == item].min() for item in np.unique(items)}
    drawn = set()
    for p, examples in enumerate(log.periods):
        end = log.first_days[p + 1] if p + 1 < len(log.periods) else 400
        for user, item in zip(examples.users[1::2] - 1, examples.items[1::2] - 1, strict=True):
            assert item not in items[users == user]
            assert first_day[item] < end
            drawn.add(item)
    assert len(drawn) > 50


def test_user_who_has_clicked_all_that_appeared_has_no_negative():
    with pytest.raises(ValueError, match="user 0 has clicked nearly all items"):
        stream.make_stream(np.zeros(3, np.int64), np.arange(3), np.arange(3), np.zeros(3, np.int64), 10, 1)


@pytest.mark.parametrize(
    ("min_clicks", "expected"),
    [(1, [0, 0, 1, 2, 3]), (2, [0, 0, 1, 1, 1]), (3, [0, 0, 0, 0, 0]), (9, [0, 0, 0, 0, 0])],
)
def test_small_periods_are_joined(min_clicks, expected):
    days = np.array([100, 101, 115, 121, 158])
    assert stream.period_of_clicks(days, 10, min_clicks).tolist() == expected


def test_frozen_vocabulary_has_one_row_for_later_items():
    small = small_stream()
    dynamic, frozen = (stream.with_vocabulary(small, vocabulary) for vocabulary in ("dynamic", "frozen"))
    assert len(np.unique(dynamic.log.log_items)) == 6
    assert len(np.unique(frozen.log.log_items)) == 4  # items 0, 1, 5 of the first period, and what the others share
    known = small.appears[small.log.log_items - 1] == 0
    np.testing.assert_array_equal(frozen.log.log_items[known], dynamic.log.log_items[known])
    for one, other in zip(dynamic.periods, frozen.periods, strict=True):
        np.testing.assert_array_equal(one.categories, other.categories)


def test_hashed_ids_are_a_renaming():
    dataset = data.leave_one_out([np.array([0, 2, 1]), np.array([3, 0, 3, 4])], np.array([7, 8, 7, 9, 8]))
    hashed = dataset.hashed()
    assert np.abs(hashed.train.items).max() > 2**50
    for log, other in ((dataset, hashed), (hashed, dataset)):
        renamed = dict(zip(log.train.items, other.train.items, strict=True))
        assert [renamed[item] for item in log.train.items] == other.train.items.tolist()
    assert [len(np.unique(ids)) for ids in (hashed.log_items, hashed.log_categories, hashed.train.users)] == [5, 3, 2]
    np.testing.assert_array_equal(hashed.reindexed()[0].train.lengths, dataset.train.lengths)


def test_stream_is_predicted_before_it_is_trained_on(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 12)
    days = np.tile(np.arange(12) * 10, 40)
    items = 10 * (days // 40) + rng.integers(10, size=len(users))  # each third of the time has items of its own
    monkeypatch.setattr(stream, "read_clicks", lambda *_: (users, items, days, np.arange(30) % 3))
    parse = train.parse_arguments
    monkeypatch.setattr(train, "parse_arguments", lambda flags: parse([*flags, "--embedding-dim", "4"]))
    arguments = ["--data-dir", "-", "--seeds", "1", "--period-days", "40", "--min-clicks", "1"]
    result = stream.main([*arguments, "--out", str(tmp_path / "results" / "stream.json")])
    assert json.loads((tmp_path / "results" / "stream.json").read_text()) == result
    dynamic, frozen = result["runs"]
    assert result["new_items"] == [10, 10, 10]
    assert dynamic["rows"] == [11, 21, 31]  # and that of the padding
    assert frozen["rows"][1:] == [12, 12]  # and that of unknown items
    assert dynamic["auc"][0] is None
    assert all(0 < auc < 1 for each in (dynamic, frozen) for auc in each["auc"][1:] + each["gauc"][1:])
