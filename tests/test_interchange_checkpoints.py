"""Tables in TensorFlow's checkpoints and in the package's own files, as `tse.interchange` and the command see them."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.command import main
from tf_sparse_emb.interchange import import_table, read_table, read_tables

D = 3


@pytest.fixture
def model():
    """A model of two tables, one with state and one with counts, and a stock layer, after two steps."""
    inputs = {name: keras.Input([2], dtype="int64", name=name) for name in ("item", "user", "day")}
    layers = [
        tse.Embedding(None, D, seed=1),
        tse.Embedding(None, D, seed=2, counts="seen"),
        keras.layers.Embedding(7, D),
    ]
    parts = [layer(x) for layer, x in zip(layers, inputs.values(), strict=True)]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Add()(parts)))
    model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
    keys = reference.key_universe("slab", 60).reshape(-1, 2)
    model.fit({"item": keys, "user": keys // 2, "day": keys % 7}, np.ones([30, 2, 1]), epochs=2, verbose=0)
    model.tables = [layer.embeddings for layer in layers[:2]]
    model.stock = layers[2]
    return model


def content(table):
    keys, rows = (np.asarray(part) for part in table.export(with_state=True))
    order = np.argsort(keys)
    return keys[order], rows[order]


@pytest.mark.parametrize("max_rows", [7, None])
def test_the_tables_and_matrices_of_a_checkpoint_are_found_by_their_place_and_read(model, tmp_path, max_rows):
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), tmp_path, max_to_keep=2)
    prefix = manager.save()
    sources = read_tables(prefix)
    assert read_tables(tmp_path).keys() == sources.keys()
    tables = [source for source in sources.values() if source.details.get("storage") == "slab"]
    assert [source.details["seed"] for source in sorted(tables, key=lambda source: source.details["seed"])] == [1, 2]
    for source in tables:
        keys, rows = content(model.tables[source.details["seed"] - 1])
        assert (source.num_rows, source.dim, source.rule, source.state_width) == (len(keys), D, "row_wise_adagrad", 1)
        chunks = list(source.chunks(max_rows))
        order = np.argsort(np.concatenate([chunk.keys for chunk in chunks]))
        for part, want in (("keys", keys), ("rows", rows[:, :D]), ("state", rows[:, D:])):
            np.testing.assert_array_equal(np.concatenate([getattr(chunk, part) for chunk in chunks])[order], want)
    matrices = [source for source in sources.values() if not source.details and (source.num_rows, source.dim) == (7, D)]
    np.testing.assert_array_equal(next(matrices[0].chunks()).rows, model.stock.embeddings.numpy())


def test_a_checkpoints_table_with_its_state_goes_into_a_table(model, tmp_path):
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    (name,) = [name for name, source in read_tables(prefix).items() if source.details.get("seed") == 1]
    copy = tse.EmbeddingVariable(D, seed=1)
    copy.bind("row_wise_adagrad")
    assert import_table(copy, prefix, name=name, replace=True, with_state=True) == 60
    for got, want in zip(content(copy), content(model.tables[0]), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_tables_own_file_can_be_read_inspected_compared_and_converted(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.tables[0].save("item.table")
    copy = tse.EmbeddingVariable(D)
    assert import_table(copy, "item.table") == 60
    np.testing.assert_array_equal(content(copy)[1], content(model.tables[0])[1][:, :D])
    assert main(["inspect", "item.table"]) == 0
    assert "rows 60, dim 3, storage slab, initializer uniform" in capsys.readouterr().out
    assert main(["export", "item.table", "rows.npz"]) == 0
    assert main(["diff", "item.table", "rows.npz"]) == 0


def test_what_an_incremental_checkpoint_saved_can_be_read_inspected_and_compared(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = tse.saving.IncrementalCheckpoint("saves", model=model)
    snapshots = []
    for step in range(3):
        for table in model.tables:
            table.upsert([10**9 + step, 5], np.full([2, D], step + 0.5))
            table.remove([10**9 + step - 1])
        checkpoint.save()
        snapshots.append([content(table) for table in model.tables])
    for path, want in {"saves": 2, **{f"saves/save-0000000{n + 1}": n for n in range(3)}}.items():
        sources = read_tables(path)
        assert len(sources) == 2
        for source in sources.values():
            (chunk,) = source.chunks()
            order = np.argsort(chunk.keys)
            keys, rows = snapshots[want][source.details["seed"] - 1]
            np.testing.assert_array_equal(chunk.keys[order], keys)
            np.testing.assert_array_equal(chunk.rows[order], rows[:, :D])
    name = next(name for name, source in read_tables("saves").items() if source.details["seed"] == 1)
    assert main(["inspect", "--brief", "saves"]) == 0
    assert f"table {name}, rows {len(snapshots[2][0][0])}, dim 3, storage slab" in capsys.readouterr().out
    assert main(["diff", f"saves/save-00000001::{name}", f"saves::{name}"]) == 1
    assert "only in the first: 1, only in the second: 1, of different rows: 1" in capsys.readouterr().out
    copy = tse.EmbeddingVariable(D)
    import_table(copy, "saves", name=name)
    for got, want in zip(content(copy), (snapshots[2][0][0], snapshots[2][0][1][:, :D]), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("file", ["latest.json", "save-00000002/save.json", "save-00000002/1.table"])
def test_a_damaged_save_is_one_line_and_exit_code_2(model, file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = tse.saving.IncrementalCheckpoint("saves", model=model)
    for _ in range(3):
        model.tables[1].lookup([int(model.tables[1].size())], insert=True)
        checkpoint.save()
    path = tmp_path / "saves" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["inspect", "saves"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"saves/{file}' is damaged" in err
    if file != "latest.json":
        assert main(["inspect", "saves/save-00000001"]) == 0


@pytest.mark.parametrize("damage", ["flipped", "cut", "beginning"])
def test_a_damaged_file_is_one_line_and_exit_code_2(model, tmp_path, capsys, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    model.tables[0].save("item.table")
    data = bytearray((tmp_path / "item.table").read_bytes())
    if damage == "flipped":
        data[-300] ^= 1
    (tmp_path / "item.table").write_bytes({"cut": data[:-50], "beginning": data[:20]}.get(damage, data))
    assert main(["inspect", "item.table"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "item.table" in err and "{{" not in err and "[Op" not in err


def test_a_damaged_checkpoint_is_an_error_and_leaves_the_table_as_it_was(model, tmp_path):
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    (name,) = [name for name, source in read_tables(prefix).items() if source.details.get("seed") == 1]
    rows = next(read_table(prefix, name).chunks()).rows
    row = rows[10].tobytes()
    (path,) = [path for path in tmp_path.glob("ckpt.data-*") if row in path.read_bytes()]
    data = bytearray(path.read_bytes())
    data[data.index(row)] ^= 1
    path.write_bytes(data)
    table = tse.EmbeddingVariable(D)
    table.upsert([1], np.ones([1, D]))
    with pytest.raises(tf.errors.DataLossError, match=f"{prefix} shard .*Checksum does not match"):
        import_table(table, prefix, name=name)
    assert content(table)[0].tolist() == [1]
    (tmp_path / "ckpt.index").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="ckpt is no whole checkpoint"):
        read_tables(prefix)
