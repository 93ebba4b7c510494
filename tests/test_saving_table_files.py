"""`EmbeddingVariable.save` and `load`: what a table is after them, and what is refused."""

import resource
import shutil
import warnings

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

KEYS = np.array([3, 17, 29, 5, 11], np.int64)


def _filled(make_table, storage="slab", rule="row_wise_adagrad", dim=4, **kwargs):
    table = make_table(storage, dim, rows=30, **kwargs)
    table.bind(rule)
    table.lookup(KEYS, insert=True)
    rate = {"learning_rate": 0.5}
    tse.ops.embedding_update(table, KEYS, np.random.default_rng(1).normal(size=(5, dim)), rule, **rate)
    return table


@pytest.mark.parametrize("other", reference.STORAGES)
def test_a_table_comes_back_in_any_storage(make_table, storage, other, tmp_path):
    saved = _filled(make_table, storage, counts="seen")
    saved.add_counts(KEYS, np.arange(5.0)[:, None])
    saved.save(tmp_path / "table")
    loaded = make_table(other, 4, rows=30, counts="seen", seed=99)
    loaded.load(tmp_path / "table")
    want = saved.numpy()
    if other == "index" != storage:
        got = loaded.read_rows(want.keys, with_state=True)
        np.testing.assert_array_equal(got, np.concatenate([want.rows, want.state], 1))
        np.testing.assert_array_equal(loaded.key_counts(want.keys), want.counts)
    else:
        assert loaded.numpy() == want
    assert loaded.seed == saved.seed == 11
    np.testing.assert_array_equal(loaded.lookup([0, 1, 2]), saved.lookup([0, 1, 2]))


@pytest.mark.parametrize("initializer", ["uniform", "glorot_uniform"])
def test_rows_that_an_index_table_does_not_find_have_their_initial_values(make_table, initializer, tmp_path):
    saved = _filled(make_table, "chained")
    saved.save(tmp_path / "table")
    loaded = make_table("index", 4, rows=30, initializer=initializer, padding_key=7)
    fresh = make_table("index", 4, rows=30, initializer=initializer, padding_key=7)
    loaded.upsert(np.arange(30), np.ones((30, 4)))
    loaded.load(tmp_path / "table")
    assert int(loaded.size()) == 30
    others = np.setdiff1d(np.arange(30), KEYS)
    np.testing.assert_array_equal(loaded.lookup(others), fresh.lookup(others))
    np.testing.assert_array_equal(loaded.lookup(KEYS), saved.lookup(KEYS))


def test_rows_that_were_removed_from_an_index_table_are_not_there_again(make_table, tmp_path):
    saved = _filled(make_table, "index")
    saved.remove([5, 6])
    saved.save(tmp_path / "table")
    loaded = make_table("index", 4, rows=30)
    loaded.load(tmp_path / "table")
    assert loaded.numpy() == saved.numpy()


def test_the_table_holds_the_rows_of_the_file_and_no_others(make_table, hash_storage, tmp_path):
    saved = _filled(make_table, hash_storage)
    saved.save(tmp_path / "table")
    loaded = _filled(make_table, hash_storage)
    loaded.lookup(np.arange(100, 200), insert=True)
    loaded.load(tmp_path / "table")
    assert loaded.numpy() == saved.numpy()


def test_state_waits_for_the_first_optimizer_of_its_rule(make_table, rule, tmp_path):
    saved = make_table("slab", 3)
    saved.bind(rule)
    saved.lookup(KEYS, insert=True)
    state = saved.numpy()
    state.state = np.random.default_rng(2).normal(size=state.state.shape).astype(np.float32)
    saved.assign(state)
    saved.save(tmp_path / "table")
    loaded = make_table("slab", 3)
    loaded.load(tmp_path / "table")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.bind(rule)
        assert loaded.numpy() == state
        loaded.bind(rule)
    fresh = make_table("slab", 3)
    fresh.bind(rule)
    fresh.lookup(KEYS, insert=True)
    np.testing.assert_array_equal(loaded.numpy().state, fresh.numpy().state)


def test_state_of_another_rule_is_dropped_with_a_warning_that_names_both(make_table, tmp_path):
    saved = _filled(make_table)
    saved.save(tmp_path / "table")
    bound = make_table("slab", 4)
    bound.bind("momentum")
    with pytest.warns(UserWarning, match="bound to rule momentum: the state of rule row_wise_adagrad in .* is dropped"):
        bound.load(tmp_path / "table")
    assert not bound.numpy().state.any()
    np.testing.assert_array_equal(bound.lookup(KEYS), saved.lookup(KEYS))
    later = make_table("slab", 4)
    later.load(tmp_path / "table")
    with pytest.warns(UserWarning, match="the state of rule row_wise_adagrad .* is dropped, .* that of rule momentum"):
        later.bind("momentum")
    assert not later.numpy().state.any()


def test_an_update_by_the_op_needs_no_new_binding_after_a_load(make_table, tmp_path):
    saved = _filled(make_table)
    saved.save(tmp_path / "table")
    loaded = make_table("slab", 4)
    loaded.load(tmp_path / "table")
    for table in (saved, loaded):
        tse.ops.embedding_update(table, [3, 1000], np.ones((2, 4)), "row_wise_adagrad", learning_rate=1.0)
    assert loaded.numpy() == saved.numpy()


def test_another_initializer_is_kept_with_a_warning(make_table, tmp_path):
    _filled(make_table).save(tmp_path / "table")
    loaded = make_table("slab", 4, initializer="ones")
    with pytest.warns(
        UserWarning, match=r"begins new rows by constant\(1, 0\), the table in .* by uniform\(-0.05, 0.05\)"
    ):
        loaded.load(tmp_path / "table")
    np.testing.assert_array_equal(loaded.lookup([1000]), np.ones((1, 4)))


# What is refused; the file is damaged byte by byte in tests/cc/table_file_test.cc.


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped": (_flip, "is damaged: the checksum of .* does not match"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "is cut off: it ends after"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "another file": (lambda path: path.write_bytes(b"PK\x03\x04" * 99), "is no table file"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_named_and_leaves_the_table(make_table, storage, case, tmp_path):
    saved = _filled(make_table, storage)
    path = tmp_path / "table"
    saved.save(path)
    damage, text = DAMAGE[case]
    damage(path)
    table = _filled(make_table, storage, seed=5)
    before = table.numpy()
    with pytest.raises(tf.errors.DataLossError, match=f"'{path}' {text}"):
        table.load(path)
    assert table.numpy() == before
    assert table.seed == 5


def test_a_file_that_does_not_fit_is_refused_and_leaves_the_table(make_table, tmp_path):
    wide, path = _filled(make_table, dim=5), tmp_path / "table"
    wide.save(path)
    table = _filled(make_table)
    before = table.numpy()
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=f"has rows of width 4, but '{path}' holds rows of width 5"
    ):
        table.load(path)
    _filled(make_table).save(path)
    with pytest.raises(tf.errors.NotFoundError, match="cannot open .*absent"):
        table.load(tmp_path / "absent")
    assert table.numpy() == before
    for options in ({"storage": "index"}, {"storage": "slab", "input_dim": 20}):
        narrow = make_table(dim=4, **{"rows": 20, **options})
        before = narrow.numpy()
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 20\), got .*'\)"):
            narrow.load(path)
        assert narrow.numpy() == before
    small = make_table("slab", 4, max_rows=4)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows = 4 and cannot take the 5 rows of"):
        small.load(path)


def test_a_full_disk_is_an_error_and_leaves_the_file_that_was_there(make_table, tmp_path):
    path = tmp_path / "table"
    _filled(make_table).save(path)
    before = path.read_bytes()
    large = make_table("slab", 4)
    large.lookup(np.arange(10_000), insert=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        with pytest.raises(tf.errors.ResourceExhaustedError, match=f"cannot write to '{path}.*File too large"):
            large.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [file.name for file in tmp_path.iterdir()] == ["table"]
    assert path.read_bytes() == before


def test_a_save_into_a_folder_that_is_not_there_names_the_file(make_table, tmp_path):
    with pytest.raises(tf.errors.NotFoundError, match="none/table.*No such file or directory"):
        _filled(make_table).save(tmp_path / "none" / "table")


def test_a_file_moves_between_folders(make_table, tmp_path):
    saved = _filled(make_table)
    saved.save(tmp_path / "table")
    shutil.move(tmp_path / "table", tmp_path / "items")
    loaded = make_table("slab", 4)
    loaded.load(str(tmp_path / "items"))
    assert loaded.numpy() == saved.numpy()


def test_the_seed_that_was_loaded_is_in_the_config_of_the_layer(tmp_path):
    saved, loaded = (tse.Embedding(None, 4, seed=seed) for seed in (1, 2))
    saved(np.arange(9), training=True)
    saved.embeddings.save(tmp_path / "table")
    loaded.build()
    loaded.embeddings.load(tmp_path / "table")
    assert loaded.get_config()["seed"] == 1
    again = tse.Embedding.from_config(loaded.get_config())
    np.testing.assert_array_equal(again(np.arange(50, 60)), saved(np.arange(50, 60)))
    assert keras.saving.serialize_keras_object(loaded)["config"]["seed"] == 1
