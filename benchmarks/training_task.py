"""What a contestant is asked to do in a training step, and what the step must move at least.

Letters: F features (each with a table of its own), B examples, L keys of an example in a feature, D dim, N = F B L keys
of a batch, U of them different.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """A training step: look up, loss = mean((output - target)^2), backward, update.

    The output is [B, F D], the features side by side. With combiner None the layer gives [B, L, D] for each feature and
    the mean over L is taken outside of it; otherwise the layer pools.
    """

    cardinalities: tuple  # F ints, the rows of each table
    dim: int
    batch: int
    length: int
    combiner: str | None  # None, "mean" or "sum"
    zipf: float | None  # P(key of rank r) ~ r^-zipf; None: all keys of a batch differ, uniform over the table
    batches: int = 8  # which the steps take in turn
    seed: int = 1
    constant: float | None = None  # all initial rows; None: uniform in +-.05, or what the peer does
    learning_rate: float = 0.01
    fill: bool = True  # every row exists before the first step, in hash tables too

    def draw(self):
        """Returns keys int64 [batches, F, B, L] and targets float32 [B, F D]."""
        rng = np.random.default_rng(self.seed)
        shape = (self.batches, self.batch, self.length)
        keys = np.stack([self._draw_keys(rows, shape, rng) for rows in self.cardinalities], axis=1)
        return keys, rng.normal(size=(self.batch, len(self.cardinalities) * self.dim)).astype(np.float32)

    def _draw_keys(self, rows, shape, rng):
        if self.zipf is None:
            return rng.choice(rows, shape, replace=False)
        cumulative = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -self.zipf)
        ranks = np.searchsorted(cumulative / cumulative[-1], rng.random(shape))
        # Ranks are shuffled over the keys, so that often used rows do not lie side by side.
        return rng.permutation(rows)[np.minimum(ranks, rows - 1)]

    def small(self):
        """The same step on tables and batches small enough for the twin, from rows that all contestants can start from.

        Every key of it is among the first 300 of its table.
        """
        return dataclasses.replace(
            self,
            cardinalities=tuple(min(rows, 300) for rows in self.cardinalities),
            batch=16,
            zipf=1.05,
            batches=3,
            constant=0.02,
        )

    def as_json(self):
        """A dict for `TrainingTask(**...)`."""
        return dataclasses.asdict(self)


def unique_rows(keys):
    """U: the mean number of different (feature, key) of a batch; keys [batches, F, B, L]."""
    return np.mean([sum(np.unique(feature).size for feature in batch) for batch in keys])


def least_traffic(task, keys, state_width):
    """The bytes that a step must move at least, whoever does it, where the rule has S = state_width floats a row.

    Returns a dict:
        streamed: keys read (8 N), the layer's output written and its gradient read (4 D each for N or, pooled, B F);
        read: (how many rows, bytes of each) that the lookup reads at random places, U and 4 D;
        updated: the same for what the update reads and writes, U and 4 (D + S).
    """
    unique, num_keys = unique_rows(keys), keys[0].size
    outputs = num_keys if task.combiner is None else task.batch * len(task.cardinalities)
    return {
        "streamed": 8 * num_keys + 2 * 4 * task.dim * outputs,
        "read": (unique, 4 * task.dim),
        "updated": (unique, 4 * (task.dim + state_width)),
    }


def total_bytes(traffic):
    """The bytes of `least_traffic`: an updated row counts twice, read and written."""
    (read, read_width), (updated, updated_width) = traffic["read"], traffic["updated"]
    return traffic["streamed"] + read * read_width + 2 * updated * updated_width
