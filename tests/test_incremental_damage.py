"""`tse.saving.IncrementalCheckpoint`: damage and what does not fit are found out, a save that fails harms nothing."""

import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from incremental_cases import chain_of, kinds_of, restored_from, save_chain, table_of

import tf_sparse_emb as tse

# Damage: the last whole state is restored, and what is damaged is named.


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE = {
    "flipped table": (lambda save: _flip(save / "0.table"), "0.table' is damaged"),
    "cut table": (lambda save: _cut(save / "0.table"), "0.table' is cut off"),
    "no table": (lambda save: (save / "0.table").unlink(), "cannot open '.*0.table'"),
    "flipped rest": (lambda save: _flip(save / "rest.data-00000-of-00001"), "rest.data.*' is damaged"),
    "no rest": (lambda save: (save / "rest.index").unlink(), "cannot read '.*rest.index'"),
    "flipped save": (lambda save: _flip(save / "save.json"), "save.json' is damaged"),
    "cut save": (lambda save: _cut(save / "save.json"), "save.json' is damaged"),
    "no save": (lambda save: (save / "save.json").unlink(), "cannot read '.*save.json'"),
    "missing": (shutil.rmtree, "' is missing"),
}


# Of all but tables the last save has all there is.
@pytest.mark.parametrize(
    ("case", "number"), [(case, number) for case in DAMAGE for number in (2, 3, 4) if number == 4 or "rest" not in case]
)
def test_a_damaged_increment_is_named_and_the_save_before_it_restored(case, number, tmp_path):
    _, _, snapshots = save_chain(tmp_path)
    damage, text = DAMAGE[case]
    damage(tmp_path / f"save-0000000{number}")
    table = table_of()
    checkpoint = chain_of(tmp_path, table)
    with pytest.warns(UserWarning, match=f"restored .*save-0000000{number - 1}', the last that is whole: .*{text}"):
        restored = checkpoint.restore()
    assert table.numpy() == snapshots[number - 2]
    assert (restored.number, restored.increments) == (number - 1, number - 2)
    assert f"save-0000000{number}" in restored.problem
    # What is saved then does not build on what is damaged.
    checkpoint.save()
    assert kinds_of(tmp_path)[-1] == "F"
    again, _ = restored_from(tmp_path)
    assert again.numpy() == table.numpy()


@pytest.mark.parametrize("case", [case for case in DAMAGE if "rest" not in case])
def test_a_damaged_full_save_is_named_and_the_chain_before_it_restored(case, tmp_path):
    _, _, snapshots = save_chain(tmp_path, saves=4, max_increments=1)  # F I F I
    damage, _ = DAMAGE[case]
    damage(tmp_path / "save-00000003")
    table = table_of()
    with pytest.warns(UserWarning, match="restored increment '.*save-00000002', the last .*save-00000003"):
        assert chain_of(tmp_path, table).restore().number == 2
    assert table.numpy() == snapshots[1]


def test_without_a_whole_save_nothing_changes(tmp_path):
    save_chain(tmp_path)
    _flip(tmp_path / "save-00000001" / "0.table")
    table = table_of()
    table.lookup([1000], insert=True)
    before = table.numpy()
    with pytest.raises(tf.errors.DataLossError, match="has no whole save: '.*save-00000001/0.table' is damaged"):
        chain_of(tmp_path, table).restore()
    assert table.numpy() == before


def _swap(folder, one, other):
    one, other, aside = folder / one, folder / other, folder / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_increments_in_the_wrong_order_or_of_another_chain_are_found_out(tmp_path):
    _, _, snapshots = save_chain(tmp_path / "a")
    save_chain(tmp_path / "b")
    for name, change in {
        "folders": lambda folder: _swap(folder, "save-00000002", "save-00000003"),
        "tables": lambda folder: _swap(folder, "save-00000002/0.table", "save-00000003/0.table"),
        "foreign folder": lambda folder: (
            shutil.rmtree(folder / "save-00000002"),
            shutil.copytree(tmp_path / "b" / "save-00000002", folder / "save-00000002"),
        ),
        "foreign table": lambda folder: shutil.copy(
            tmp_path / "b/save-00000002/0.table", folder / "save-00000002/0.table"
        ),
    }.items():
        folder = tmp_path / name
        shutil.copytree(tmp_path / "a", folder)
        change(folder)
        with pytest.warns(UserWarning, match="holds save 3: it was renamed|of another save|does not follow"):
            table, restored = restored_from(folder)
        assert restored.number == 1
        assert table.numpy() == snapshots[0]


@pytest.mark.parametrize("damage", [_flip, _cut, lambda path: path.unlink()])
def test_without_the_file_that_names_the_last_save_the_last_that_is_there_is_restored(damage, tmp_path):
    table, checkpoint, snapshots = save_chain(tmp_path)
    damage(tmp_path / "latest.json")
    with pytest.warns(UserWarning, match=r"latest.json.* so that saves may be missing"):
        again, restored = restored_from(tmp_path)
    assert restored.number == 4
    assert again.numpy() == snapshots[-1]
    with pytest.raises(tf.errors.DataLossError, match=r"latest.json"):
        _ = checkpoint.latest
    checkpoint.save()
    assert kinds_of(tmp_path)[-1] == "F"
    again, restored = restored_from(tmp_path)
    assert (restored.number, restored.problem) == (5, "")
    assert again.numpy() == table.numpy()


# A save that fails.


@pytest.mark.parametrize("limit", [0, 200, 2000])
@pytest.mark.parametrize("full", [False, True])
def test_a_save_that_fails_leaves_the_chain_and_the_next_makes_it_good(limit, full, tmp_path):
    table, checkpoint, snapshots = save_chain(tmp_path)
    files = sorted(str(path) for path in tmp_path.rglob("*"))
    table.lookup(np.arange(10_000, 10_200), insert=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises((tf.errors.OpError, OSError), match="File too large"):
            checkpoint.save(full=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == files
    again, restored = restored_from(tmp_path)
    assert (restored.number, restored.problem) == (4, "")
    assert again.numpy() == snapshots[-1]
    table.lookup([77_777], insert=True)
    checkpoint.save()
    assert kinds_of(tmp_path) == "FIIII"
    again, _ = restored_from(tmp_path)
    assert again.numpy() == table.numpy()


@pytest.mark.parametrize("first", ["write_save", "write_latest"])
def test_a_save_that_ends_before_it_is_the_latest_is_none(first, tmp_path, monkeypatch):
    table, checkpoint, snapshots = save_chain(tmp_path)
    table.lookup([5000], insert=True)

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tse.saving.save_folder, first, fail)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save()
    again, restored = restored_from(tmp_path)
    assert (restored.number, restored.problem) == (4, "")
    assert again.numpy() == snapshots[-1]
    # And what a process that was killed leaves is removed.
    (tmp_path / ".save-00000005.0123abcd.unfinished").mkdir()
    (tmp_path / ".latest.json.0123abcd.unfinished").touch()
    checkpoint.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest.json",
        *(f"save-0000000{number}" for number in (1, 2, 3, 4, 5)),
    ]
    again, _ = restored_from(tmp_path)
    assert again.numpy() == table.numpy()


# What is refused.


def test_another_width_is_refused_and_nothing_changes(tmp_path):
    save_chain(tmp_path)
    wide = tse.EmbeddingVariable(5)
    wide.lookup([3], insert=True)
    before = wide.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"rows of width 5, but '.*0.table' holds rows of width 4"):
        chain_of(tmp_path, wide).restore()
    assert wide.numpy() == before


def test_keys_out_of_range_are_refused_and_nothing_changes(tmp_path):
    save_chain(tmp_path)
    narrow = tse.EmbeddingVariable(4, input_dim=35)
    before = narrow.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 35\).*save-0000000[23]/0.table"):
        chain_of(tmp_path, narrow).restore()
    assert narrow.numpy() == before


def test_other_tables_are_refused(tmp_path):
    save_chain(tmp_path)
    one, other = table_of(), table_of()
    with pytest.raises(
        ValueError, match=r"it has \[table/table\] that are not here, and lacks \[items/table\] that are"
    ):
        tse.saving.IncrementalCheckpoint(tmp_path, items=one).restore()
    with pytest.raises(ValueError, match=r"it has \[\] that are not here, and lacks \[more/table\] that are"):
        tse.saving.IncrementalCheckpoint(tmp_path, table=one, more=other).restore()
    layer = tse.Embedding(None, 4)
    with pytest.raises(ValueError, match="A model must be built before it is restored"):
        tse.saving.IncrementalCheckpoint(tmp_path, layer=layer).restore()


def test_an_increment_is_no_table_of_its_own(tmp_path):
    table, _, _ = save_chain(tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError, match="save-00000002/0.table' is an increment"):
        table.load(tmp_path / "save-00000002" / "0.table")
    again = table_of()
    again.load(tmp_path / "save-00000001" / "0.table")
    assert int(again.size()) == 19


def test_variables_that_were_not_saved_are_a_warning(tmp_path):
    save_chain(tmp_path)
    more = tf.Module()
    more.step = tf.Variable(3)
    checkpoint = tse.saving.IncrementalCheckpoint(tmp_path, table=table_of(), more=more)
    with pytest.warns(UserWarning, match="not everything was saved"):
        checkpoint.restore()
    assert int(more.step) == 3


@pytest.mark.parametrize("name", ["max_increments", "max_to_keep"])
@pytest.mark.parametrize("value", [0, -1, 1.5, None])
def test_arguments_are_checked(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be a positive int, got {value}"):
        chain_of(tmp_path, table_of(), **{name: value})


@pytest.mark.parametrize("value", [3, None, "model", (1, 2), lambda: 3])
def test_what_cannot_be_saved_is_refused_by_name(value, tmp_path):
    with pytest.raises(TypeError, match=f"^model must be what TensorFlow tracks: .* got {type(value).__name__}$"):
        chain_of(tmp_path, table_of(), model=value)


def test_a_checkpoint_of_nothing_and_one_in_a_graph_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there must be something to save"):
        tse.saving.IncrementalCheckpoint(tmp_path)
    checkpoint = chain_of(tmp_path, table_of())
    for method in (checkpoint.save, checkpoint.restore):
        with pytest.raises(RuntimeError, match="works in eager mode, not in tf.function"):
            tf.function(method)()
