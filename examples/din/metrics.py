"""AUC, and the user-weighted GAUC of the DIN paper. NumPy only."""

import numpy as np


def _tie_runs(groups, scores):
    """Sorts by (group, score) and numbers the runs of equal (group, score): order [E], run [E] of the sorted rows."""
    order = np.lexsort((scores, groups))
    sorted_groups, sorted_scores = groups[order], scores[order]
    new_run = (sorted_groups[1:] != sorted_groups[:-1]) | (sorted_scores[1:] != sorted_scores[:-1])
    return order, np.concatenate([[0], np.cumsum(new_run)])


def _check(*columns):
    groups, labels, scores = (np.asarray(column).reshape(-1) for column in columns)
    if not len(groups) == len(labels) == len(scores):
        raise ValueError(f"users, labels and scores differ in length: {len(groups)}, {len(labels)}, {len(scores)}")
    if len(labels) == 0:
        raise ValueError("an AUC needs examples, got none")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores[{np.flatnonzero(~np.isfinite(scores))[0]}] is not finite")
    return np.unique(groups, return_inverse=True)[1], labels > 0, scores


def group_aucs(users, labels, scores):
    """AUC_u of each user that has both a positive and a negative, by the rank-sum formula; a tie counts one half.

    AUC_u = (R_u - P_u (P_u + 1) / 2) / (P_u N_u), R_u the sum of the positives' ranks (tied scores share their mean
    rank), P_u and N_u the numbers of positives and negatives.

    Returns: aucs float64 [U], impressions int64 [U] (= P_u + N_u).
    """
    groups, positive, scores = _check(users, labels, scores)
    order, run = _tie_runs(groups, scores)
    run_size = np.bincount(run)
    run_mean_rank = np.cumsum(run_size) - (run_size - 1) / 2  # 1-based, over all rows
    impressions = np.bincount(groups)
    first = np.cumsum(impressions) - impressions
    rank = run_mean_rank[run] - first[groups[order]]

    positives = np.bincount(groups, weights=positive)
    rank_sum = np.bincount(groups[order], weights=rank * positive[order])
    pairs = positives * (impressions - positives)
    both = pairs > 0
    return ((rank_sum - positives * (positives + 1) / 2)[both] / pairs[both]), impressions[both]


def auc(labels, scores):
    """The share of (positive, negative) pairs in which the positive scores higher; a tie counts one half."""
    aucs, _ = group_aucs(np.zeros_like(labels, dtype=np.int64), labels, scores)
    if len(aucs) == 0:
        raise ValueError("an AUC needs a positive and a negative example")
    return float(aucs[0])


def gauc(users, labels, scores):
    """GAUC = sum_u (impressions_u * AUC_u) / sum_u impressions_u, over the users with a positive and a negative."""
    aucs, impressions = group_aucs(users, labels, scores)
    if len(aucs) == 0:
        raise ValueError("GAUC needs a user with a positive and a negative example")
    return float(np.average(aucs, weights=impressions))


def count_ties(users, labels, scores):
    """The number of scores at which a user has both a positive and a negative."""
    groups, positive, scores = _check(users, labels, scores)
    order, run = _tie_runs(groups, scores)
    positives = np.bincount(run, weights=positive[order])
    return int(np.sum((positives > 0) & (positives < np.bincount(run))))
