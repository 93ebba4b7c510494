"""Writes sklearn_auc.json: what scikit-learn says of scores, for test_din_metrics.py.

scikit-learn is needed here only, not by the tests. In a virtual environment of its own:

    pip install scikit-learn==1.9.1
    python tests/golden/make_sklearn_auc.py

GAUC is not in scikit-learn: it is the mean of roc_auc_score over the users that have both classes, weighed by their
numbers of examples.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import roc_auc_score

SEED = 20240603


def case(rng, examples, users, positives, tied):
    """Random examples whose scores tell a little of the labels, and their AUC and GAUC."""
    labels = (rng.random(examples) < positives).astype(int)
    scores = rng.normal(size=examples) + labels
    scores = np.round(scores, 1 if tied else 6)
    users = rng.integers(0, users, examples)
    total, weight = 0.0, 0
    for user in np.unique(users):
        of_user = users == user
        if 0 < labels[of_user].sum() < of_user.sum():
            total += of_user.sum() * roc_auc_score(labels[of_user], scores[of_user])
            weight += of_user.sum()
    return {
        "users": users.tolist(),
        "labels": labels.tolist(),
        "scores": scores.tolist(),
        "auc": float(roc_auc_score(labels, scores)),
        "gauc": float(total / weight),
    }


def main():
    """Writes the file."""
    rng = np.random.default_rng(SEED)
    cases = {
        "pairs": case(rng, 200, 90, 0.5, tied=False),
        "few positives": case(rng, 300, 12, 0.05, tied=False),
        "ties": case(rng, 300, 20, 0.3, tied=True),
        "one user": case(rng, 100, 1, 0.5, tied=True),
    }
    content = {"scikit-learn": sklearn.__version__, "seed": SEED, "cases": cases}
    Path(__file__).with_name("sklearn_auc.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
