"""tse.EmbeddingVariable as a Keras variable: attributes, gradients, custom loops, what it refuses."""

import gc
import weakref

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse


def test_attributes_are_the_arguments():
    initializer = keras.initializers.RandomUniform(-1.0, 1.0)
    table = tse.EmbeddingVariable(
        7, initializer=initializer, storage="chained", seed=5, max_rows=100, trainable=False, name="item"
    )
    assert isinstance(table, keras.Variable)
    assert (table.dim, table.input_dim, table.storage, table.seed, table.max_rows) == (7, None, "chained", 5, 100)
    assert (table.name, table.trainable, table.dtype) == ("item", False, "float32")
    assert isinstance(table.initializer, keras.initializers.RandomUniform)
    assert table.initializer.minval == -1.0


def test_defaults():
    table = tse.EmbeddingVariable(4)
    assert (table.storage, table.name, table.trainable, table.max_rows) == ("slab", "embeddings", True, None)
    assert table.path.endswith("embeddings")
    assert isinstance(table.seed, int)
    assert tse.EmbeddingVariable(4, input_dim=10).storage == "index"


def test_the_shape_stays_zero_rows(make_table, storage):
    table = make_table(storage, 5)
    table.lookup(np.arange(10), insert=True)
    assert tuple(table.shape) == (0, 5)


@pytest.mark.parametrize("read", [np.asarray, np.array], ids=["asarray", "array"])
def test_reading_it_as_an_array_is_a_type_error_not_an_empty_array(make_table, storage, read):
    with pytest.raises(TypeError, match="(?i)export|numpy"):
        read(make_table(storage, 5))


@pytest.mark.parametrize("method", ["size", "memory_bytes"])
def test_size_and_memory_are_int64_scalars_in_eager_and_graph(make_table, storage, method):
    table = make_table(storage, 5)
    table.lookup(np.arange(10), insert=True)
    eager, graph = getattr(table, method)(), tf.function(lambda: getattr(table, method)())()
    assert (eager.dtype, eager.shape, graph.dtype, graph.shape) == (tf.int64, (), tf.int64, ())
    assert int(eager) == int(graph) > 0


@pytest.mark.parametrize("keys", [5, [1, 2], [[1], [99]]], ids=["rank0", "rank1", "rank2"])
def test_contains_has_the_shape_of_keys(make_table, hash_storage, keys):
    table = make_table(hash_storage, 2)
    table.lookup([1, 5], insert=True)
    found = table.contains(tf.constant(keys, tf.int64))
    assert found.dtype == tf.bool
    np.testing.assert_array_equal(found, np.isin(keys, [1, 5]))


def test_export_of_an_empty_table(make_table, hash_storage):
    table = make_table(hash_storage, 3)
    keys, rows = table.export()
    assert (tuple(keys.shape), tuple(rows.shape)) == ((0,), (0, 3))
    table.bind("row_wise_adagrad")
    assert tuple(table.export(with_state=True)[1].shape) == (0, 4)


def test_two_tables_of_one_name_are_two_tables(make_table, hash_storage):
    first, second = (make_table(hash_storage, 3, name="item") for _ in range(2))
    first.upsert([1], np.full((1, 3), 9.0, np.float32))
    assert int(second.size()) == 0
    assert (second.lookup([1]).numpy() != 9.0).all()
    other_width = make_table(hash_storage, 5, name="item")
    assert other_width.lookup([1]).shape == (1, 5)


def test_a_table_made_in_a_function_scope_is_usable_outside(hash_storage):
    made = []

    @tf.function
    def build_and_look_up(keys):
        if not made:
            made.append(tse.EmbeddingVariable(3, storage=hash_storage, seed=4))
        return made[0].lookup(keys, insert=True)

    rows = build_and_look_up(tf.constant([1, 2], tf.int64))
    np.testing.assert_array_equal(made[0].lookup([1, 2], missing="zeros"), rows)


def test_tables_are_arguments_of_a_function_which_is_traced_for_each(make_table, storage):
    first, second = (make_table(storage, 2, rows=20, initializer="ones") for _ in range(2))
    traced = []

    @tf.function
    def step(tables, keys, scale):
        traced.append(tables)
        with tf.GradientTape() as tape:
            loss = scale * tf.reduce_sum(tables["one"].lookup(keys))
        gradient = tape.gradient(loss, tables["one"])
        tables["other"].scatter_add(gradient.indices, gradient.values)
        return gradient

    keys = tf.constant([3, 7, 3], tf.int64)
    for tables in ({"one": first, "other": second}, {"one": second, "other": first}) * 2:
        before = tables["other"].lookup(keys).numpy()
        gradient = step(tables, keys, tf.constant(2.0))
        np.testing.assert_array_equal(gradient.indices, keys)
        np.testing.assert_array_equal(gradient.values, np.full([3, 2], 2.0))
        np.testing.assert_array_equal(tables["other"].lookup(keys) - before, [[4.0, 4.0], [2.0, 2.0], [4.0, 4.0]])
    assert len(traced) == 2


def test_a_function_does_not_keep_the_table_that_was_its_argument(make_table, hash_storage):
    look_up = tf.function(lambda table, keys: table.lookup(keys))
    table = make_table(hash_storage, 3)
    look_up(table, tf.constant([1], tf.int64))
    resource = weakref.ref(table.table)
    del table
    gc.collect()
    assert resource() is None


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_custom_loop_trains_it(make_table, storage, mode):
    """Matrix factorisation by hand: the rows follow plain gradient descent."""
    table = make_table(storage, 2, rows=20, initializer="ones")
    optimizer = tse.optimizers.SGD(0.25)
    optimizer.build([table])

    def step(keys, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((table.lookup(keys) - targets) ** 2)
        optimizer.apply_gradients([(tape.gradient(loss, table), table)])

    step = step if mode == "eager" else tf.function(step)
    keys, targets = tf.constant([3, 7, 3], tf.int64), tf.constant([[1.0, 5.0], [0.0, 2.0], [3.0, 1.0]])
    step(keys, targets)
    # row 3: gradient 2(1-1) + 2(1-3) = -4, 2(1-5) + 2(1-1) = -8; row 7: 2(1-0) = 2, 2(1-2) = -2
    np.testing.assert_allclose(table.lookup([3, 7, 4]), [[2.0, 3.0], [0.5, 1.5], [1.0, 1.0]])


def test_it_learns_with_row_wise_adam_until_the_loss_is_small(make_table, storage, rng):
    keys = reference.key_universe(storage, 30)
    targets = rng.normal(size=(30, 4)).astype(np.float32)
    table = make_table(storage, 4, rows=30)
    optimizer = tse.optimizers.RowWiseAdam(0.05)
    optimizer.build([table])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((table.lookup(keys) - targets) ** 2)
        optimizer.apply_gradients([(tape.gradient(loss, table), table)])

    for _ in range(200):
        step()
    np.testing.assert_allclose(table.lookup(keys), targets, atol=0.05)


BAD = {
    "dim_zero": ("dim", {"dim": 0}),
    "dim_negative": ("dim", {"dim": -3}),
    "dim_float": ("dim", {"dim": 2.5}),
    "input_dim_zero": ("input_dim", {"dim": 3, "input_dim": 0}),
    "input_dim_negative": ("input_dim", {"dim": 3, "input_dim": -5}),
    "index_without_input_dim": ("input_dim", {"dim": 3, "storage": "index"}),
    "unknown_storage": (
        "(?s)(?=.*unordered_map)(?=.*open_addressing)(?=.*chained)(?=.*slab)(?=.*index).*btree",
        {"dim": 3, "storage": "btree"},
    ),
    "max_rows_zero": ("max_rows", {"dim": 3, "max_rows": 0}),
    "max_rows_negative": ("max_rows", {"dim": 3, "max_rows": -1}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_an_error_that_names_it(case):
    match, arguments = BAD[case]
    with pytest.raises((ValueError, TypeError), match=match):
        tse.EmbeddingVariable(**arguments)
