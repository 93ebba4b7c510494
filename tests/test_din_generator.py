"""DIN example: the generator of click logs."""

import dataclasses

import numpy as np
import pytest
from din import generator, metrics

SMALL = generator.Config(users=400, items=500, parents=4, leaves_per_parent=3, impressions=12)


def columns(dataset):
    yield from (dataset.log_items, dataset.log_categories)
    for examples in (dataset.train, dataset.held_out):
        yield from (getattr(examples, field.name) for field in dataclasses.fields(examples))


def test_same_seed_same_data_other_seed_other_data():
    first, again, other = (generator.generate(seed, config=SMALL) for seed in (1, 1, 2))
    for one, two in zip(columns(first), columns(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.train.items, other.train.items)


def test_clicks_follow_the_stated_probabilities():
    examples = generator.generate(1, config=dataclasses.replace(SMALL, users=5000)).train
    for low, high in [(0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)]:
        part = (examples.probabilities >= low) & (examples.probabilities < high)
        error = examples.labels[part].mean() - examples.probabilities[part].mean()
        assert abs(error) < 4 * 0.5 / np.sqrt(part.sum())


def test_probability_is_a_function_of_history_and_candidate():
    """The logit recomputed from what a model sees differs between two impressions of an item by the history alone."""
    config = dataclasses.replace(SMALL, quality_deviation=0.0)
    dataset = generator.generate(3, config=config)
    examples = dataset.held_out
    for e in range(len(examples)):
        history = dataset.log_categories[examples.starts[e] : examples.starts[e] + examples.lengths[e]] - 1
        leaf = examples.categories[e] - 1
        n_leaf = np.sum(history == leaf)
        n_parent = np.sum(history // config.leaves_per_parent == leaf // config.leaves_per_parent)
        logit = config.bias + config.leaf_weight * (1 - np.exp(-n_leaf))
        logit += config.parent_weight * (1 - np.exp(-n_parent / 4))
        assert examples.probabilities[e] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-12)


def test_history_grows_by_the_clicked_impressions():
    dataset = generator.generate(1, config=SMALL)
    examples = dataset.train
    for user in np.unique(examples.users)[:50]:
        rows = np.flatnonzero(examples.users == user)
        assert examples.lengths[rows[0]] == SMALL.first_clicks
        np.testing.assert_array_equal(np.diff(examples.lengths[rows]), examples.labels[rows[:-1]])
        last = rows[-1]
        clicks = dataset.log_items[examples.starts[last] : examples.starts[last] + examples.lengths[last]]
        clicked = examples.items[rows[:-1]][examples.labels[rows[:-1]] == 1]
        np.testing.assert_array_equal(clicks[SMALL.first_clicks :], clicked)


def test_validation_holds_out_the_impressions_before_the_test():
    test, validation = (generator.generate(1, validation=flag, config=SMALL) for flag in (False, True))
    per_user = SMALL.impressions - SMALL.held_out
    np.testing.assert_array_equal(
        validation.held_out.items.reshape(SMALL.users, -1),
        test.train.items.reshape(SMALL.users, per_user)[:, -SMALL.held_out :],
    )
    np.testing.assert_array_equal(
        validation.train.items.reshape(SMALL.users, -1),
        test.train.items.reshape(SMALL.users, per_user)[:, : -SMALL.held_out],
    )


def test_no_score_made_from_the_labels_expectation_beats_the_ceiling():
    examples = generator.generate(1, config=SMALL).held_out
    ceiling = metrics.auc(examples.labels, examples.probabilities)
    noise = np.random.default_rng(0).normal(size=len(examples))
    assert 0.6 < metrics.auc(examples.labels, examples.probabilities + 0.2 * noise) < ceiling < 1.0


def test_popularity_is_skewed():
    items = generator.generate(1, config=SMALL).train.items
    counts = np.sort(np.unique(items, return_counts=True)[1])[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * counts.sum()


def test_hashed_ids_are_distinct_and_use_all_64_bits():
    ids = generator.hashed_ids(np.arange(100_000), salt=1)
    assert ids.dtype == np.int64
    assert len(np.unique(ids)) == len(ids)
    bits = (ids.view(np.uint64)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=0.01)
    assert not np.array_equal(ids, generator.hashed_ids(np.arange(100_000), salt=2))


def test_reindexed_ids_are_dense_and_name_the_same_things():
    dataset = generator.generate(1, config=SMALL)
    dense, num_rows = dataset.reindexed()
    for name, columns_of in {
        "item": lambda d: np.concatenate([d.log_items, d.train.items, d.held_out.items]),
        "category": lambda d: np.concatenate([d.log_categories, d.train.categories, d.held_out.categories]),
        "user": lambda d: np.concatenate([d.train.users, d.held_out.users]),
    }.items():
        original, ids = columns_of(dataset), columns_of(dense)
        assert (ids.min(), ids.max() + 1, len(np.unique(ids)) + 1) == (1, num_rows[name], num_rows[name])
        assert len(set(zip(original.tolist(), ids.tolist(), strict=True))) == num_rows[name] - 1
    np.testing.assert_array_equal(dense.train.labels, dataset.train.labels)
    np.testing.assert_array_equal(dense.train.starts, dataset.train.starts)
