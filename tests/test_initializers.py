"""The values of initial rows: range and moments of each kind, what a dynamic table refuses, seeds."""

import keras
import numpy as np
import pytest
import reference

import tf_sparse_emb as tse

V, D = 20_000, 16
SUPPORTED = "(?is)(?=.*zeros)(?=.*ones)(?=.*constant)(?=.*uniform)(?=.*normal)(?=.*truncated)(?=.*UniformUnitScaling)"


def _rows(initializer, storage="slab", seed=5, dim=D, keys=None, **kwargs):
    if storage == "index":
        kwargs["input_dim"] = V
    table = tse.EmbeddingVariable(dim, initializer=initializer, storage=storage, seed=seed, **kwargs)
    return table.lookup(np.arange(V) if keys is None else keys).numpy()


@pytest.mark.parametrize(
    "initializer, value",
    [
        ("zeros", 0.0),
        ("ones", 1.0),
        (keras.initializers.Zeros(), 0.0),
        (keras.initializers.Ones(), 1.0),
        (keras.initializers.Constant(-0.3), -0.3),
        ({"class_name": "Constant", "config": {"value": 2.5}}, 2.5),
    ],
    ids=["zeros", "ones", "Zeros", "Ones", "Constant", "config"],
)
def test_constant_kinds(storage, initializer, value):
    np.testing.assert_array_equal(_rows(initializer, storage)[:100], np.full((100, D), value, np.float32))


def _assert_uniform(rows, low, high):
    """Range, mean, deviation, and the share of each tenth of the range, each within five standard errors."""
    n, width = rows.size, high - low
    assert rows.min() >= low and rows.max() <= high
    assert rows.min() < low + 1e-3 * width and rows.max() > high - 1e-3 * width
    assert rows.mean(dtype=np.float64) == pytest.approx((low + high) / 2, abs=5 * width / np.sqrt(12 * n))
    assert rows.std(dtype=np.float64) == pytest.approx(width / np.sqrt(12), rel=0.01)
    counts, _ = np.histogram(rows, bins=10, range=(low, high))
    np.testing.assert_allclose(counts / n, 0.1, atol=5 * np.sqrt(0.09 / n))


@pytest.mark.parametrize(
    "initializer, low, high",
    [
        ("uniform", -0.05, 0.05),
        ("random_uniform", -0.05, 0.05),
        (keras.initializers.RandomUniform(-1.0, 3.0), -1.0, 3.0),
        (keras.initializers.RandomUniform(0.25, 0.5), 0.25, 0.5),
    ],
    ids=["uniform", "random_uniform", "wide", "positive"],
)
def test_uniform(storage, initializer, low, high):
    _assert_uniform(_rows(initializer, storage), low, high)


def _assert_normal(rows, mean, stddev):
    n = rows.size
    assert rows.mean(dtype=np.float64) == pytest.approx(mean, abs=5 * stddev / np.sqrt(n))
    assert rows.std(dtype=np.float64) == pytest.approx(stddev, rel=0.01)
    z = (rows - mean) / stddev
    for bound, share in [(1, 0.6827), (2, 0.9545), (3, 0.9973)]:
        assert (np.abs(z) < bound).mean() == pytest.approx(share, abs=5e-3)
    assert (z < 0).mean() == pytest.approx(0.5, abs=5e-3)
    assert 3.5 < np.abs(z).max() < 7


@pytest.mark.parametrize(
    "initializer, mean, stddev",
    [
        ("normal", 0.0, 0.05),
        ("random_normal", 0.0, 0.05),
        (keras.initializers.RandomNormal(mean=2.0, stddev=0.5), 2.0, 0.5),
    ],
    ids=["normal", "random_normal", "shifted"],
)
def test_normal(storage, initializer, mean, stddev):
    _assert_normal(_rows(initializer, storage), mean, stddev)


@pytest.mark.parametrize(
    "initializer, mean, stddev",
    [("truncated_normal", 0.0, 0.05), (keras.initializers.TruncatedNormal(mean=-1.0, stddev=0.5), -1.0, 0.5)],
    ids=["default", "shifted"],
)
def test_truncated_normal_stays_within_two_deviations(storage, initializer, mean, stddev):
    rows = _rows(initializer, storage)
    z = (rows.astype(np.float64) - mean) / stddev
    assert np.abs(z).max() <= 2 + 1e-5
    assert np.abs(z).max() > 1.98
    assert z.mean() == pytest.approx(0.0, abs=5e-3 * 2)
    assert z.std() == pytest.approx(0.8796, rel=0.01)  # of a normal cut at two deviations
    assert (np.abs(z) < 1).mean() == pytest.approx(0.6827 / 0.9545, abs=5e-3)


@pytest.mark.parametrize("factor, input_size", [(1.0, 1000), (2.0, 50), (0.5, 1_000_000)])
def test_uniform_unit_scaling(storage, factor, input_size):
    bound = factor * np.sqrt(3 / input_size)
    initializer = tse.initializers.UniformUnitScaling(factor=factor, input_size=input_size)
    _assert_uniform(_rows(initializer, storage), -bound * (1 + 1e-6), bound * (1 + 1e-6))


def test_uniform_unit_scaling_on_a_dynamic_table_needs_input_size(hash_storage):
    with pytest.raises((TypeError, ValueError), match="input_size"):
        tse.EmbeddingVariable(D, initializer=tse.initializers.UniformUnitScaling(factor=1.0), storage=hash_storage)


def test_uniform_unit_scaling_config_round_trip():
    initializer = tse.initializers.UniformUnitScaling(factor=0.5, input_size=77)
    config = initializer.get_config()
    assert (config["factor"], config["input_size"]) == (0.5, 77)
    again = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert isinstance(again, tse.initializers.UniformUnitScaling)
    assert again.get_config() == config


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated_normal"])
def test_an_index_table_has_the_rows_of_a_dynamic_table_of_the_same_seed(kind):
    np.testing.assert_array_equal(_rows(kind, "index"), _rows(kind, "slab"))


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated_normal"])
def test_neighbouring_keys_components_and_seeds_are_independent(kind):
    rows = _rows(kind).astype(np.float64)
    rows -= rows.mean(0)
    bound = 6 / np.sqrt(rows.shape[0])

    def correlation(a, b):
        return np.mean(a * b) / (a.std() * b.std())

    for other in (_rows(kind, seed=6), _rows(kind, keys=-np.arange(V) - 1), _rows(kind, keys=np.arange(V) << 32)):
        assert abs(correlation(rows[1:, 0], other[1:, 0] - other[:, 0].mean())) < bound
    assert abs(correlation(rows[1:, 0], rows[:-1, 0])) < bound
    for d in range(1, D):
        assert abs(correlation(rows[:, 0], rows[:, d])) < bound
        assert abs(correlation(rows[1:, d - 1], rows[:-1, d])) < bound


def test_extreme_keys_have_rows_of_the_same_kind_all_distinct(hash_storage):
    rows = _rows("uniform", hash_storage, keys=reference.EXTREME_KEYS)
    assert np.abs(rows).max() <= 0.05
    assert np.unique(rows).size == rows.size


@pytest.mark.parametrize(
    "initializer",
    ["glorot_uniform", "he_normal", "orthogonal", keras.initializers.VarianceScaling(), lambda shape, dtype=None: 0],
    ids=["glorot_uniform", "he_normal", "orthogonal", "VarianceScaling", "callable"],
)
def test_a_dynamic_table_refuses_another_initializer_and_lists_the_supported(hash_storage, initializer):
    with pytest.raises(ValueError, match=SUPPORTED):
        tse.EmbeddingVariable(D, initializer=initializer, storage=hash_storage)


@pytest.mark.parametrize("storage_name", reference.STORAGES)
def test_an_unknown_initializer_is_a_value_error_that_names_it(storage_name):
    with pytest.raises(ValueError, match="no_such_initializer"):
        tse.EmbeddingVariable(D, initializer="no_such_initializer", storage=storage_name, input_dim=10)


def test_an_index_table_takes_any_keras_initializer():
    initializer = keras.initializers.GlorotUniform(seed=7)
    table = tse.EmbeddingVariable(D, input_dim=50, initializer=initializer)
    np.testing.assert_array_equal(table.lookup(np.arange(50)), initializer((50, D), dtype="float32"))


def test_an_index_table_takes_a_callable_and_calls_it_once():
    calls = []

    def ramp(shape, dtype=None):
        calls.append(tuple(shape))
        return keras.ops.reshape(keras.ops.arange(shape[0] * shape[1], dtype="float32"), shape)

    table = tse.EmbeddingVariable(3, input_dim=4, initializer=ramp)
    for _ in range(2):
        np.testing.assert_array_equal(table.lookup(np.arange(4)), np.arange(12).reshape(4, 3))
    assert calls == [(4, 3)]


def test_seed_none_draws_from_the_global_generator_of_keras():
    keras.utils.set_random_seed(3)
    first, second = (tse.EmbeddingVariable(D) for _ in range(2))
    keras.utils.set_random_seed(3)
    again = tse.EmbeddingVariable(D)
    assert first.seed == again.seed != second.seed
    keys = np.arange(100)
    np.testing.assert_array_equal(first.lookup(keys), again.lookup(keys))
    assert (first.lookup(keys).numpy() != second.lookup(keys).numpy()).mean() > 0.99


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**40 + 1])
def test_a_seed_is_kept_and_repeats_its_rows(seed):
    tables = [tse.EmbeddingVariable(D, seed=seed) for _ in range(2)]
    assert [table.seed for table in tables] == [seed, seed]
    np.testing.assert_array_equal(tables[0].lookup(np.arange(50)), tables[1].lookup(np.arange(50)))
    assert (_rows("uniform", seed=seed)[:50] != _rows("uniform", seed=seed + 1)[:50]).mean() > 0.99
