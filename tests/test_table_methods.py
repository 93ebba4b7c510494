"""What an EmbeddingVariable offers beside lookups: in eager mode and in `tf.function`, on every storage."""

import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

DIM = 3


@pytest.fixture(params=["eager", "graph"])
def run(request):
    """run(fn): its result as NumPy arrays, computed eagerly or in a `tf.function`."""

    def call(fn):
        return tf.nest.map_structure(
            lambda tensor: tensor.numpy(), fn() if request.param == "eager" else tf.function(fn)()
        )

    return call


def _initial(table, keys):
    return table.lookup(keys).numpy()


def test_scatter_add_sums_repeats_onto_the_initial_row(make_table, storage, run, rng):
    table = make_table(storage, DIM)
    keys = np.array([5, 900, 5, 7, 5])
    deltas = rng.normal(size=(5, DIM)).astype(np.float32)
    initial = _initial(table, [5, 900, 7])

    def add():
        table.scatter_add(keys, deltas)
        return table.lookup([5, 900, 7])

    want = initial + np.stack([deltas[0] + deltas[2] + deltas[4], deltas[1], deltas[3]])
    np.testing.assert_allclose(run(add), want, rtol=1e-6)
    assert table.contains([5, 900, 7]).numpy().all()


def test_the_methods_do_in_a_function_what_they_do_eagerly(make_table, hash_storage, run):
    table = make_table(hash_storage, DIM)

    def change():
        table.upsert([1, 2, 3, 2], tf.constant([[1.0] * DIM, [2.0] * DIM, [3.0] * DIM, [4.0] * DIM]))
        table.remove([3, 77])
        before = table.size()
        present = table.contains([1, 2, 3])
        keys, rows = table.export()
        table.clear()
        return before, present, keys, rows, table.size(), table.memory_bytes()

    before, present, keys, rows, after, memory = run(change)
    assert (before, after) == (2, 0)
    assert present.tolist() == [True, True, False]
    assert dict(zip(keys.tolist(), rows[:, 0].tolist(), strict=True)) == {1: 1.0, 2: 4.0}
    assert memory > 0


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
@pytest.mark.parametrize("with_state", [False, True])
def test_chunks_together_are_the_whole_export(make_table, storage, chunk, with_state):
    table = make_table(storage, DIM, rows=300, max_rows=300)
    table.bind("row_wise_adam")
    table.lookup(np.arange(300), insert=True)
    table.remove(np.arange(0, 300, 3))
    chunks = list(table.export_chunks(chunk, with_state=with_state))
    if storage != "unordered_map":  # whose buckets come whole
        assert max(len(keys) for keys, _ in chunks) <= chunk
    keys, rows = (np.concatenate(part) for part in zip(*chunks, strict=True))
    want_keys, want_rows = (part.numpy() for part in table.export(with_state=with_state))
    assert len(np.unique(keys)) == len(keys) == 200
    np.testing.assert_array_equal(keys[np.argsort(keys)], np.sort(want_keys))
    np.testing.assert_array_equal(rows[np.argsort(keys)], want_rows[np.argsort(want_keys)])


def test_a_function_walks_the_table_by_its_cursor(make_table, storage):
    table = make_table(storage, DIM, rows=100)
    table.upsert(np.arange(100), np.ones([100, DIM], np.float32))

    @tf.function
    def total():
        cursor, seen = tf.constant(0, tf.int64), tf.constant(0.0)
        while cursor >= 0:
            _, rows, cursor = table.export_chunk(cursor, 9)
            seen += tf.reduce_sum(rows)
        return seen

    assert float(total()) == 100 * DIM


@pytest.mark.parametrize("cursor, max_rows, text", [(-2, 5, "cursor .*got -2"), (0, 0, "max_rows .*got 0")])
def test_a_bad_chunk_is_named(make_table, storage, cursor, max_rows, text):
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        make_table(storage, DIM).export_chunk(cursor, max_rows)


def test_chunks_of_an_empty_table_are_none(make_table, hash_storage):
    assert list(make_table(hash_storage, DIM).export_chunks(10)) == []


def test_statistics_add_up(make_table, storage, run):
    table = make_table(storage, DIM, rows=1000)
    table.bind("row_wise_adagrad")
    table.lookup(np.arange(1000), insert=True)
    got = run(table.statistics)
    assert got["rows"] == 1000
    assert got["capacity"] >= 1000
    assert got["load"] == 1000 / got["capacity"]
    assert 1 <= got["mean_probe_length"] <= got["max_probe_length"]
    assert (got["row_bytes"], got["state_bytes"]) == (1000 * DIM * 4, 1000 * 4)
    memory = int(table.memory_bytes())
    assert got["index_bytes"] + got["row_bytes"] + got["state_bytes"] == memory
    # A good hash finds a key in little more than one place.
    assert got["mean_probe_length"] < 3


def test_statistics_of_an_empty_table_are_zeros(make_table, hash_storage):
    got = make_table(hash_storage, DIM).statistics()
    assert [float(got[name]) for name in ("rows", "load", "mean_probe_length", "max_probe_length")] == [0, 0, 0, 0]


class TestPadding:
    """The padding key of a table."""

    def test_its_row_is_zeros_and_lookups_do_not_insert_it(self, make_table, hash_storage):
        table = make_table(hash_storage, DIM, padding_key=-4)
        np.testing.assert_array_equal(table.lookup([-4]), np.zeros([1, DIM]))
        np.testing.assert_array_equal(table.lookup([-4, 1, -4], insert=True).numpy()[[0, 2]], np.zeros([2, DIM]))
        assert table.contains([-4, 1]).numpy().tolist() == [False, True]

    def test_an_update_passes_it_over(self, make_table, storage, rule):
        table = make_table(storage, DIM, padding_key=4)
        table.upsert([4], [[1.0, 2.0, 3.0]])
        table.bind(rule)
        keys = [3, 4, 5]
        before = table.lookup(keys).numpy()
        tse.ops.embedding_update(table, keys, np.ones([3, DIM], np.float32), rule, learning_rate=0.1, weight_decay=0.5)
        changed = (table.lookup(keys).numpy() != before).any(1)
        assert changed.tolist() == [True, False, True]

    def test_an_update_does_not_insert_it(self, make_table, hash_storage):
        table = make_table(hash_storage, DIM, padding_key=4)
        table.bind("sgd")
        tse.ops.embedding_update(table, [4, 5], np.ones([2, DIM], np.float32), "sgd", learning_rate=0.1)
        assert table.contains([4, 5]).numpy().tolist() == [False, True]

    def test_upsert_and_scatter_add_set_it(self, make_table, storage):
        table = make_table(storage, DIM, padding_key=4)
        table.upsert([4], [[1.0, 2.0, 3.0]])
        table.scatter_add([4], [[1.0, 1.0, 1.0]])
        np.testing.assert_array_equal(table.lookup([4]), [[2.0, 3.0, 4.0]])

    def test_it_is_a_key_of_the_table(self):
        with pytest.raises(ValueError, match=r"padding_key must be in \[0, 10\), got 10"):
            tse.EmbeddingVariable(DIM, input_dim=10, padding_key=10)


@pytest.mark.parametrize("insert", [True, False])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, np.inf])
def test_lookups_bound_norms_in_the_table_only_if_they_insert(make_table, storage, insert, norm_type, rng):
    table = make_table(storage, DIM, max_norm=1.0, norm_type=norm_type)
    keys = np.arange(20)
    rows = rng.normal(size=(20, DIM)).astype(np.float32)
    table.upsert(keys, rows)
    norms = np.linalg.norm(rows.astype(np.float64), ord=norm_type, axis=1, keepdims=True)
    want = np.where(norms > 1.0, rows / (norms + 1e-7), rows)
    assert 0 < (norms > 1.0).sum() < 20
    repeated = np.concatenate([keys, keys[::-1]])
    got = table.lookup(repeated, insert=insert).numpy()
    np.testing.assert_allclose(got, want[repeated], rtol=1e-6)
    exported_keys, exported = (part.numpy() for part in table.export())
    exported = exported[np.argsort(exported_keys)][:20]
    np.testing.assert_allclose(exported, want if insert else rows, rtol=1e-6)


def test_a_constraint_holds_for_the_rows_that_were_updated_and_no_others(make_table, storage):
    class Negative(tf.keras.constraints.Constraint):
        def __call__(self, rows):
            return -tf.abs(rows)

    table = make_table(storage, DIM, constraint=Negative(), padding_key=9, initializer="ones")
    table.upsert([1, 2, 9], np.ones([3, DIM], np.float32))
    optimizer = tse.optimizers.SGD(0.5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(table.lookup([1, 9, 1]))
    optimizer.apply([tape.gradient(loss, table)], [table])
    np.testing.assert_array_equal(table.lookup([1, 2, 9])[:, 0], [0.0, 1.0, 1.0])
    optimizer.apply([tf.IndexedSlices(tf.fill([1, DIM], -4.0), tf.constant([1], tf.int64))], [table])
    np.testing.assert_array_equal(table.lookup([1, 2, 9])[:, 0], [-2.0, 1.0, 1.0])
