"""tse.check: walks the tables of a variable, layer or model, and raises unless they are whole.

tests/cc/table_check_test.cc damages the C++ tables in every way; here are those that Python can bring about.
"""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras
from test_resharding import on_servers, table_on

import tf_sparse_emb as tse

DIM = 3


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_it_returns_how_many_rows_it_has_found(make_table, storage, count):
    table = make_table(storage, DIM, rows=6000)
    table.remove(reference.key_universe(storage, 6000))
    table.lookup(reference.key_universe(storage, 6000)[:count], insert=True)
    rows = tse.check(table)
    assert rows.dtype == tf.int64 and rows.shape == ()
    assert int(rows) == count == int(tf.function(lambda: tse.check(table))())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_with_its_table_and_key(make_table, storage, bad):
    table = make_table(storage, DIM, name="item")
    table.upsert([5, 7], np.array([[1, 2, 3], [1, bad, 3]], np.float32))
    with pytest.raises(tf.errors.DataLossError, match=rf"table 'item': embedding\[1\] of key 7 is {bad}"):
        tse.check(table)
    assert int(tse.check(table, finite=False)) == int(table.size())
    table.upsert([7], np.ones((1, DIM), np.float32))
    tse.check(table)


def test_state_that_is_not_finite_is_named(make_table, storage):
    table = make_table(storage, DIM, name="item")
    table.bind("row_wise_adagrad")
    tse.ops.embedding_update(
        table, [7], np.full((1, DIM), 1e30, np.float32), "row_wise_adagrad", learning_rate=0.1, check_finite=False
    )
    with pytest.raises(tf.errors.DataLossError, match=r"table 'item': state\[0\] of key 7 is inf"):
        tse.check(table)


@pytest.mark.parametrize("servers", [1, 2, 5])
def test_of_a_table_on_servers_every_shard_is_walked(servers):
    table = table_on(servers)
    table.lookup(np.arange(300), insert=True)
    assert int(tse.check(table)) == 300
    shard = table.shards[-1]
    key = next(k for k in range(300) if reference.server_of_key(np.array([k]), servers)[0] == servers - 1)
    shard.upsert(tf.constant([key], tf.int64), tf.fill([1, 4], np.nan))
    with pytest.raises(tf.errors.DataLossError, match=rf"embedding\[0\] of key {key} is nan"):
        tse.check(table)


def test_a_key_on_a_server_that_is_not_its_own_is_named():
    table = table_on(3)
    table.lookup(np.arange(300), insert=True)
    (key,) = np.flatnonzero(reference.server_of_key(np.arange(300), 3) == 2)[:1]
    table.shards[0].upsert(tf.constant([key], tf.int64), tf.zeros([1, 4]))
    with pytest.raises(tf.errors.DataLossError, match=f"key {key} is on server 0, not on its own, 2"):
        tse.check(table)


def _layers():
    collection = tse.EmbeddingCollection(
        [tse.TableConfig("item", None, DIM), tse.TableConfig("shop", 50, DIM)],
        [tse.FeatureConfig("clicked", "item"), tse.FeatureConfig("at", "shop")],
    )
    collection({"clicked": np.arange(20), "at": np.arange(20)}, training=True)
    keys = keras.Input([2], dtype="int64")
    model = keras.Model(keys, keras.layers.Dense(1)(tse.Embedding(None, DIM, combiner="sum")(keys)))
    model.layers[1](np.arange(8).reshape(4, 2), training=True)
    embedding = tse.Embedding(40, DIM)
    embedding(np.arange(3))
    legacy = tf_keras.Sequential([tf_keras.Input([2], dtype="int64"), tse.legacy.Embedding(None, DIM)])
    legacy.layers[0](np.arange(8).reshape(4, 2), training=True)
    return {
        "Embedding": (embedding, 40),
        "EmbeddingCollection": (collection, 20 + 50),
        "Model": (model, 8),
        "legacy.Embedding": (legacy.layers[0], 8),
        "a model of tf_keras": (legacy, 8),
    }


@pytest.mark.parametrize("kind", _layers())
def test_of_a_layer_or_model_all_tables_are_walked(kind):
    owner, rows = _layers()[kind]
    assert int(tse.check(owner)) == rows


def test_the_table_of_a_collection_that_is_damaged_is_named():
    layer, _ = _layers()["EmbeddingCollection"]
    layer.tables["shop"].upsert([4], np.full((1, DIM), np.nan, np.float32))
    with pytest.raises(tf.errors.DataLossError, match="table '.*shop': .* of key 4 is nan"):
        tse.check(layer)


@pytest.mark.parametrize("other", [None, 7, "table", np.zeros(3), tf.zeros([2])], ids=repr)
def test_what_has_no_tables_is_an_error(other):
    with pytest.raises(TypeError, match="tables must be a tse.EmbeddingVariable, a layer or a model, got"):
        tse.check(other)


def test_a_layer_without_a_table_is_an_error():
    for layer in (tse.Embedding(None, DIM, name="item"), keras.layers.Dense(1, name="item")):
        with pytest.raises(ValueError, match=f"at least one table, got {type(layer).__name__} 'item' without any"):
            tse.check(layer)
    with pytest.raises(ValueError, match="finite must be True or False, got 1"):
        tse.check(tse.EmbeddingVariable(DIM), finite=1)


def test_a_table_is_whole_after_a_load_of_any_kind(make_table, storage, tmp_path):
    table = make_table(storage, DIM, counts="seen")
    table.bind("row_wise_adam")
    table.lookup(np.arange(500), insert=True)
    table.remove(np.arange(0, 500, 3))
    table.save(tmp_path / "table")
    for servers in (0, 3):
        with on_servers(servers):
            other = make_table(storage, DIM, counts="seen")
        if servers == 0:
            other.load(tmp_path / "table")
        other.assign(table.numpy())
        assert int(tse.check(other)) == int(table.size())
