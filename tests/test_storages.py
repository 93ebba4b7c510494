"""Each storage behaves as a Python dict whose missing keys read as their initial rows."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

DIM = 4
UNIVERSE = 6000
BATCH = 400
BATCHES = 250  # 250 * 400 = 100,000 operations per storage


class _Model:
    """The dict, and what the table must answer."""

    def __init__(self, storage, keys, initial):
        self.initial = dict(zip(keys.tolist(), initial, strict=True))
        self.rows = dict(self.initial) if storage == "index" else {}  # an index table starts with every row

    def insert(self, keys):
        for key in keys.tolist():
            self.rows.setdefault(key, self.initial[key])

    def upsert(self, keys, rows):
        self.rows.update(zip(keys.tolist(), rows, strict=True))

    def remove(self, keys):
        for key in keys.tolist():
            self.rows.pop(key, None)

    def clear(self):
        self.rows = {}

    def lookup(self, keys, missing="initial"):
        default = self.initial if missing == "initial" else {}
        zeros = np.zeros(DIM, np.float32)
        return np.stack([self.rows.get(key, default.get(key, zeros)) for key in keys.tolist()])


def _assert_same_table(table, model):
    keys, rows = (np.asarray(x) for x in table.export())
    assert keys.dtype == np.int64 and rows.dtype == np.float32
    assert sorted(keys.tolist()) == sorted(model.rows)
    np.testing.assert_array_equal(rows.reshape(-1, DIM), model.lookup(keys) if keys.size else np.zeros((0, DIM)))
    assert int(table.size()) == len(model.rows) == int(tse.check(table))


@pytest.mark.parametrize("seed", [0, 1])
def test_100000_random_operations_agree_with_a_dict(make_table, storage, seed):
    rng = np.random.default_rng(seed)
    universe = reference.key_universe(storage, UNIVERSE, seed)
    hot = np.concatenate([universe[:300], universe[:4]])
    table = make_table(storage, DIM, rows=UNIVERSE)
    initial = make_table("slab", DIM, rows=UNIVERSE).lookup(universe).numpy()
    model = _Model(storage, universe, initial)
    operations = ["insert", "lookup", "zeros", "upsert", "upsert", "remove", "contains"]
    for i in range(BATCHES):
        pool = hot if rng.random() < 0.3 else universe
        keys = rng.choice(pool, BATCH)
        operation = operations[rng.integers(len(operations))]
        if operation == "insert":
            model.insert(keys)
            np.testing.assert_array_equal(table.lookup(keys, insert=True), model.lookup(keys))
        elif operation == "lookup":
            np.testing.assert_array_equal(table.lookup(keys), model.lookup(keys))
        elif operation == "zeros":
            np.testing.assert_array_equal(table.lookup(keys, missing="zeros"), model.lookup(keys, missing="zeros"))
        elif operation == "upsert":
            keys = np.unique(keys)
            rows = rng.normal(size=(keys.size, DIM)).astype(np.float32)
            model.upsert(keys, rows)
            table.upsert(keys, rows)
        elif operation == "remove":
            model.remove(keys)
            table.remove(keys)
        elif operation == "contains":
            got = table.contains(keys).numpy()
            np.testing.assert_array_equal(got, [key in model.rows for key in keys.tolist()])
        assert int(table.size()) == len(model.rows), operation
        if i % 60 == 59:
            _assert_same_table(table, model)
        if i == BATCHES // 2:
            model.clear()
            table.clear()
            _assert_same_table(table, model)
    _assert_same_table(table, model)


def test_every_int64_is_a_key_that_can_be_stored_found_and_removed(make_table, hash_storage):
    table = make_table(hash_storage, DIM)
    keys = np.concatenate([reference.EXTREME_KEYS, [reference.INT64_MIN + 1, reference.INT64_MAX - 1, 1, -2]])
    rows = np.arange(keys.size * DIM, dtype=np.float32).reshape(-1, DIM)
    table.upsert(keys, rows)
    np.testing.assert_array_equal(table.lookup(keys, missing="zeros"), rows)
    for removed in range(keys.size):
        table.remove(keys[removed : removed + 1])
        np.testing.assert_array_equal(table.contains(keys), np.arange(keys.size) > removed)
        rows[removed] = 0
        np.testing.assert_array_equal(table.lookup(keys, missing="zeros"), rows)
    assert int(table.size()) == 0


@pytest.mark.parametrize("keys", [np.arange(5000) * 4096, np.arange(5000) << 32, -np.arange(5000) - 1], ids=str)
def test_regular_keys_are_all_kept_apart(make_table, hash_storage, keys):
    table = make_table(hash_storage, 1)
    table.upsert(keys, np.arange(keys.size, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(table.lookup(keys)[:, 0], np.arange(keys.size))
    assert int(table.size()) == keys.size


def test_a_removed_key_reads_as_its_initial_row_and_comes_back_as_it(make_table, storage):
    table = make_table(storage, DIM, rows=20)
    keys = np.arange(10)
    initial = table.lookup(keys).numpy()
    table.upsert(keys, np.full((10, DIM), 5.0, np.float32))
    table.remove(keys[:5])
    want = np.where(keys[:, None] < 5, initial, 5.0)
    np.testing.assert_array_equal(table.lookup(keys), want)
    np.testing.assert_array_equal(table.lookup(keys, insert=True), want)


def test_a_cleared_table_starts_anew(make_table, storage):
    table = make_table(storage, DIM, rows=20)
    initial = table.lookup(np.arange(20)).numpy()
    table.upsert(np.arange(20), np.full((20, DIM), 5.0, np.float32))
    table.clear()
    np.testing.assert_array_equal(table.lookup(np.arange(20)), initial)
    assert int(table.size()) == 0


def test_an_index_table_has_every_row_from_the_start():
    table = tse.EmbeddingVariable(DIM, input_dim=30, seed=3)
    assert table.storage == "index"
    assert int(table.size()) == 30
    assert table.contains(np.arange(30)).numpy().all()
    keys, rows = table.export()
    np.testing.assert_array_equal(np.sort(keys), np.arange(30))
    np.testing.assert_array_equal(rows, table.lookup(keys))


@pytest.mark.parametrize("initializer", ["uniform", "normal"])
def test_the_initial_row_depends_on_seed_and_key_alone(make_table, dim, initializer, rng):
    """The same whatever the storage, the order of insertion, the split into batches, and whether it is inserted."""
    keys = np.arange(400)
    want = make_table("slab", dim, initializer=initializer).lookup(keys).numpy()
    for storage in reference.STORAGES:
        table = make_table(storage, dim, rows=400, initializer=initializer)
        for batch in np.array_split(rng.permutation(keys), 7):
            np.testing.assert_array_equal(table.lookup(batch, insert=True), want[batch], err_msg=storage)
        np.testing.assert_array_equal(table.lookup(keys), want, err_msg=storage)
    another = make_table("slab", dim, initializer=initializer, seed=12).lookup(keys).numpy()
    assert (another != want).mean() > 0.99


@pytest.mark.parametrize("initializer", ["uniform", "normal", "truncated_normal"])
def test_1000_new_keys_get_1000_distinct_rows(make_table, storage, initializer):
    table = make_table(storage, 8, initializer=initializer)
    rows = [table.lookup(np.arange(i * 100, i * 100 + 100), insert=True).numpy() for i in range(10)]
    assert np.unique(np.concatenate(rows), axis=0).shape == (1000, 8)
    assert int(table.size()) == 1000


def test_growing_keeps_rows_and_state(make_table, sorted_export, hash_storage, rule, rng):
    table = make_table(hash_storage, 3)
    table.bind(rule)
    first = reference.key_universe(hash_storage, 500)
    grads = rng.normal(size=(500, 3)).astype(np.float32)
    tse.ops.embedding_update(table, first, grads, rule, learning_rate=0.1)
    keys_before, before = sorted_export(table)
    more = np.arange(150_000) * 7919 + 100
    for batch in np.array_split(more, 9):
        table.lookup(batch, insert=True)
    keys_after, after = sorted_export(table)
    np.testing.assert_array_equal(after[np.searchsorted(keys_after, keys_before)], before)
    assert int(table.size()) == np.union1d(first, more).size == int(tse.check(table))


def test_memory_bytes_covers_the_rows_and_grows_with_them(make_table, hash_storage):
    table = make_table(hash_storage, 64)
    empty = int(table.memory_bytes())
    table.lookup(np.arange(20_000), insert=True)
    filled = int(table.memory_bytes())
    payload = 20_000 * (64 * 4 + 8)
    assert payload <= filled < 4 * payload + empty
    assert empty < payload
    table.bind("row_wise_adam")
    assert int(table.memory_bytes()) >= 20_000 * ((64 + 65) * 4 + 8)


def test_an_upsert_beyond_max_rows_changes_nothing(make_table, sorted_export, hash_storage):
    table = make_table(hash_storage, DIM, max_rows=100)
    table.upsert(np.arange(95), np.ones((95, DIM), np.float32))
    before = sorted_export(table)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|100"):
        table.upsert(np.arange(90, 110), np.full((20, DIM), 2.0, np.float32))
    for now, then in zip(sorted_export(table), before, strict=True):
        np.testing.assert_array_equal(now, then)
    table.upsert(np.arange(90, 100), np.full((10, DIM), 2.0, np.float32))
    table.remove(np.arange(50))
    table.lookup(np.arange(1000, 1050), insert=True)
    assert int(table.size()) == 100


BAD = {
    "rows_too_wide": ("rows", [1, 2], np.ones((2, DIM + 1), np.float32)),
    "rows_too_few": ("rows|keys", [1, 2], np.ones((1, DIM), np.float32)),
    "rows_rank_1": ("rows", [1, 2, 3, 4], np.ones(DIM, np.float32)),
}


@pytest.mark.parametrize("case", BAD)
def test_an_upsert_of_a_bad_shape_changes_nothing(make_table, sorted_export, storage, case):
    name, keys, rows = BAD[case]
    table = make_table(storage, DIM, rows=10)
    _, before = sorted_export(table)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=name):
        table.upsert(keys, rows)
    np.testing.assert_array_equal(sorted_export(table)[1], before)


@pytest.mark.parametrize("rule, state", [("row_wise_adagrad", [0.25]), ("row_wise_adam", [0.0] * (DIM + 1))])
def test_binding_after_rows_exist_keeps_the_rows(make_table, sorted_export, storage, rule, state, rng):
    keys = reference.key_universe(storage, 200)
    rows = rng.normal(size=(200, DIM)).astype(np.float32)
    table = make_table(storage, DIM, rows=200)
    table.upsert(keys, rows)
    assert sorted_export(table)[1].shape == (200, DIM)
    table.bind(rule, **({"initial_accumulator_value": 0.25} if rule == "row_wise_adagrad" else {}))
    exported_keys, exported = sorted_export(table)
    order = np.argsort(keys)
    np.testing.assert_array_equal(exported_keys, keys[order])
    np.testing.assert_array_equal(exported, np.concatenate([rows[order], np.tile(state, (200, 1))], axis=1))


def test_binding_before_or_after_the_rows_gives_the_same_updates(make_table, sorted_export, storage, rule, rng):
    keys = reference.key_universe(storage, 100)
    grads = rng.normal(size=(2, 100, DIM)).astype(np.float32)
    before, after = (make_table(storage, DIM, rows=100) for _ in range(2))
    before.bind(rule)
    before.lookup(keys, insert=True)
    after.lookup(keys, insert=True)
    after.bind(rule)
    for table in (before, after):
        for step in (1, 2):
            tse.ops.embedding_update(table, keys, grads[step - 1], rule, step=step, learning_rate=0.1)
    np.testing.assert_array_equal(sorted_export(before)[1], sorted_export(after)[1])


def test_binding_again_resets_the_state_and_keeps_the_rows(make_table, sorted_export, storage, rule):
    table = make_table(storage, DIM, rows=50)
    table.bind("row_wise_adam")
    keys = np.arange(50)
    tse.ops.embedding_update(table, keys, np.ones((50, DIM), np.float32), "row_wise_adam", learning_rate=0.1)
    _, trained = sorted_export(table)
    assert (trained[:, DIM:] != 0).all()
    table.bind(rule)
    _, exported = sorted_export(table)
    width = {"sgd": 0, "row_wise_adagrad": 1, "row_wise_adam": DIM + 1}[rule]
    np.testing.assert_array_equal(exported, np.concatenate([trained[:, :DIM], np.zeros((50, width))], axis=1))


def test_an_upsert_keeps_the_state_of_a_row_and_gives_new_rows_the_initial_one(make_table, sorted_export, hash_storage):
    table = make_table(hash_storage, 2)
    table.bind("row_wise_adagrad", initial_accumulator_value=0.5)
    tse.ops.embedding_update(table, [1], np.array([[3.0, 1.0]], np.float32), "row_wise_adagrad", learning_rate=0.1)
    table.upsert([1, 2], np.array([[7.0, 8.0], [9.0, 10.0]], np.float32))
    keys, rows = sorted_export(table)
    np.testing.assert_array_equal(keys, [1, 2])
    np.testing.assert_allclose(rows, [[7, 8, 5.5], [9, 10, 0.5]])
