"""The lookup in several tables."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_lookup import lookup_tables

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")


def _three_tables(make_table, dim=3, rows=20):
    """Three tables of one width and different storages; the rows of keys 0 to rows - 1 are set."""
    rng = np.random.default_rng(5)
    tables = [
        make_table("index", dim, rows=rows),
        make_table("slab", dim, seed=2),
        make_table("chained", dim, seed=3),
    ]
    for table in tables:
        table.upsert(np.arange(rows), rng.normal(size=(rows, dim)).astype(np.float32))
    return tables


SPLITS = {"all": [0, 4, 9, 12], "a_table_without_keys": [0, 6, 6, 12], "one_table_has_all": [0, 0, 12, 12]}


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("insert", [False, True])
def test_each_table_gives_the_rows_of_its_keys(make_table, splits, mode, insert, dim, rng):
    tables = _three_tables(make_table, dim)
    keys = rng.integers(0, 20, 12)
    splits = SPLITS[splits]

    def call(keys, splits):
        return lookup_tables(tables, keys, splits, insert=insert, missing="initial")

    got = (call if mode == "eager" else tf.function(call))(tf.constant(keys), tf.constant(splits, tf.int64))
    assert got.shape == (12, dim)
    for table, a, b in zip(tables, splits[:-1], splits[1:], strict=True):
        np.testing.assert_array_equal(got[a:b], table.lookup(keys[a:b]))


@pytest.mark.parametrize("missing", ["initial", "zeros"])
def test_missing_keys_are_read_and_inserted_in_their_own_table(make_table, missing):
    tables = [make_table(storage, 4, seed=s) for s, storage in enumerate(reference.HASH_STORAGES)]
    keys = tf.constant([1, 2, 1, 1, 2, 3, 5], tf.int64)
    splits = tf.constant([0, 2, 3, 3, 7], tf.int64)
    read = lookup_tables(tables, keys, splits, insert=False, missing=missing)
    assert [int(table.size()) for table in tables] == [0, 0, 0, 0]
    if missing == "zeros":
        np.testing.assert_array_equal(read, np.zeros((7, 4)))
    inserted = lookup_tables(tables, keys, splits, insert=True, missing=missing)
    assert [int(table.size()) for table in tables] == [2, 1, 0, 4]
    np.testing.assert_array_equal(inserted[:2], tables[0].lookup([1, 2]))
    np.testing.assert_array_equal(inserted[3:], tables[3].lookup([1, 2, 3, 5]))
    if missing == "initial":
        np.testing.assert_array_equal(read, inserted)
    assert np.abs(inserted[0] - inserted[2]).max() > 0  # another seed


@pytest.mark.parametrize("mode", MODES)
def test_each_table_gets_the_gradient_of_its_keys(make_table, mode, rng):
    tables = _three_tables(make_table)
    keys = tf.constant(rng.integers(0, 20, 12))
    upstream = rng.normal(size=(12, 3)).astype(np.float32)

    def gradients(splits):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(lookup_tables(tables, keys, splits, insert=False, missing="initial") * upstream)
        slices = tape.gradient(loss, tables)
        assert all(isinstance(s, tf.IndexedSlices) for s in slices)
        return [(s.values, s.indices, s.dense_shape) for s in slices]

    call = gradients if mode == "eager" else tf.function(gradients)
    for splits in SPLITS.values():
        for (values, indices, dense_shape), a, b in zip(
            call(tf.constant(splits, tf.int64)), splits[:-1], splits[1:], strict=True
        ):
            np.testing.assert_array_equal(values, upstream[a:b])
            np.testing.assert_array_equal(indices, keys[a:b])
            np.testing.assert_array_equal(dense_shape, [2**62, 3])


@pytest.mark.parametrize("mode", MODES)
def test_an_optimizer_updates_the_rows_of_each_table(make_table, mode):
    tables = _three_tables(make_table)
    before = [table.lookup(np.arange(20)).numpy() for table in tables]
    optimizer = tse.optimizers.SGD(0.5)
    optimizer.build(tables)

    def step():
        with tf.GradientTape() as tape:
            rows = lookup_tables(
                tables, tf.constant([1, 2, 1, 7], tf.int64), [0, 2, 3, 4], insert=True, missing="zeros"
            )
            loss = tf.reduce_sum(rows * [[1.0], [2.0], [3.0], [4.0]])
        optimizer.apply_gradients(zip(tape.gradient(loss, tables), tables, strict=True))

    (step if mode == "eager" else tf.function(step))()
    for table, start, steps in zip(tables, before, ({1: 1, 2: 2}, {1: 3}, {7: 4}), strict=True):
        for key, amount in steps.items():
            start[key] -= 0.5 * amount
        np.testing.assert_allclose(table.lookup(np.arange(20)), start, rtol=1e-6)


def test_second_derivatives_pass_through_the_gradients_of_several_tables(make_table):
    tables = _three_tables(make_table)[:2]
    x = tf.Variable([0.5, -1.0, 2.0])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            rows = lookup_tables(tables, tf.constant([1, 2, 3], tf.int64), [0, 1, 3], insert=False, missing="zeros")
            loss = tf.reduce_sum((x * rows) ** 2)
        total = sum(tf.reduce_sum(s.values) for s in inner.gradient(loss, tables))  # 2 x^2 row
    np.testing.assert_allclose(outer.gradient(total, x), 4 * x * tf.reduce_sum(rows, 0), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [-1, 20, 2**62])
def test_a_key_out_of_range_in_the_last_table_changes_nothing_in_the_first(make_table, mode, bad):
    tables = [make_table("slab", 3), make_table("index", 3, rows=20)]
    tables[0].lookup([5], insert=True)
    before = tables[1].lookup(np.arange(20)).numpy()

    def call():
        return lookup_tables(tables, tf.constant([7, 8, 3, bad], tf.int64), [0, 2, 4], insert=True, missing="initial")

    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)\[0, 20\).*{bad}"):
        (call if mode == "eager" else tf.function(call))()
    assert int(tables[0].size()) == 1
    np.testing.assert_array_equal(tables[0].contains([5, 7, 8]), [True, False, False])
    np.testing.assert_array_equal(tables[1].lookup(np.arange(20)), before)


def test_a_full_table_is_an_error_that_changes_none(make_table):
    tables = [make_table("slab", 3), make_table("slab", 3, max_rows=2)]
    keys = tf.constant([1, 2, 1, 2, 3], tf.int64)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|2"):
        lookup_tables(tables, keys, [0, 2, 5], insert=True, missing="initial")
    assert [int(table.size()) for table in tables] == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_tables_of_different_widths_are_an_error(make_table, mode):
    tables = [make_table("slab", 3), make_table("slab", 4)]

    def call():
        return lookup_tables(tables, tf.constant([1, 2], tf.int64), [0, 1, 2], insert=True, missing="initial")

    with pytest.raises(BAD_ARGUMENT, match=r"(?s)(?=.*\b3\b)(?=.*\b4\b)"):
        (call if mode == "eager" else tf.function(call))()
    assert [int(table.size()) for table in tables] == [0, 0]


BAD_TABLE_SPLITS = {
    "do_not_start_at_0": [1, 2, 3],
    "do_not_end_at_n": [0, 1, 2],
    "end_past_n": [0, 1, 4],
    "descend": [0, 4, 3],
    "too_short": [0, 3],
    "too_long": [0, 1, 2, 3],
    "rank_2": [[0, 1, 3]],
}


@pytest.mark.parametrize("case", BAD_TABLE_SPLITS)
@pytest.mark.parametrize("mode", MODES)
def test_bad_table_splits_are_an_error(make_table, case, mode):
    tables = [make_table("slab", 3), make_table("slab", 3)]
    splits = tf.constant(BAD_TABLE_SPLITS[case], tf.int64)

    def call():
        return lookup_tables(tables, tf.constant([7, 8, 9], tf.int64), splits, insert=True, missing="initial")

    with pytest.raises(BAD_ARGUMENT, match="table_splits|Dimension must be 3|rank 1"):
        (call if mode == "eager" else tf.function(call))()
    assert [int(table.size()) for table in tables] == [0, 0]


def test_shape_function_of_the_lookup_in_several_tables(make_table):
    tables = [make_table("slab", 5), make_table("slab", 5)]
    seen = []

    def call(keys, splits):
        seen.append(lookup_tables(tables, keys, splits, insert=False, missing="initial").shape.as_list())

    for keys, splits, want in (([6], [3], [6, 5]), ([None], [None], [None, 5]), (None, None, [None, 5])):
        specs = [tf.TensorSpec(keys, tf.int64), tf.TensorSpec(splits, tf.int64)]
        tf.function(call, input_signature=specs).get_concrete_function()
        assert seen[-1] == want
