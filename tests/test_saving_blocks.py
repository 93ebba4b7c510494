"""Tables that go through Python in blocks, to and from Keras' files: whole, or not at all, and nobody waits."""

import errno
import os
import signal
import threading
import time

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb import keras_files

BLOCK = 1000


def _table(keys=500):
    table = tse.EmbeddingVariable(8, seed=1, name="item")
    table.bind("row_wise_adagrad")
    table.lookup(np.arange(keys), insert=True)
    return table


def _file(table, path):
    table.save(path / "item.table")
    return (path / "item.table").read_bytes()


def _blocks(table, size=BLOCK):
    return [block.copy() for block in table.table.saved_blocks(size)]


def _threads():
    return len(os.listdir("/proc/self/task"))


def _no_thread_stays(threads):
    """Whether there are so many again; the system counts a thread for a moment after its end was waited for."""
    deadline = time.monotonic() + 20
    while _threads() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    return _threads() <= threads


def _is_free(table):
    """Whether the table can be changed; a lock that nobody gives back would keep this waiting."""
    change = threading.Thread(target=lambda: [table.lookup([-1], insert=True), table.remove([-1])], daemon=True)
    change.start()
    change.join(timeout=20)
    return not change.is_alive()


class Store(dict):
    """What `keras_files` takes for a store of Keras; at a number of blocks it calls `fail`."""

    def __init__(self, *args, fail_at=-1, fail=None):
        super().__init__(*args)
        self.left, self.fail = fail_at, fail

    def _count(self):
        self.left -= 1
        if self.left == -1:
            self.fail()

    def __setitem__(self, name, block):
        self._count()
        super().__setitem__(name, np.array(block))

    def __getitem__(self, name):
        self._count()
        return super().__getitem__(name)


def _raise(error):
    def fail():
        raise error

    return fail


def _interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


FAILURES = {
    "full disk": (_raise(OSError(errno.ENOSPC, "No space left on device")), OSError, "No space left"),
    "memory": (_raise(MemoryError("no memory")), MemoryError, "no memory"),
    "interrupt": (_interrupt, KeyboardInterrupt, None),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(keras_files, "_BLOCK_BYTES", BLOCK)


@pytest.mark.parametrize("size", [1, 999, 1 << 22])
def test_blocks_are_the_bytes_of_the_file(size, tmp_path):
    table = _table(100)
    blocks = _blocks(table, size)
    assert {len(block) for block in blocks[:-1]} <= {size} and 0 < len(blocks[-1]) <= size
    assert np.concatenate(blocks).tobytes() == _file(table, tmp_path)


def test_a_weights_file_holds_the_bytes_of_the_table_s_file(tmp_path):
    keys = keras.Input([1], dtype="int64")
    model = keras.Model(keys, tse.Embedding(None, 8, combiner="sum")(keys))
    model(np.arange(500).reshape(-1, 1), training=True)
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5") as file:
        group = file["layers/embedding/vars"]
        blocks = [group[f"embeddings.{i}"][...] for i in range(len(group))]
    assert len(blocks) > 10
    assert np.concatenate(blocks).tobytes() == _file(model.layers[1].embeddings, tmp_path)


def test_blocks_of_any_size_are_loaded():
    table = _table()
    content = np.concatenate(_blocks(table))
    for size in (7, 4096, len(content)):
        loaded = _table(3)
        parts = [content[i : i + size] for i in range(0, len(content), size)]
        loaded.table.load_blocks([*parts, content[:0]], source="there")
        assert loaded.numpy() == table.numpy()


def test_blocks_pass_while_a_function_is_traced():
    table, loaded = _table(), _table(0)

    @tf.function
    def traced():
        loaded.table.load_blocks(table.table.saved_blocks(BLOCK), source="there")

    traced.get_concrete_function()
    assert loaded.numpy() == table.numpy()


@pytest.mark.parametrize("at", [0, 1, 5])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_store_that_fails_half_way_through_a_save_leaves_the_table_free(failure, at):
    fail, error, text = FAILURES[failure]
    table = _table()
    before, threads = table.numpy(), _threads()
    with pytest.raises(error, match=text) as kept:
        keras_files.save_table(table.table, Store(fail_at=at, fail=fail), "item")
    assert kept.value is not None and _is_free(table)  # while somebody has the error
    assert table.numpy() == before
    assert _no_thread_stays(threads)
    store = Store()
    keras_files.save_table(table.table, store, "item")
    keras_files.load_table(table.table, store, "item")
    assert table.numpy() == before


@pytest.mark.parametrize("at", [0, 1, 5])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_store_that_fails_half_way_through_a_load_leaves_the_table_as_it_was(failure, at):
    fail, error, text = FAILURES[failure]
    store, table = Store(), _table(50)
    keras_files.save_table(_table().table, store, "item")
    before, threads = table.numpy(), _threads()
    store.left, store.fail = at, fail
    # What a store says of its file is said to be damage; an interrupt is none.
    error, text = (ValueError, f"table 'item' in the file is damaged: .*{text}") if error is OSError else (error, text)
    with pytest.raises(error, match=text) as kept:
        keras_files.load_table(table.table, store, "item")
    assert kept.value is not None and _is_free(table)
    assert table.numpy() == before
    assert _no_thread_stays(threads)


def test_an_error_after_the_last_block_leaves_the_table_as_it_was():
    def blocks():
        yield from _blocks(_table())
        raise RuntimeError("after the last")

    table = _table(50)
    before = table.numpy()
    with pytest.raises(RuntimeError, match="after the last"):
        table.table.load_blocks(blocks(), source="there")
    assert _is_free(table) and table.numpy() == before


def test_a_save_that_nobody_ends_is_ended_when_it_is_dropped():
    table, threads = _table(), _threads()
    saves = [table.table.saved_blocks(BLOCK) for _ in range(3)]
    firsts = [next(save).tobytes() for save in saves]
    assert len(set(firsts)) == 1  # several may save at once
    del saves
    assert _is_free(table) and _no_thread_stays(threads)


def test_blocks_that_are_kept_do_not_change():
    table = _table()
    kept = list(table.table.saved_blocks(BLOCK))
    assert np.concatenate(kept).tobytes() == np.concatenate(_blocks(table)).tobytes()


def test_a_save_is_of_one_moment():
    table = _table()
    before = np.concatenate(_blocks(table)).tobytes()
    blocks = table.table.saved_blocks(BLOCK)
    parts = [next(blocks).tobytes()]
    writer = threading.Thread(target=table.lookup, args=([-5],), kwargs={"insert": True})
    writer.start()  # waits
    parts += [block.tobytes() for block in blocks]
    writer.join(timeout=60)
    assert b"".join(parts) == before
    assert bool(table.contains([-5])[0])


# Damage.


@pytest.mark.parametrize("byte", [0, 9, 700, 5000, -1])
def test_a_flipped_byte_is_found_and_the_place_named(byte):
    content = np.concatenate(_blocks(_table()))
    content[byte] ^= 4
    table = _table(50)
    before = table.numpy()
    parts = [content[i : i + BLOCK] for i in range(0, len(content), BLOCK)]
    with pytest.raises((tf.errors.DataLossError, tf.errors.InvalidArgumentError), match="'there'"):
        table.table.load_blocks(parts, source="'there'")
    assert _is_free(table) and table.numpy() == before


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:1], lambda b: [], lambda b: [*b, b[0]]])
def test_blocks_that_are_missing_or_too_many_are_found(change):
    table = _table(50)
    before = table.numpy()
    with pytest.raises(tf.errors.DataLossError, match="'there' is (cut off|empty|damaged: more bytes follow)"):
        table.table.load_blocks(change(_blocks(_table())), source="'there'")
    assert _is_free(table) and table.numpy() == before


def test_a_load_that_has_failed_or_has_only_to_look_asks_for_few_blocks():
    blocks = _blocks(_table(), 100)
    assert len(blocks) > 100

    def given(blocks, asked):
        for block in blocks:
            asked.append(block)
            yield block

    table, asked = _table(50), []
    table.table.load_blocks(given(blocks, asked), source="there", only_check=True)
    assert len(asked) < 50
    assert int(table.size()) == 50
    spoilt, asked = [block ^ 1 for block in blocks], []
    with pytest.raises(tf.errors.DataLossError, match="there is no table file"):
        table.table.load_blocks(given(spoilt, asked), source="there")
    assert len(asked) < 50


def test_what_is_no_array_of_bytes_is_refused():
    store = Store()
    keras_files.save_table(_table().table, store, "item")
    table = _table(50)
    before = table.numpy()
    for strange in (np.array(["text"], object), np.array(b"x", "S1"), np.zeros([0])):
        dict.__setitem__(store, "item.1", strange)
        with pytest.raises((ValueError, TypeError, tf.errors.OpError)):
            keras_files.load_table(table.table, store, "item")
        assert _is_free(table) and table.numpy() == before
