"""Lookups, updates, inserts and removals of one table by several Python threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

THREADS = 4
ROUNDS = 25
KEYS = 3000


@pytest.fixture
def table(make_table, storage):
    """Rows of zeros under sgd: with learning_rate=1 and whole numbers as gradients every sum is exact."""
    table = make_table(storage, 5, rows=50_000, initializer="zeros")
    table.bind("sgd")
    return table


def _run(*jobs):
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def _updater(table, seed, total):
    """Updates random subsets of the keys 0 .. KEYS - 1, adding what it subtracted to `total`."""

    def job():
        rng = np.random.default_rng(seed)
        for _ in range(ROUNDS):
            keys = rng.permutation(KEYS)[: KEYS // 2]
            grads = np.repeat(rng.integers(1, 9, (keys.size, 1)), 5, axis=1).astype(np.float32)
            tse.ops.embedding_update(table, keys, grads, "sgd", learning_rate=1.0)
            total[keys] += grads[:, 0]

    return job


def test_concurrent_updates_lose_nothing(table):
    totals = np.zeros((THREADS, KEYS))
    _run(*(_updater(table, seed, totals[seed]) for seed in range(THREADS)))
    np.testing.assert_array_equal(table.lookup(np.arange(KEYS)), -np.repeat(totals.sum(0)[:, None], 5, axis=1))


def test_updates_beside_lookups_and_inserts_that_grow_the_table(table, storage):
    totals = np.zeros((2, KEYS))
    others = np.arange(KEYS, 50_000)

    def reader():
        rng = np.random.default_rng(8)
        lowest = np.zeros((KEYS, 5))
        for _ in range(2 * ROUNDS):
            keys = rng.permutation(KEYS)
            rows = table.lookup(keys).numpy()
            assert (rows == np.round(rows)).all()
            assert (rows <= lowest[keys]).all()  # gradients are positive: a row only ever falls
            lowest[keys] = rows

    def inserter():
        for batch in np.array_split(others, ROUNDS):
            np.testing.assert_array_equal(table.lookup(batch, insert=True), np.zeros((batch.size, 5)))
            assert table.contains(batch).numpy().all()

    _run(_updater(table, 0, totals[0]), _updater(table, 1, totals[1]), reader, inserter)
    np.testing.assert_array_equal(table.lookup(np.arange(KEYS)), -np.repeat(totals.sum(0)[:, None], 5, axis=1))
    touched = np.concatenate([np.flatnonzero(totals.sum(0)), others])
    assert int(table.size()) == (50_000 if storage == "index" else touched.size)


def test_the_same_new_keys_inserted_by_all_threads_are_inserted_once(make_table, hash_storage):
    table = make_table(hash_storage, 3)
    keys = np.arange(20_000) * 1_000_003
    want = table.lookup(keys).numpy()

    def inserter(seed):
        def job():
            order = np.random.default_rng(seed).permutation(keys.size)
            for batch in np.array_split(order, 10):
                np.testing.assert_array_equal(table.lookup(keys[batch], insert=True), want[batch])

        return job

    _run(*(inserter(seed) for seed in range(THREADS)))
    assert int(table.size()) == keys.size
    exported_keys, rows = (np.asarray(x) for x in table.export())
    np.testing.assert_array_equal(np.sort(exported_keys), keys)
    np.testing.assert_array_equal(rows, want[exported_keys // 1_000_003])


def test_removals_and_upserts_of_other_keys_leave_a_thread_its_rows(make_table, hash_storage):
    table = make_table(hash_storage, 3)

    def worker(number):
        def job():
            rng = np.random.default_rng(number)
            keys = np.arange(2000) * THREADS + number
            for i in range(ROUNDS):
                rows = rng.normal(size=(keys.size, 3)).astype(np.float32)
                table.upsert(keys, rows)
                np.testing.assert_array_equal(table.lookup(keys, missing="zeros"), rows)
                if i < ROUNDS - 1:
                    table.remove(keys)
                    assert not table.contains(keys).numpy().any()

        return job

    _run(*(worker(number) for number in range(THREADS)))
    assert int(table.size()) == 2000 * THREADS


def test_export_and_binding_beside_inserts_see_whole_rows(make_table, hash_storage):
    table = make_table(hash_storage, 8, initializer="ones")

    def inserter():
        for batch in np.array_split(np.arange(40_000), ROUNDS):
            table.lookup(batch, insert=True)

    def exporter():
        for _ in range(ROUNDS):
            keys, rows = (np.asarray(x) for x in table.export())
            assert np.unique(keys).size == keys.size
            np.testing.assert_array_equal(rows, np.ones((keys.size, 8)))

    def binder():
        for rule in ["row_wise_adam", "sgd", "row_wise_adagrad"] * 3:
            table.bind(rule)

    _run(inserter, exporter, binder)
    np.testing.assert_array_equal(table.lookup(np.arange(40_000), missing="zeros"), np.ones((40_000, 8)))


def test_updates_from_parallel_graph_calls_lose_nothing(table):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 5])])
    def update(keys, grads):
        tse.ops.embedding_update(table, keys, grads, "sgd", learning_rate=1.0)

    keys, grads = np.arange(KEYS), np.ones((KEYS, 5), np.float32)

    def job():
        for _ in range(ROUNDS):
            update(keys, grads)

    _run(*[job] * THREADS)
    np.testing.assert_array_equal(table.lookup(keys), np.full((KEYS, 5), -float(THREADS * ROUNDS)))
