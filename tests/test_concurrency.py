"""Lookups, updates, inserts, removals, exports and saves of one table by several Python threads at once.

STRESS_SECONDS is how long each storage is under all of them together; `make stress` takes 60.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

THREADS = 4
ROUNDS = 25
KEYS = 3000
SECONDS = float(os.environ.get("STRESS_SECONDS", 0.6))


@pytest.fixture
def table(make_table, storage):
    """Rows of zeros under sgd: with learning_rate=1 and whole numbers as gradients every sum is exact."""
    table = make_table(storage, 5, rows=50_000, initializer="zeros")
    table.bind("sgd")
    yield table
    tse.check(table)


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
    assert int(tse.check(table)) == keys.size


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
    assert int(table.size()) == 2000 * THREADS == int(tse.check(table))


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
    assert int(tse.check(table)) == 40_000


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


def _repeat(seconds, *jobs):
    """Runs job(round) of all jobs again and again, each in its thread, until time is up or one fails: the rounds."""
    deadline, failed = time.monotonic() + seconds, threading.Event()

    def repeat(job):
        rounds = 0
        try:
            while not failed.is_set() and (rounds < 2 or time.monotonic() < deadline):
                job(rounds)
                rounds += 1
        except BaseException:
            failed.set()
            raise
        return rounds

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(repeat, job) for job in jobs]]


class _Stress:
    """A table of rows whose elements are all equal, and what may be done to it at once.

    Keys 0 to 1999 are updated and added to by whole numbers, and never removed; 2000 to 5999 are set and removed by
    two threads, each its own; the others come and go, and their rows stay zeros.
    """

    DIM, UPDATED, OWNED, ALL = 8, 2000, 6000, 30_000

    def __init__(self, table, folder):
        self.table, self.folder = table, folder
        self.totals, self.counts, self.owned = [], np.zeros(self.UPDATED), {}
        self.lowest = np.zeros(self.UPDATED)
        self.chain = tse.saving.IncrementalCheckpoint(folder / "chain", table=table)
        table.bind("sgd")
        table.lookup(np.arange(self.UPDATED), insert=True)
        self.jobs = {
            "update": self.updater(self.update_eagerly),
            "update in a function": self.updater(tf.function(self.update_eagerly, reduce_retracing=True)),
            "lookup and update in a function": self.updater(tf.function(self.step, reduce_retracing=True)),
            "scatter_add": self.updater(lambda keys, amounts: table.scatter_add(keys, -amounts)),
            "count": self.count,
            "upsert and remove": self.owner(0),
            "upsert and remove others": self.owner(1),
            "insert": self.insert,
            "remove": self.remove,
            "lookup": self.look_up,
            "export": self.export,
            "export in chunks": self.export_chunks,
            "save and load": self.save,
            "save increments": lambda _: self.chain.save(),
            "snapshot": lambda _: self.expect_whole_rows(self.table.numpy().rows),
            "check": lambda _: tse.check(self.table),
        }

    @staticmethod
    def expect_whole_rows(rows):
        rows = np.asarray(rows)
        np.testing.assert_array_equal(rows, np.repeat(rows[:, :1], rows.shape[1], 1))

    def update_eagerly(self, keys, grads):
        tse.ops.embedding_update(self.table, keys, grads, "sgd", learning_rate=1.0)

    def step(self, keys, grads):
        rows = self.table.lookup(keys, insert=True)
        with tf.control_dependencies([rows]):
            tse.ops.embedding_update(self.table, keys, grads, "sgd", learning_rate=1.0, keys_differ=True)

    def updater(self, update):
        """A job which takes positive whole numbers from random rows, and keeps their sums."""
        total = np.zeros(self.UPDATED)
        self.totals.append(total)
        rng = np.random.default_rng(len(self.totals))

        def job(_):
            keys = rng.permutation(self.UPDATED)[:700].astype(np.int64)
            amounts = rng.integers(1, 5, (keys.size, 1))
            update(tf.constant(keys), tf.constant(np.repeat(amounts, self.DIM, 1), tf.float32))
            total[keys] += amounts[:, 0]

        return job

    def count(self, _):
        keys = np.arange(0, self.UPDATED, 3)
        self.table.add_counts(keys, np.ones((keys.size, 1)))
        self.counts[keys] += 1

    def owner(self, number):
        keys = np.arange(self.UPDATED + number, self.OWNED, 2)

        def job(i):
            rows = np.repeat(np.full(keys.size, i + 1.0)[:, None], self.DIM, 1).astype(np.float32)
            self.table.upsert(keys, rows)
            np.testing.assert_array_equal(self.table.lookup(keys, missing="zeros"), rows)
            removed = keys[i % 3 :: 3]
            self.table.remove(removed)
            assert not self.table.contains(removed).numpy().any()
            self.owned[number] = np.setdiff1d(keys, removed), i + 1.0

        return job

    def insert(self, i):
        keys = np.random.default_rng(i).integers(self.OWNED, self.ALL, 2000)
        np.testing.assert_array_equal(self.table.lookup(keys, insert=True), np.zeros((keys.size, self.DIM)))

    def remove(self, i):
        self.table.remove(np.random.default_rng(i + 10**6).integers(self.OWNED, self.ALL, 1500))

    def look_up(self, i):
        keys = np.random.default_rng(i).permutation(self.ALL)[:8000]
        rows = self.table.lookup(keys).numpy()
        self.expect_whole_rows(rows)
        of_updated = keys < self.UPDATED
        keys, values = keys[of_updated], rows[of_updated, 0]
        assert (values <= self.lowest[keys]).all()  # a row that is updated only ever falls
        self.lowest[keys] = values
        assert (rows[:, 0] == np.round(rows[:, 0])).all()

    def export(self, _):
        keys, rows = (np.asarray(x) for x in self.table.export())
        assert np.unique(keys).size == keys.size
        assert np.isin(np.arange(self.UPDATED), keys).all()
        self.expect_whole_rows(rows)

    def export_chunks(self, _):
        for _, rows in self.table.export_chunks(3000):
            self.expect_whole_rows(rows)

    def save(self, _):
        self.table.save(self.folder / "table")
        loaded = tse.EmbeddingVariable(self.DIM, initializer="zeros", counts="seen")
        loaded.load(self.folder / "table")
        assert int(tse.check(loaded)) >= self.UPDATED
        self.expect_whole_rows(loaded.export()[1])

    def finish(self):
        """What must have come of it all."""
        table, updated = self.table, np.arange(self.UPDATED)
        want = np.repeat(-sum(self.totals)[:, None], self.DIM, 1)
        np.testing.assert_array_equal(table.lookup(updated, missing="zeros"), want)
        np.testing.assert_array_equal(table.key_counts(updated)[:, 0], self.counts)
        for keys, value in self.owned.values():
            np.testing.assert_array_equal(table.lookup(keys, missing="zeros"), np.full((keys.size, self.DIM), value))
        assert int(tse.check(table)) == int(table.size())
        self.chain.save()
        restored = tse.EmbeddingVariable(self.DIM, initializer="zeros", counts="seen")
        tse.saving.IncrementalCheckpoint(self.folder / "chain", table=restored).restore()
        assert restored.numpy() == table.numpy()


def test_everything_at_once_loses_no_update_and_tears_no_row(make_table, storage, tmp_path):
    table = make_table(storage, _Stress.DIM, rows=_Stress.ALL, initializer="zeros", counts="seen")
    stress = _Stress(table, tmp_path)
    rounds = dict(zip(stress.jobs, _repeat(SECONDS, *stress.jobs.values()), strict=True))
    print(f"{storage}, {SECONDS:g} s:", ", ".join(f"{name} {count}" for name, count in rounds.items()))
    stress.finish()


def test_predict_from_eight_threads_is_predict_from_one(make_table, rng):
    keys = keras.Input([5], dtype="int64")
    model = keras.Model(
        keys, keras.layers.Dense(3)(tse.Embedding(None, 8, combiner="mean", max_norm=0.1, seed=1)(keys))
    )
    batches = rng.integers(-500, 500, (8, 64, 5))
    model.layers[1](batches[:4], training=True)  # half of the keys are there
    want = [model.predict(batch, batch_size=16, verbose=0) for batch in batches]
    size = int(model.layers[1].embeddings.size())

    def job(number):
        def run():
            for i in range(3):
                b = (number + i) % len(batches)
                np.testing.assert_array_equal(model.predict(batches[b], batch_size=16, verbose=0), want[b])

        return run

    _run(*(job(number) for number in range(8)))
    assert int(tse.check(model)) == size
