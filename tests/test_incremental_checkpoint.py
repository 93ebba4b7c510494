"""`tse.saving.IncrementalCheckpoint`: full saves and increments are the model."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from incremental_cases import chain_of, checkpoint_of, kinds_of, restored_from, save_chain, table_of, train
from saving_cases import OPTIMIZERS, assert_same, contents, differ, make_model, tables_of

import tf_sparse_emb as tse

STEPS = 8


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """runs[optimizer] = (contents at the last save, contents of the uninterrupted run, folder of what came back)."""
    root = tmp_path_factory.mktemp("runs")
    runs = {}
    for optimizer in OPTIMIZERS:
        folder = root / optimizer
        model = make_model(optimizer)
        checkpoint = checkpoint_of(model, folder / "checkpoints", max_increments=5)
        saves = np.random.default_rng(len(runs)).integers(0, 2, STEPS)
        saves[[1, -1]] = 1
        for step in range(STEPS):
            train(model, 1, first=step)
            if saves[step]:
                checkpoint.save()
        saved = contents(model)
        train(model, STEPS, first=STEPS)
        runs[optimizer] = saved, contents(model), folder
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *filter(None, sys.path)])}
    program = [sys.executable, str(here / "incremental_cases.py"), str(root), str(STEPS), *OPTIMIZERS]
    result = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return runs


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_model_goes_on_as_if_never_interrupted(runs, optimizer):
    saved, uninterrupted, folder = runs[optimizer]
    assert differ(saved, uninterrupted)
    assert_same(dict(np.load(folder / "restored.npz")), saved)
    assert_same(dict(np.load(folder / "trained.npz")), uninterrupted)


def test_random_changes_of_every_storage_come_back(storage, tmp_path, rng):
    table = table_of(storage)
    checkpoint = chain_of(tmp_path, table, max_increments=3)
    for save in range(9):
        for _ in range(rng.integers(4)):
            keys = rng.integers(0, 3000, 50)
            change = rng.integers(3)
            if change == 0:
                table.lookup(keys, insert=True)
            elif change == 1:
                table.scatter_add(keys, rng.normal(size=(50, 4)).astype(np.float32))
            else:
                table.remove(keys)
        if save == 5:
            table.clear()
        checkpoint.save()
        again, restored = restored_from(tmp_path, storage)
        assert again.numpy() == table.numpy()
        assert (restored.number, restored.problem) == (save + 1, "")


def test_a_chain_goes_into_another_storage(storage, tmp_path):
    table, _, _ = save_chain(tmp_path)
    again, _ = restored_from(tmp_path, storage)
    keys = table.export()[0]
    np.testing.assert_array_equal(again.lookup(keys), table.lookup(keys))
    if storage != "index":
        assert again.numpy() == table.numpy()


def test_an_increment_costs_what_has_changed(tmp_path):
    def bytes_of(folder):
        return sum(path.stat().st_size for path in Path(folder).iterdir())

    table = tse.EmbeddingVariable(16, seed=1)
    table.lookup(np.arange(200_000), insert=True)
    checkpoint = chain_of(tmp_path, table)
    full = bytes_of(checkpoint.save())
    table.scatter_add(np.arange(1000) * 7, np.ones((1000, 16), np.float32))
    table.lookup(np.arange(5000), insert=True)  # reads
    assert bytes_of(checkpoint.save()) < 0.02 * full
    empty = bytes_of(checkpoint.save())
    assert empty < 0.001 * full
    again = tse.EmbeddingVariable(16, seed=1)
    assert chain_of(tmp_path, again).restore().increments == 2
    assert again.numpy() == table.numpy()


def test_a_full_save_comes_first_when_asked_and_after_max_increments(tmp_path):
    table = table_of()
    checkpoint = chain_of(tmp_path, table, max_increments=2, max_to_keep=9)
    assert checkpoint.latest is None
    paths = [checkpoint.save(full=full) for full in [False, False, True, False, False, False, False]]
    assert kinds_of(tmp_path) == "FIFIIFI"
    assert checkpoint.latest == paths[-1] == str(tmp_path / "save-00000007")


def test_what_replaces_the_rows_makes_the_next_save_full(tmp_path):
    table = table_of()
    table.lookup([1, 2], insert=True)
    table.save(tmp_path / "file")
    checkpoint = chain_of(tmp_path, table, max_to_keep=9)
    for change in (
        lambda: None,
        table.clear,
        lambda: table.load(tmp_path / "file"),
        lambda: table.assign(table.numpy()),
        lambda: table.bind("adagrad"),
        lambda: table.lookup([3], insert=True),
    ):
        change()
        checkpoint.save()
        again, _ = restored_from(tmp_path)
        assert again.numpy().rows.shape == table.numpy().rows.shape
        np.testing.assert_array_equal(again.lookup([1, 2, 3]), table.lookup([1, 2, 3]))
    assert kinds_of(tmp_path) == "FFFFFI"


def test_only_the_newest_chains_are_kept(tmp_path):
    _, checkpoint, _ = save_chain(tmp_path, saves=8, max_increments=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest.json",
        *(f"save-0000000{number}" for number in (5, 6, 7, 8)),
    ]
    assert kinds_of(tmp_path) == "FIFI"


def test_a_restored_program_goes_on_with_increments(tmp_path):
    save_chain(tmp_path)
    table = table_of()
    checkpoint = chain_of(tmp_path, table)
    checkpoint.restore()
    table.lookup([500], insert=True)
    checkpoint.save()
    assert kinds_of(tmp_path) == "FIIII"
    again, _ = restored_from(tmp_path)
    assert again.numpy() == table.numpy()


def test_two_checkpoints_of_one_table_know_nothing_of_each_other(tmp_path):
    table = table_of()
    one, other = (chain_of(tmp_path / name, table) for name in ("one", "other"))
    for step in range(6):
        table.upsert([step, 50 + step], np.full((2, 4), step, np.float32))
        (one if step % 2 else other).save()
        if step == 2:
            one.save()
    one.save()
    other.save()
    for name in ("one", "other"):
        again, _ = restored_from(tmp_path / name)
        assert again.numpy() == table.numpy()


def test_a_save_of_another_object_in_the_folder_makes_the_next_full(tmp_path):
    table = table_of()
    one, other = (chain_of(tmp_path, table, max_to_keep=9) for _ in range(2))
    for checkpoint in (one, one, other, one, one):
        table.lookup([int(table.size())], insert=True)
        checkpoint.save()
    assert kinds_of(tmp_path) == "FIFFI"
    again, _ = restored_from(tmp_path)
    assert again.numpy() == table.numpy()


def test_several_models_and_tables_in_custom_layers(tmp_path):
    class Block(keras.layers.Layer):
        def __init__(self, seed):
            super().__init__()
            self.parts = [
                tse.Embedding(None, 3, combiner="sum", seed=seed),
                {"deep": tse.Embedding(None, 3, seed=seed)},
                keras.layers.Dense(3),
            ]

        def call(self, keys, training=None):
            wide, deep, dense = self.parts
            deep_rows = keras.ops.sum(deep["deep"](keys, training=training), 1)
            return wide(keys, training=training) + dense(deep_rows)

    def make(seed):
        models = {}
        for name in ("one", "two"):
            keys = keras.Input([2], dtype="int64")
            models[name] = keras.Model(keys, keras.layers.Dense(1)(Block(seed)(keys)))
        extra = tf.Module()
        extra.table, extra.step = table_of(seed=seed), tf.Variable(seed)
        return {**models, "extra": extra}

    def content(objects):
        weights = [w for name in ("one", "two") for w in objects[name].get_weights()]
        tables = [w for w in weights if isinstance(w, tse.TableSnapshot)]
        assert len(tables) == 4
        assert all(len(table.keys) > 0 for table in tables)
        return weights, objects["extra"].table.numpy(), int(objects["extra"].step)

    objects = make(1)
    checkpoint = tse.saving.IncrementalCheckpoint(tmp_path, **objects)
    for step in range(3):
        for name in ("one", "two"):
            objects[name](np.array([[step, 5], [10**9, 7 + step]]), training=True)
        objects["extra"].table.lookup([step], insert=True)
        objects["extra"].step.assign(step + 10)
        checkpoint.save()
    again = make(2)
    tse.saving.IncrementalCheckpoint(tmp_path, **again).restore()
    (weights, table, step), (want, want_table, want_step) = content(again), content(objects)
    assert (table, step) == (want_table, want_step)
    for got, expected in zip(weights, want, strict=True):
        assert got == expected if isinstance(got, tse.TableSnapshot) else np.array_equal(got, expected)


def test_nothing_saved_is_nothing_restored(tmp_path):
    table, restored = restored_from(tmp_path / "none")
    assert restored is None
    assert int(table.size()) == 0


def _log_of(checkpoint, table):
    """A function that says whether the table has the checkpoint's only log."""
    (log,) = checkpoint._logs.values()
    (number,), handle = log._logs, table.table.resource_handle

    def is_there():
        try:
            tse.gen_ops.library.sparse_emb_embedding_table_changes(handle, number)
        except tf.errors.InvalidArgumentError as error:
            assert f"has no log {number}" in str(error)
            return False
        return True

    return is_there


def _goes(is_there):
    """Whether the log goes; another thread closes it."""
    deadline = time.monotonic() + 20
    while is_there() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_there()


def _saved_checkpoint(folder):
    table = table_of()
    checkpoint = chain_of(folder, table)
    checkpoint.save()
    return table, [checkpoint]


def test_a_checkpoint_that_is_gone_logs_no_more(tmp_path):
    table, checkpoints = _saved_checkpoint(tmp_path)
    is_there = _log_of(checkpoints[0], table)
    assert is_there()
    checkpoints.clear()
    gc.collect()
    assert _goes(is_there)


def test_a_checkpoint_that_goes_while_a_function_is_traced_is_not_traced(tmp_path):
    """Nor does it wait for the graph's lock, which whoever builds an op holds when garbage is collected."""
    table, checkpoints = _saved_checkpoint(tmp_path)
    is_there = _log_of(checkpoints[0], table)

    @tf.function
    def traced():
        checkpoints.clear()
        gc.collect()
        return tf.constant(1)

    operations = traced.get_concrete_function().graph.get_operations()
    assert not [one.name for one in operations if "Log" in one.type]
    assert _goes(is_there)


def test_a_checkpoint_that_goes_while_the_table_is_locked_waits_for_nobody(tmp_path):
    table, checkpoints = _saved_checkpoint(tmp_path)
    is_there = _log_of(checkpoints[0], table)
    blocks = table.table.saved_blocks(64)
    next(blocks)  # the table is locked until the last
    checkpoints.clear()
    gc.collect()
    assert sum(1 for _ in blocks) > 1
    assert _goes(is_there)


def test_the_tables_of_other_checkpoints_are_not_left_out(tmp_path):
    model = make_model()
    train(model, 2)
    checkpoint_of(model, tmp_path / "chain").save()
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "whole"))
    again = make_model()
    tf.train.Checkpoint(model=again).read(path).expect_partial()
    for one, other in zip(tables_of(again), tables_of(model), strict=True):
        assert one.numpy() == other.numpy()
