"""Tables saved from any number of servers come back on any other, and in one process.

The servers are of this process; tests/cluster/test_resharding_processes.py has real ones.
"""

import contextlib
import resource
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from incremental_cases import chain_of, checkpoint_of, kinds_of
from saving_cases import assert_same, contents, differ, make_model, tables_of, train

import tf_sparse_emb as tse
from tf_sparse_emb import variable
from tf_sparse_emb.saving import table_log
from tf_sparse_emb.servers import Servers

PLACES = [0, 1, 2, 3, 5]  # how many servers; 0: a table of one process
STEPS = 6


@contextlib.contextmanager
def on_servers(count):
    """Tables that are made within it are spread over so many "servers"; 0: they are of one process."""
    servers = Servers(("/job:localhost/replica:0/task:0/device:CPU:0",) * count) if count else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variable, "servers_here", lambda: servers)
        yield


def model_on(servers, optimizer="RowWiseAdam", seed=None):
    keras.utils.set_random_seed(seed or 1)
    with on_servers(servers):
        return make_model(optimizer)


def table_on(servers, **kwargs):
    with on_servers(servers):
        return tse.EmbeddingVariable(4, **{"seed": 1, **kwargs})


def change(model, step):
    """A step of training; now and then keys are removed, set and looked up."""
    train(model, 1, first=step)
    item, bounded, user, _ = tables_of(model)
    if step % 3 == 1:
        item.remove(np.sort(item.export()[0])[:5])
        user.upsert([step, 10**12 + step], np.full((2, 3), step, np.float32))
    if step % 3 == 2:
        bounded.scatter_add([step, step], np.ones((2, 2), np.float32))
        bounded.remove([20 + step])
        item.lookup(np.arange(step, step + 3), insert=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """runs(servers, optimizer) = (folder of a full save and two increments, contents then, contents some steps on)."""
    done = {}

    def run(servers, optimizer="RowWiseAdam"):
        if (servers, optimizer) not in done:
            folder = tmp_path_factory.mktemp("run")
            model = model_on(servers, optimizer)
            checkpoint = checkpoint_of(model, folder)
            for step in range(STEPS):
                change(model, step)
                if step % 2:
                    checkpoint.save()
            saved = contents(model)
            change(model, STEPS)
            done[servers, optimizer] = folder, saved, contents(model)
        return done[servers, optimizer]

    return run


@pytest.mark.parametrize("to", PLACES)
@pytest.mark.parametrize("saved_from", PLACES)
def test_a_model_saved_from_any_number_of_servers_goes_on_on_any_other_to_the_bit(saved_from, to, runs, tmp_path):
    folder, saved, uninterrupted = runs(saved_from)
    assert kinds_of(folder) == "FII"
    model = model_on(to, seed=2)
    assert checkpoint_of(model, folder).restore().increments == 2
    model.optimizer.build(model.trainable_variables)
    assert_same(contents(model), saved)
    for table in tables_of(model):
        assert len(table.shards) == max(to, 1)
    change(model, STEPS)
    assert_same(contents(model), uninterrupted)
    assert differ(saved, uninterrupted)
    # Whatever the number of servers, it is the same training.
    assert_same(saved, runs(0)[1])


@pytest.mark.parametrize(("saved_from", "to"), [(2, 3), (0, 2), (3, 0)])
def test_the_state_of_every_optimizer_of_a_model_comes_along(saved_from, to, runs):
    folder, saved, uninterrupted = runs(saved_from, "overrides")
    model = model_on(to, "overrides", seed=2)
    checkpoint_of(model, folder).restore()
    model.optimizer.build(model.trainable_variables)
    assert_same(contents(model), saved)
    change(model, STEPS)
    assert_same(contents(model), uninterrupted)


def test_every_server_has_its_own_keys_and_writes_its_own_files(runs, tmp_path):
    folder, _, _ = runs(3)
    names = {path.name for path in (folder / "save-00000002").iterdir() if path.suffix == ".table"}
    assert names == {f"{table}.{server}.table" for table in range(4) for server in range(3)}
    table, one = table_on(5), table_on(0)
    one.lookup(np.arange(1000), insert=True)
    chain_of(tmp_path, one).save()
    chain_of(tmp_path, table).restore()
    for number, keys in enumerate(tse.ops.embedding_partition.partition_keys(np.arange(1000), None, 1, 5).keys):
        shard = table.shards[number]
        assert int(shard.size()) == len(keys) > 100
        assert bool(tf.reduce_all(shard.contains(keys)))


def test_servers_write_and_read_at_the_same_time(tmp_path, monkeypatch):
    class Together:
        """The ops, which return only when all three servers have begun."""

        barrier = threading.Barrier(3, timeout=60)

        def __getattr__(self, name):
            op = getattr(tse.gen_ops.library, name)
            if not name.endswith(("save_in_chain", "check_chains")):
                return op

            def call(*args, **kwargs):
                self.barrier.wait()
                return op(*args, **kwargs)

            return call

    table = table_on(3)
    table.lookup(np.arange(100), insert=True)
    monkeypatch.setattr(table_log, "library", Together())
    chain_of(tmp_path, table).save()
    again = table_on(3)
    chain_of(tmp_path, again).restore()
    assert again.numpy() == table.numpy()


@pytest.mark.parametrize(("saved_from", "to"), [(1, 0), (0, 1), (2, 2), (5, 5), (2, 0), (0, 2), (3, 5), (5, 3)])
def test_increments_follow_on_as_many_servers_and_a_full_save_on_others(saved_from, to, tmp_path):
    table = table_on(saved_from)
    chain = chain_of(tmp_path, table)
    for keys in ([1, 2, 3], [3, 4], []):
        table.lookup(np.array(keys, np.int64), insert=True)
        chain.save()
    again = table_on(to)
    chain = chain_of(tmp_path, again)
    chain.restore()
    again.upsert([7, 8], np.ones((2, 4)))
    chain.save()
    assert kinds_of(tmp_path) == "FII" + ("I" if max(saved_from, 1) == max(to, 1) else "F")
    for servers in (saved_from, to):
        third = table_on(servers)
        chain_of(tmp_path, third).restore()
        assert third.numpy() == again.numpy()


def test_an_empty_table_on_other_servers_is_saved_in_full_too(tmp_path):
    chain_of(tmp_path, table_on(2)).save()
    table = table_on(3)
    chain = chain_of(tmp_path, table)
    chain.restore()
    chain.save()
    assert kinds_of(tmp_path) == "FF"


def test_what_servers_saved_can_be_read_as_one_table(tmp_path):
    table = table_on(3)
    chain = chain_of(tmp_path, table)
    for step in range(3):
        table.upsert(np.arange(40 * step, 40 * step + 60), np.full((60, 4), step + 1.0))
        table.remove([40 * step, 40 * step + 1])
        chain.save()
    (source,) = tse.interchange.read_tables(tmp_path).values()
    (chunk,) = source.chunks()
    assert tse.TableSnapshot(chunk.keys, chunk.rows) == table.numpy()


# Tables whose keys are bounded.


@pytest.mark.parametrize("initializer", ["uniform", "orthogonal"])
@pytest.mark.parametrize("to", [0, 2])
@pytest.mark.parametrize("saved_from", [0, 1, 3])
def test_rows_that_were_not_needed_yet_are_there_when_they_are(saved_from, to, initializer, tmp_path):
    def make(servers):
        return table_on(servers, input_dim=200, initializer=initializer, padding_key=9)

    table = make(saved_from)
    chain = chain_of(tmp_path, table)
    table.lookup(np.arange(50), insert=True)
    chain.save()
    table.upsert([7, 90], np.ones((2, 4)))
    table.remove([3, 100])
    chain.save()
    again = make(to)
    again.upsert([150, 9], np.full((2, 4), 5.0))  # is replaced
    chain_of(tmp_path, again).restore()
    keys = np.arange(200)
    np.testing.assert_array_equal(again.lookup(keys), table.lookup(keys))
    # Where all rows were there, those that are not were removed.
    had_all_rows = initializer == "orthogonal" or saved_from == 0
    assert int(again.size()) == (198 if had_all_rows else 200 if to == 0 else int(table.size()))
    again.lookup(keys, insert=True)
    np.testing.assert_array_equal(again.lookup(keys), table.lookup(keys))


@pytest.mark.parametrize("to", [0, 3])
def test_a_hash_table_fills_up_a_table_that_has_all_rows(to, tmp_path):
    """With the initial rows of that table, also where several servers have saved it."""
    table = table_on(2, input_dim=60, storage="slab")
    table.lookup(np.arange(10), insert=True)
    chain_of(tmp_path, table).save()
    again, untouched = (table_on(servers, input_dim=60, initializer="orthogonal", seed=2) for servers in (to, 0))
    chain_of(tmp_path, again).restore()
    assert (int(again.size()), again.seed) == (60, table.seed)
    np.testing.assert_array_equal(again.lookup(range(10)), table.lookup(range(10)))
    np.testing.assert_array_equal(again.lookup(range(10, 60)), untouched.lookup(range(10, 60)))


# Damage.


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped": (_flip, "is damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is cut off"),
    "missing": (lambda path: path.unlink(), "cannot open"),
}


@pytest.mark.parametrize("to", [0, 2, 3])
@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("server", [0, 2])
def test_a_damaged_file_of_one_server_is_named_and_what_all_had_before_restored(server, case, to, tmp_path):
    table = table_on(3)
    chain, snapshots = chain_of(tmp_path, table), []
    for save in range(4):
        table.upsert(np.arange(30 * save, 30 * save + 60), np.full((60, 4), save + 1.0))
        table.remove(np.arange(30 * save, 30 * save + 10))
        chain.save()
        snapshots.append(table.numpy())
    damage, text = DAMAGE[case]
    damage(tmp_path / "save-00000003" / f"0.{server}.table")
    again = table_on(to)
    name = f"save-00000003/0.{server}.table"
    with pytest.warns(UserWarning, match=f"restored increment '.*save-00000002', the last that is whole: .*{text}"):
        restored = chain_of(tmp_path, again).restore()
    assert name in restored.problem
    assert restored.number == 2
    assert again.numpy() == snapshots[1]
    # And without a full save nothing changes, on no server.
    damage(tmp_path / "save-00000001" / f"0.{server}.table")
    with pytest.raises(tf.errors.DataLossError, match=f"save-00000001/0.{server}.table"):
        chain_of(tmp_path, again).restore()
    assert again.numpy() == snapshots[1]


@pytest.mark.parametrize("servers", [2, 3])
def test_a_save_that_fails_on_a_server_leaves_the_chain_and_the_next_makes_it_good(servers, tmp_path):
    table = table_on(servers)
    chain = chain_of(tmp_path, table)
    table.lookup(np.arange(100), insert=True)
    chain.save()
    files = sorted(str(path) for path in tmp_path.rglob("*"))
    table.lookup(np.arange(1000, 1500), insert=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
    try:
        with pytest.raises((tf.errors.OpError, OSError), match="File too large"):
            chain.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == files
    table.lookup([77], insert=True)
    chain.save()
    assert kinds_of(tmp_path) == "FI"
    again = table_on(0)
    chain_of(tmp_path, again).restore()
    assert again.numpy() == table.numpy()


# What is refused, before anything changes on any server.


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"input_dim": 90}, tf.errors.InvalidArgumentError, r"keys must be in \[0, 90\), got keys\[\d+\] = 9\d"),
        (
            {"max_rows": 60},
            tf.errors.ResourceExhaustedError,
            r"max_rows = 20 and cannot take the \d+ rows of '.*0.0.ta",
        ),
    ],
)
def test_a_table_that_one_server_cannot_take_is_refused_by_all(kwargs, error, text, tmp_path):
    table = table_on(2)
    table.lookup(np.arange(100), insert=True)
    chain_of(tmp_path, table).save()
    again = table_on(3, **kwargs)
    again.lookup([1, 2, 3, 4, 5], insert=True)
    before = again.numpy()
    with pytest.raises(error, match=text):
        chain_of(tmp_path, again).restore()
    assert again.numpy() == before


def test_max_rows_bound_what_each_server_takes(tmp_path):
    table = table_on(0)
    table.lookup(np.arange(900), insert=True)
    chain_of(tmp_path, table).save()
    again = table_on(3, max_rows=3 * 330)
    chain_of(tmp_path, again).restore()
    assert again.numpy() == table.numpy()


@pytest.mark.parametrize("servers", [1, 2])
def test_other_ways_to_save_and_load_are_refused_and_change_nothing(servers, tmp_path):
    one = model_on(0)
    train(one, 2)
    one.save_weights(tmp_path / "one.weights.h5")
    tf.train.Checkpoint(model=one, optimizer=one.optimizer).write(str(tmp_path / "one"))
    model = model_on(servers, seed=2)
    train(model, 1)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    item = tables_of(model)[0]
    before, files = contents(model), sorted(path.name for path in tmp_path.iterdir())
    for name, call in {
        "checkpoint": lambda: checkpoint.write(str(tmp_path / "two")),
        "checkpoint manager": lambda: tf.train.CheckpointManager(checkpoint, str(tmp_path), 1).save(),
        "checkpoint restored": lambda: checkpoint.read(str(tmp_path / "one")),
        "SavedModel": lambda: tf.saved_model.save(model, str(tmp_path / "model")),
        "export": lambda: model.export(str(tmp_path / "model"), verbose=False),
        "export for serving": lambda: tse.export_for_serving(model, tmp_path / "model"),
        "table": lambda: item.save(tmp_path / "two.table"),
        "table loaded": lambda: item.load(tmp_path / "one.table"),
    }.items():
        with pytest.raises(RuntimeError, match=f"is spread over {servers} servers .* tse.saving.IncrementalCheckpoint"):
            call()
            raise AssertionError(f"{name} did not raise")
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "model") == files, name
        assert_same(contents(model), before)
    # Keras begins its files before it asks the layers, and goes on to the next layer after an error.
    for call in (
        lambda: model.save(tmp_path / "two.keras"),
        lambda: model.save_weights(tmp_path / "two.weights.h5"),
        lambda: model.save_weights(tmp_path / "two.weights.json", max_shard_size=1),
        lambda: model.load_weights(tmp_path / "one.weights.h5"),
    ):
        with pytest.raises((RuntimeError, ValueError), match="tse.saving.IncrementalCheckpoint saves it"):
            call()
