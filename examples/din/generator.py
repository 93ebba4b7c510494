"""A deterministic generator of click logs whose best reachable AUC is known.

A user has a few latent interests: leaves of a category tree. The first clicks are drawn from them. After that the user
is shown items, some from the interests, some from neighbouring leaves, some merely popular, and clicks each with a
probability that the generator computes from what a model may see, the candidate and the clicks so far:

    logit p = bias + leaf_weight * (1 - exp(-n_leaf)) + parent_weight * (1 - exp(-n_parent / 4)) + quality[item]

n_leaf and n_parent count the earlier clicks in the candidate's leaf and under its parent. What counts is whether the
*candidate's* leaf is among the many leaves of the history, which a mean over the history blurs. A click joins the
history of the impressions that follow. No score can rank better than p itself, so the AUC of p is the ceiling.

Popularity is Zipf; user and item ids are 64-bit hashes.
"""

import dataclasses

import numpy as np

from din.dataset import Dataset, Examples, hashed_ids


@dataclasses.dataclass(frozen=True)
class Config:
    """The size of the log, and the weights of the click probability."""

    users: int = 20_000
    items: int = 20_000
    parents: int = 25
    leaves_per_parent: int = 16
    min_interests: int = 4
    max_interests: int = 8
    first_clicks: int = 16
    impressions: int = 30
    held_out: int = 4  # the last impressions of each user: test; as many before them: validation
    zipf_exponent: float = 1.0
    bias: float = -2.5
    leaf_weight: float = 3.5
    parent_weight: float = 0.5
    quality_deviation: float = 0.5


def generate(seed, validation=False, config=Config()):
    """The generated dataset; with `validation`, the impressions before the test ones are held out in their place."""
    rng = np.random.default_rng(seed)
    items = _Items(config, rng)
    users = np.arange(config.users)
    interests, num_interests = _interests(config, rng)

    # Row u is the log of user u; `length` clicks of it have happened.
    log = np.zeros((config.users, config.first_clicks + config.impressions), np.int64)
    length = np.zeros(config.users, np.int64)
    leaf_clicks = np.zeros((config.users, items.num_leaves), np.int64)
    parent_clicks = np.zeros((config.users, config.parents), np.int64)

    def interest():
        return interests[users, rng.integers(num_interests)]

    def click(who, which):
        log[who, length[who]] = which
        length[who] += 1
        leaf_clicks[who, items.leaf[which]] += 1
        parent_clicks[who, items.leaf[which] // config.leaves_per_parent] += 1

    for _ in range(config.first_clicks):
        click(users, items.draw_from_leaf(interest(), rng))

    shown = []
    for _ in range(config.impressions):
        source = rng.random(config.users)
        neighbour = interest() // config.leaves_per_parent * config.leaves_per_parent
        neighbour += rng.integers(config.leaves_per_parent, size=config.users)
        candidate = np.select(
            [source < 0.35, source < 0.7],
            [items.draw_from_leaf(interest(), rng), items.draw_from_leaf(neighbour, rng)],
            items.draw_popular(config.users, rng),
        )
        leaf = items.leaf[candidate]
        logit = (
            config.bias
            + config.leaf_weight * (1 - np.exp(-leaf_clicks[users, leaf]))
            + config.parent_weight * (1 - np.exp(-parent_clicks[users, leaf // config.leaves_per_parent] / 4))
            + items.quality[candidate]
        )
        probability = 1 / (1 + np.exp(-logit))
        clicked = rng.random(config.users) < probability
        shown.append((candidate, length.copy(), clicked, probability))
        click(users[clicked], candidate[clicked])

    item_ids = hashed_ids(np.arange(config.items), salt=1)
    candidate, lengths, clicked, probability = (np.stack(column, axis=1) for column in zip(*shown, strict=True))

    def examples(first, last):
        """The impressions first <= i < last of every user."""
        part = slice(first, last)
        chosen = candidate[:, part].reshape(-1)
        repeat = last - first
        return Examples(
            users=np.repeat(hashed_ids(users, salt=2), repeat),
            items=item_ids[chosen],
            categories=items.leaf[chosen] + 1,
            starts=np.repeat(users * log.shape[1], repeat),
            lengths=lengths[:, part].reshape(-1),
            labels=clicked[:, part].reshape(-1).astype(np.float32),
            probabilities=probability[:, part].reshape(-1),
        )

    end = config.impressions - (config.held_out if validation else 0)
    clicks = log.reshape(-1)
    return Dataset(
        log_items=item_ids[clicks],
        log_categories=items.leaf[clicks] + 1,
        train=examples(0, end - config.held_out),
        held_out=examples(end - config.held_out, end),
    )


class _Items:
    """The catalogue, in leaf order: items of a leaf, and leaves of a parent, are consecutive."""

    def __init__(self, config, rng):
        self.num_leaves = config.parents * config.leaves_per_parent
        spare = rng.integers(self.num_leaves, size=config.items - self.num_leaves)
        self.leaf = np.sort(np.concatenate([np.arange(self.num_leaves), spare]))  # no leaf is empty
        popularity = 1.0 / rng.permutation(np.arange(1, config.items + 1)) ** config.zipf_exponent
        self.quality = rng.normal(0.0, config.quality_deviation, config.items)
        self._mass = np.cumsum(popularity)
        leaf_ends = np.searchsorted(self.leaf, np.arange(self.num_leaves), side="right")
        self._leaf_mass = np.concatenate([[0.0], self._mass[leaf_ends - 1]])

    def draw_from_leaf(self, leaf, rng):
        """An item of each leaf, by popularity."""
        low, high = self._leaf_mass[leaf], self._leaf_mass[leaf + 1]
        drawn = np.searchsorted(self._mass, low + rng.random(len(leaf)) * (high - low), side="right")
        return np.minimum(drawn, len(self._mass) - 1)

    def draw_popular(self, count, rng):
        """Items of the whole catalogue, by popularity."""
        drawn = np.searchsorted(self._mass, rng.random(count) * self._mass[-1], side="right")
        return np.minimum(drawn, len(self._mass) - 1)


def _interests(config, rng):
    """Leaves int64 [users, max_interests], and how many of them each user has, int64 [users]."""
    num_leaves = config.parents * config.leaves_per_parent
    interests = rng.integers(num_leaves, size=(config.users, config.max_interests))
    return interests, rng.integers(config.min_interests, config.max_interests + 1, size=config.users)
