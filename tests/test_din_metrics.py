"""DIN example: AUC and GAUC against all pairs, and against scikit-learn (golden/make_sklearn_auc.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
from din import metrics

SKLEARN = json.loads((Path(__file__).parent / "golden" / "sklearn_auc.json").read_text())["cases"]


def auc_of_pairs(labels, scores):
    positives = [score for score, label in zip(scores, labels, strict=True) if label]
    negatives = [score for score, label in zip(scores, labels, strict=True) if not label]
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def random_examples(seed, tied):
    rng = np.random.default_rng(seed)
    users = rng.integers(-5, 5, 120) * 2**60  # unsorted, and of any 64-bit value
    labels = (rng.random(120) < 0.3).astype(np.float32)
    scores = rng.integers(0, 6, 120) / 2 if tied else rng.normal(size=120)
    return users, labels, scores.astype(np.float32)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_ordered_pairs(seed, tied):
    _, labels, scores = random_examples(seed, tied)
    assert metrics.auc(labels, scores) == pytest.approx(auc_of_pairs(labels, scores), abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_gauc_weights_each_users_auc_by_impressions(seed, tied):
    users, labels, scores = random_examples(seed, tied)
    total = impressions = 0
    for user in set(users.tolist()):
        of_user = users == user
        if 0 < labels[of_user].sum() < of_user.sum():
            total += of_user.sum() * auc_of_pairs(labels[of_user], scores[of_user])
            impressions += of_user.sum()
    assert metrics.gauc(users, labels, scores) == pytest.approx(total / impressions, abs=1e-12)


@pytest.mark.parametrize("case", SKLEARN.values(), ids=SKLEARN)
def test_auc_and_gauc_are_those_of_scikit_learn(case):
    users, labels, scores = (np.array(case[name]) for name in ("users", "labels", "scores"))
    assert metrics.auc(labels, scores) == pytest.approx(case["auc"], abs=1e-12)
    assert metrics.gauc(users, labels, scores) == pytest.approx(case["gauc"], abs=1e-12)


def test_gauc_leaves_out_users_of_one_class():
    users = [7, 7, 8, 8, 9]
    assert metrics.gauc(users, np.array([1, 0, 1, 1, 0]), np.array([0.2, 0.1, 0.3, 0.9, 0.5])) == 1.0


def test_gauc_of_pairs_is_the_share_of_users_with_the_positive_ahead():
    labels = np.array([1, 0] * 4)
    scores = np.array([2.0, 1.0, 0.5, 0.7, 9.0, 3.0, 1.0, 0.0])
    assert metrics.gauc(np.repeat(np.arange(4), 2), labels, scores) == 0.75


@pytest.mark.parametrize(
    ("scores", "ties"),
    [([1, 2, 3, 4], 0), ([1, 1, 3, 4], 1), ([1, 1, 4, 4], 2), ([2, 1, 1, 2], 0)],
)
def test_ties_are_counted_within_a_user(scores, ties):
    assert metrics.count_ties(np.array([5, 5, 6, 6]), np.array([1, 0, 1, 0]), np.array(scores)) == ties


def test_equal_scores_of_one_class_are_no_tie():
    assert metrics.count_ties(np.array([5, 5, 5]), np.array([1, 1, 0]), np.array([1.0, 1.0, 2.0])) == 0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "needs examples, got none"),
        ([1, 0], [1.0, np.nan], r"scores\[1\] is not finite"),
        ([1, 0], [1.0], "differ in length: 2, 2, 1"),
        ([1, 1], [1.0, 2.0], "a positive and a negative"),
    ],
)
def test_undefined_auc_is_an_error(labels, scores, message):
    labels, scores = np.array(labels), np.array(scores)
    with pytest.raises(ValueError, match=message):
        metrics.auc(labels, scores)
    with pytest.raises(ValueError, match=message):
        metrics.gauc(np.zeros(len(labels), np.int64), labels, scores)
