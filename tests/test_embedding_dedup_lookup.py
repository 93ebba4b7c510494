"""EmbeddingDedupLookup gives what EmbeddingKeyDedup and EmbeddingLookup give."""

import threading
import time

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_dedup_lookup import dedup_lookup_tables
from tf_sparse_emb.ops.embedding_key_dedup import key_dedup_by_table
from tf_sparse_emb.ops.embedding_lookup import DistinctSlices, lookup_tables

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")
STORAGES = (*reference.HASH_STORAGES, "index")


def _in(mode, function):
    return function if mode == "eager" else tf.function(function)


def _twins(make_table, storage, dim, rows=400):
    """Two tables with the same rows of every other key."""
    twins = [make_table(storage, dim, rows=rows if storage == "index" else None, seed=3) for _ in range(2)]
    values = np.random.default_rng(5).normal(size=(rows // 2, dim)).astype(np.float32)
    for table in twins:
        table.upsert(np.arange(0, rows, 2), values)
    return twins


def _two_calls(tables, keys, feature_splits, feature_tables, **options):
    unique_keys, inverse, counts, table_splits = key_dedup_by_table(keys, feature_splits, feature_tables)
    rows = lookup_tables(tables, unique_keys, table_splits, keys_differ=True, **options)
    return unique_keys, inverse, counts, table_splits, rows


def _assert_same(got, want):
    names = ("unique_keys", "inverse", "counts", "table_splits", "rows")
    for name, dtype, g, w in zip(names, "qiiqf", got, want, strict=True):
        assert g.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(g, w, err_msg=name)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("missing", ["initial", "zeros"])
def test_one_op_gives_what_the_two_give(make_table, storage, mode, insert, missing, dim, rng):
    table, twin = _twins(make_table, storage, dim)
    options = {"insert": insert, "missing": missing}
    call = _in(mode, lambda keys: dedup_lookup_tables([table], keys, None, [0], **options))
    # Batches that grow and shrink: the room for rows that are read ahead is that of the batch before.
    for size in (0, 3, 500, 20, 0, 5000, 1):
        keys = tf.constant(rng.integers(0, 400, size))
        _assert_same(call(keys), _two_calls([twin], keys, None, [0], **options))
        assert int(table.size()) == int(twin.size())


@pytest.mark.parametrize("size", [20_000, 200_000])
@pytest.mark.parametrize("storage", ["slab", "open_addressing", "index"])
def test_a_batch_that_is_worth_threads_gives_the_same(make_table, storage, size, rng):
    rows = 50_000
    table, twin = _twins(make_table, storage, 8, rows)
    for _ in range(4):
        keys = tf.constant(np.minimum(rng.zipf(1.2, size), rows - 1))
        for insert in (True, False):
            options = {"insert": insert, "missing": "zeros"}
            _assert_same(
                dedup_lookup_tables([table], keys, None, [0], **options), _two_calls([twin], keys, None, [0], **options)
            )


FEATURES = {
    "features_of_one_table": [0, 0, 0],
    "a_table_each": [0, 1, 2],
    "in_another_order": [2, 0, 1],
    "not_adjacent": [0, 1, 0, 2, 1, 0],
}


@pytest.mark.parametrize("case", FEATURES)
@pytest.mark.parametrize("mode", MODES)
def test_features_on_several_tables(make_table, case, mode, rng):
    feature_tables = FEATURES[case]
    pairs = [_twins(make_table, storage, 3) for storage in ("index", "slab", "chained")[: max(feature_tables) + 1]]
    tables, twins = zip(*pairs, strict=True)
    options = {"insert": True, "missing": "initial"}
    call = _in(mode, lambda keys, splits: dedup_lookup_tables(tables, keys, splits, feature_tables, **options))
    for _ in range(3):
        splits = np.concatenate([[0], np.cumsum(rng.integers(0, 60, len(feature_tables)))])
        keys, splits = tf.constant(rng.integers(0, 400, splits[-1])), tf.constant(splits)
        _assert_same(call(keys, splits), _two_calls(twins, keys, splits, feature_tables, **options))


def test_extreme_keys(make_table):
    keys = np.repeat(reference.EXTREME_KEYS, 2)
    table = make_table("slab", 4)
    found = tse.ops.embedding_dedup_lookup(table, keys, insert=True)
    np.testing.assert_array_equal(found.unique_keys, reference.EXTREME_KEYS)
    np.testing.assert_array_equal(found.counts, [2] * len(reference.EXTREME_KEYS))
    np.testing.assert_array_equal(found.rows, table.lookup(reference.EXTREME_KEYS))
    assert int(table.size()) == len(reference.EXTREME_KEYS)


def test_string_keys_are_fingerprinted(make_table):
    table = make_table("slab", 4)
    found = tse.ops.embedding_dedup_lookup(table, tf.constant(["a", "b", "a"]), insert=True)
    np.testing.assert_array_equal(found.inverse, [0, 1, 0])
    np.testing.assert_array_equal(found.rows, table.lookup(tf.constant(["a", "b"])))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_tables", [1, 2])
def test_the_gradient_of_each_table_is_that_of_its_unique_keys(make_table, mode, num_tables):
    tables = [_twins(make_table, "slab", 3)[0] for _ in range(num_tables)]
    keys = tf.constant([4, 6, 4, 4, 6, 8], tf.int64)
    upstream = tf.constant(np.random.default_rng(1).normal(size=(2 * num_tables + 1, 3)), tf.float32)

    def gradients():
        with tf.GradientTape() as tape:
            *_, rows = dedup_lookup_tables(
                tables, keys, [0, 3, 6], [0, num_tables - 1], insert=False, missing="initial"
            )
            loss = tf.reduce_sum(rows * upstream)
        slices = tape.gradient(loss, tables)
        assert all(isinstance(part, DistinctSlices) and part.whole is slices[0].whole for part in slices)
        return [(part.values, part.indices, part.dense_shape) for part in slices]

    want = [([4, 6, 8], 0)] if num_tables == 1 else [([4, 6], 0), ([4, 6, 8], 2)]
    for (values, indices, dense_shape), (unique, first) in zip(_in(mode, gradients)(), want, strict=True):
        np.testing.assert_array_equal(indices, unique)
        np.testing.assert_array_equal(values, upstream[first : first + len(unique)])
        np.testing.assert_array_equal(dense_shape, [2**62, 3])


@pytest.mark.parametrize("mode", MODES)
def test_an_optimizer_moves_each_row_once(make_table, mode):
    (table, _) = _twins(make_table, "slab", 3)
    keys = tf.constant([2, 4, 2, 2, 5], tf.int64)  # 5 is new
    before = table.lookup([2, 4, 5]).numpy()
    optimizer = tse.optimizers.SGD(0.5)
    optimizer.build([table])

    def step():
        with tf.GradientTape() as tape:
            found = tse.ops.embedding_dedup_lookup(table, keys, insert=True)
            values = tse.ops.embedding_duplicate(found.rows, found.inverse)
            loss = tf.reduce_sum(values)
        optimizer.apply_gradients(zip(tape.gradient(loss, [table]), [table], strict=True))

    _in(mode, step)()
    np.testing.assert_allclose(table.lookup([2, 4, 5]), before - [[1.5], [0.5], [0.5]], rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [-1, 400, 2**62])
@pytest.mark.parametrize("num_tables", [1, 2])
def test_a_key_out_of_range_changes_nothing(make_table, mode, bad, num_tables):
    tables = [make_table("slab", 3, input_dim=400) for _ in range(num_tables)]
    keys = tf.constant([7, 7, 3, bad], tf.int64)

    def call():
        return dedup_lookup_tables(tables, keys, [0, 2, 4], [0, num_tables - 1], insert=True, missing="initial")

    place = r"keys\[3\] = " if num_tables == 1 else ".*"  # of several tables, among the unique keys of its own
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)\[0, 400\), got {place}{bad}"):
        _in(mode, call)()
    assert [int(table.size()) for table in tables] == [0] * num_tables


@pytest.mark.parametrize("num_tables", [1, 2])
def test_a_full_table_is_an_error_that_changes_none(make_table, num_tables):
    tables = [make_table("slab", 3, max_rows=2) for _ in range(num_tables)]
    keys = tf.constant([1, 2, 1, 2, 3], tf.int64)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows"):
        dedup_lookup_tables(tables, keys, [0, 2, 5], [0, num_tables - 1], insert=True, missing="initial")
    assert [int(table.size()) for table in tables] == [0] * num_tables


def test_bad_arguments_are_refused(make_table):
    table = make_table("slab", 3)
    for bad, error in (([[1, 2]], BAD_ARGUMENT), ([1.5], TypeError)):
        with pytest.raises(error):
            tse.ops.embedding_dedup_lookup(table, bad)
    with pytest.raises(ValueError, match="missing must be"):
        tse.ops.embedding_dedup_lookup(table, [1], missing="nothing")
    with pytest.raises(TypeError, match="EmbeddingVariable"):
        tse.ops.embedding_dedup_lookup(tf.Variable([[1.0]]), [1])
    keys, options = tf.constant([1, 2, 3], tf.int64), {"insert": True, "missing": "initial"}
    for splits in ([0, 1, 2], [1, 2, 3], [0, 4, 3], [0, 3]):
        with pytest.raises(BAD_ARGUMENT, match="feature_splits|Dimension must be 3"):
            dedup_lookup_tables([table], keys, splits, [0, 0], **options)
    for feature_tables in ([0, 1], [0, 2], [0, -1], [1, 1]):
        with pytest.raises(BAD_ARGUMENT, match="feature_tables"):
            dedup_lookup_tables([table], keys, [0, 1, 3], feature_tables, **options)
    with pytest.raises(BAD_ARGUMENT, match=r"(?s)(?=.*\b3\b)(?=.*\b4\b)"):
        dedup_lookup_tables([table, make_table("slab", 4)], keys, [0, 1, 3], [0, 1], **options)
    assert int(table.size()) == 0


def test_shape_function(make_table):
    tables = [make_table("slab", 5), make_table("slab", 5)]
    seen = []

    def call(keys, splits):
        outputs = dedup_lookup_tables(tables, keys, splits, [0, 1, 0], insert=False, missing="initial")
        seen.append([tensor.shape.as_list() for tensor in outputs])

    for keys, splits, inverse in (([6], [4], [6]), ([None], [None], [None]), (None, None, [None])):
        specs = [tf.TensorSpec(keys, tf.int64), tf.TensorSpec(splits, tf.int64)]
        tf.function(call, input_signature=specs).get_concrete_function()
        assert seen[-1] == [[None], inverse, [None], [3], [None, 5]]


@pytest.mark.parametrize("insert", [False, True])
def test_a_batch_is_of_one_moment_while_another_thread_updates(make_table, insert):
    """The rows that were read ahead are of before an update or after it, as the others are."""
    rows, dim = 20_000, 4
    table = make_table("slab", dim)
    table.upsert(np.arange(rows), np.zeros((rows, dim), np.float32))
    keys = tf.constant(np.random.default_rng(2).permutation(np.tile(np.arange(rows), 3)))
    ones, stop = np.ones((rows, dim), np.float32), threading.Event()

    def update():
        while not stop.is_set():
            table.scatter_add(np.arange(rows), ones)

    thread = threading.Thread(target=update)
    thread.start()
    try:
        seen, lookups, deadline = set(), 0, time.monotonic() + 60
        while lookups < 60 or (len(seen) < 6 and time.monotonic() < deadline):
            lookups += 1
            values = np.unique(tse.ops.embedding_dedup_lookup(table, keys, insert=insert).rows)
            assert len(values) == 1
            seen.add(float(values[0]))
    finally:
        stop.set()
        thread.join()
    assert len(seen) >= 6
