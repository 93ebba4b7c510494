"""Tables out to files and in again: every row arrives, or none does."""

import json
import os
import resource
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import reference

import tf_sparse_emb as tse
from tf_sparse_emb.interchange import export_table, import_table, read_table, read_tables, rows_of

D = 5
FORMATS = {"npz": "rows.npz", "parquet": "rows.parquet", "raw": "rows"}


@pytest.fixture(params=FORMATS)
def target(request, tmp_path):
    """(format, path)."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return request.param, tmp_path / FORMATS[request.param]


def a_table(make_table, storage="slab", rows=200, seed=0, **kwargs):
    """A table with keys from all of the 64 bits, and what it holds."""
    table = make_table(storage, D, rows=rows, **kwargs)
    keys = reference.key_universe(storage, rows, seed)
    values = np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)
    table.upsert(keys, values)
    return table, keys, values


def content(table, with_state=False):
    keys, rows = (np.asarray(part) for part in table.export(with_state=with_state))
    order = np.argsort(keys)
    return keys[order], rows[order]


def assert_same(table, other, with_state=False):
    for mine, theirs in zip(content(table, with_state), content(other, with_state), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("storage", reference.STORAGES)
def test_a_table_comes_back_as_it_went_out(make_table, target, storage):
    format, path = target
    table, _, _ = a_table(make_table, storage)
    export_table(table, path, format=format)
    copy = make_table(storage, D, rows=200)
    copy.clear()
    assert import_table(copy, path) == 200
    assert_same(copy, table)


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_no_row_and_of_one_come_back(make_table, target, rows):
    format, path = target
    table = make_table("slab", D)
    table.upsert(np.arange(rows), np.ones([rows, D]))
    export_table(table, path, format=format)
    copy = make_table("slab", D)
    if format == "raw" and rows == 0:
        with pytest.raises(ValueError, match="rows of one width, got no rows"):
            import_table(copy, path)
        return
    assert import_table(copy, path) == rows
    assert_same(copy, table)


@pytest.mark.parametrize("max_rows", [1, 7, 100, None])
def test_chunks_are_of_at_most_so_many_rows_and_the_same_every_time(make_table, target, max_rows):
    format, path = target
    table, keys, values = a_table(make_table)
    export_table(table, path, format=format)
    source = read_table(path)
    for _ in range(2):
        chunks = list(source.chunks(max_rows))
        assert max(len(chunk.keys) for chunk in chunks) == min(200, max_rows or 200)
        got = dict(zip(np.concatenate([c.keys for c in chunks]), np.concatenate([c.rows for c in chunks]), strict=True))
        assert len(got) == 200
        for key, row in zip(keys, values, strict=True):
            np.testing.assert_array_equal(got[key], row)


@pytest.mark.parametrize("format", ["npz", "parquet"])
@pytest.mark.parametrize("rule", ["row_wise_adagrad", "row_wise_adam"])
def test_the_optimizers_state_comes_along_for_the_same_rule_and_begins_anew_for_another(
    make_table, tmp_path, format, rule
):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    table, keys, _ = a_table(make_table)
    token = table.bind(rule)
    hypers = {"learning_rate": 0.1, "epsilon": 1e-8, "weight_decay": 0.0}
    hypers |= {"step": 1, "beta_1": 0.9, "beta_2": 0.99} if rule == "row_wise_adam" else {}
    tse.ops.embedding_update(table, keys[:50], np.ones([50, D], np.float32), rule, binding=token, **hypers)
    path = tmp_path / FORMATS[format]
    export_table(table, path, with_state=True)
    source = read_table(path)
    assert source.rule == rule and source.state_width == content(table, True)[1].shape[1] - D
    same, other = make_table("slab", D), make_table("slab", D)
    same.bind(rule)
    other.bind("adagrad", initial_accumulator_value=0.5)
    for copy in (same, other):
        copy.upsert([12345], np.ones([1, D]))
        assert import_table(copy, path, replace=True, with_state=True) == 200
        assert_same(copy, table)
    assert_same(same, table, with_state=True)
    assert np.any(content(same, True)[1][:, D:])
    np.testing.assert_array_equal(content(other, True)[1][:, D:], 0.5)


def test_rows_that_are_there_are_set_and_others_stay_unless_all_are_replaced(make_table):
    for replace, want in ((False, {1: 1.0, 2: 9.0, 3: 9.0}), (True, {2: 9.0, 3: 9.0})):
        table = make_table("slab", D)
        table.upsert([1, 2], np.ones([2, D]))
        import_table(table, {2: [9.0] * D, 3: [9.0] * D}, replace=replace)
        keys, rows = content(table)
        assert dict(zip(keys.tolist(), rows[:, 0].tolist(), strict=True)) == want


def _stock_layer():
    layer = keras.layers.Embedding(7, D)
    layer.build()
    return layer


MATRIX = np.arange(7.0 * D).reshape(7, D)
IN_MEMORY = {
    "matrix": lambda: (MATRIX, MATRIX),
    "pair": lambda: ((np.arange(7), MATRIX), MATRIX),
    "dict": lambda: ({key: list(row) for key, row in enumerate(MATRIX)}, MATRIX),
    "float16": lambda: (MATRIX.astype(np.float16), MATRIX),
    "keras_layer": lambda: (layer := _stock_layer(), np.asarray(layer.embeddings)),
    "keras_variable": lambda: ((layer := _stock_layer()).embeddings, np.asarray(layer.embeddings)),
    "table": lambda: (table := _table_of(MATRIX), MATRIX) and (table, MATRIX),
    "snapshot": lambda: (_table_of(MATRIX).numpy(), MATRIX),
    "source": lambda: (rows_of(MATRIX), MATRIX),
}


def _table_of(rows):
    table = tse.EmbeddingVariable(rows.shape[1])
    table.upsert(np.arange(len(rows)), rows)
    return table


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("kind", IN_MEMORY)
def test_rows_come_from_everything_that_holds_rows_in_memory(make_table, kind, storage):
    source, want = IN_MEMORY[kind]()
    table = make_table(storage, D, rows=7)
    assert import_table(table, source) == 7
    np.testing.assert_array_equal(table.lookup(np.arange(7)), want.astype(np.float32))


# The files are what others read and write.


def test_an_npz_file_is_what_numpy_reads_and_writes(make_table, tmp_path):
    table, _, _ = a_table(make_table)
    export_table(table, tmp_path / "ours.npz")
    arrays = np.load(tmp_path / "ours.npz")
    assert arrays["keys"].dtype == np.int64 and arrays["rows"].dtype == np.float32
    for save, name in ((np.savez, "plain"), (np.savez_compressed, "compressed")):
        save(tmp_path / f"{name}.npz", keys=arrays["keys"].astype(np.int64), rows=arrays["rows"].astype(np.float64))
        copy = make_table("slab", D)
        import_table(copy, tmp_path / f"{name}.npz")
        assert_same(copy, table)
    np.save(tmp_path / "matrix.npy", MATRIX)
    import_table(copy, tmp_path / "matrix.npy", replace=True)
    np.testing.assert_array_equal(content(copy)[1], MATRIX)


def test_raw_files_are_little_endian_keys_and_rows_in_one_or_many_shards(make_table, tmp_path):
    table, _, _ = a_table(make_table)
    export_table(table, tmp_path / "item", format="raw")
    keys = np.frombuffer((tmp_path / "item-keys").read_bytes(), "<i8")
    rows = np.frombuffer((tmp_path / "item-values").read_bytes(), "<f4").reshape(-1, D)
    np.testing.assert_array_equal(table.lookup(keys), rows)
    for shard in range(3):
        prefix = f"many_mht_{shard + 1}of3_rank0_size1"
        (tmp_path / f"{prefix}-keys").write_bytes(keys[shard::3].tobytes())
        (tmp_path / f"{prefix}-values").write_bytes(rows[shard::3].tobytes())
    copy = make_table("slab", D)
    assert import_table(copy, tmp_path / "many") == 200
    assert_same(copy, table)


def test_a_parquet_file_is_what_pyarrow_reads_and_writes(make_table, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table, keys, values = a_table(make_table)
    export_table(table, tmp_path / "ours.parquet")
    columns = pyarrow.parquet.read_table(tmp_path / "ours.parquet")
    assert str(columns.schema.field("key").type) == "int64"
    assert str(columns.schema.field("row").type) == f"fixed_size_list<element: float>[{D}]"
    np.testing.assert_array_equal(
        table.lookup(columns["key"].to_numpy()), np.array(columns["row"].to_pylist(), np.float32)
    )
    theirs = pa.table({"row": [row.tolist() for row in values], "key": keys})  # lists of any size, float64
    pyarrow.parquet.write_table(theirs, tmp_path / "theirs.parquet")
    copy = make_table("slab", D)
    import_table(copy, tmp_path / "theirs.parquet")
    assert_same(copy, table)


def test_the_matrices_of_a_keras_weights_file_can_be_read(make_table, tmp_path):
    model = keras.Sequential([keras.Input([3], dtype="int64"), keras.layers.Embedding(7, D), keras.layers.Dense(D)])
    model.save_weights(tmp_path / "m.weights.h5")
    names = list(read_tables(tmp_path / "m.weights.h5"))
    assert names == ["layers/dense/vars/0", "layers/embedding/vars/0"]
    table = make_table("slab", D)
    import_table(table, tmp_path / "m.weights.h5", name="layers/embedding/vars/0")
    np.testing.assert_array_equal(table.lookup(np.arange(7)), model.layers[0].embeddings.numpy())


@pytest.mark.parametrize("rows_dtype", ["float32", "float16", "int8"])
def test_the_tables_of_an_export_for_serving_can_be_read_as_they_are_served(make_table, tmp_path, rows_dtype):
    inputs = {name: keras.Input([], dtype="int64", name=name) for name in ("item", "country")}
    layers = {"item": tse.Embedding(None, D, name="items"), "country": tse.Embedding(7, D, name="countries")}
    model = keras.Model(inputs, {name: layer(inputs[name]) for name, layer in layers.items()})
    keys = reference.key_universe("slab", 50)
    layers["item"].embeddings.upsert(keys, np.random.default_rng(0).normal(size=(50, D)))
    tables = tse.export_for_serving(model, tmp_path / "model", rows_dtype=rows_dtype)
    assert sorted(read_tables(tmp_path / "model")) == ["countries/embeddings", "items/embeddings"]
    for layer in layers.values():
        copy, name = make_table("slab", D), f"{layer.name}/embeddings"
        import_table(copy, tmp_path / "model", name=name)
        keys, rows = content(layer.embeddings)
        np.testing.assert_array_equal(content(copy)[0], keys)
        error = np.abs(content(copy)[1].astype(np.float64) - rows).max()
        assert error == tables[name].max_error and (error > 0) == (rows_dtype != "float32")


# Whole, or not at all.


def _bad_npz(tmp_path, **arrays):
    path = tmp_path / "bad.npz"
    np.savez(path, **{"keys": np.arange(6), "rows": np.ones((6, D), np.float32)} | arrays)
    return path


def _flipped_byte(tmp_path):
    path = _bad_npz(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\x80?\x00\x00\x80?") + 4] ^= 1
    path.write_bytes(data)
    return path


def _truncated(tmp_path):
    path = _bad_npz(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _short_values(tmp_path):
    (tmp_path / "raw-keys").write_bytes(np.arange(6).tobytes())
    (tmp_path / "raw-values").write_bytes(np.ones((6, D), np.float32).tobytes()[:-2])
    return tmp_path / "raw"


def _no_values(tmp_path):
    (tmp_path / "raw-keys").write_bytes(np.arange(6).tobytes())
    return tmp_path / "raw"


def _last_row(value):
    rows = np.ones((6, D), np.float32)
    rows[-1, 2] = value
    return rows


BAD = {
    "flipped_byte": (_flipped_byte, r"bad.npz is no whole .npz file: Bad CRC-32 for file 'rows.npy'"),
    "truncated": (_truncated, "bad.npz is no whole .npz file"),
    "no_rows": (lambda p: np.savez(p / "x.npz", keys=np.arange(3)) or p / "x.npz", "arrays keys and rows, got keys"),
    "short_values": (_short_values, "8 bytes a key and .*raw-values as many rows of float32, got 48 and 118 bytes"),
    "no_values": (_no_values, "there is .*raw-keys, but no .*raw-values"),
    "nothing": (lambda p: p / "nothing.npz", "there is no .*nothing.npz"),
    "another_width": (lambda p: _bad_npz(p, rows=np.ones((6, D + 1))), "must be of the table's width 5, got 6"),
    "nan": (lambda p: _bad_npz(p, rows=_last_row(np.nan)), "must be finite, got nan at key 5"),
    "beyond_float32": (lambda p: _bad_npz(p, rows=np.full((6, D), 1e39)), "must be finite, got inf at key 0"),
    "ints": (lambda p: _bad_npz(p, rows=np.ones((6, D), np.int32)), "must be floats of shape"),
    "uint64_keys": (lambda p: _bad_npz(p, keys=np.arange(6, dtype=np.uint64)), r"keys.view\(numpy.int64\) keeps"),
    "float_keys": (lambda p: _bad_npz(p, keys=np.arange(6.0)), "must be int64 of shape"),
    "repeated": (lambda p: _bad_npz(p, keys=np.array([5, 1, 2, 3, 4, 5])), "must differ, got 5 more than once"),
    "lengths": (lambda p: _bad_npz(p, keys=np.arange(5)), r"must have keys \[V\] and rows \[V, D\]"),
    "too_many": (lambda p: _bad_npz(p, keys=np.arange(10, 16)), "to 9 rows, and its max_rows is 8"),
    "another_kind": (lambda p: 7, "rows come from a path, .* got int"),
    "ragged_dict": (lambda p: {1: [1.0], 2: [1.0, 2.0]}, "rows of a dict must be of one width"),
    "vector": (lambda p: np.ones(5), r"must be of shape \[V, D\], got \(5,\)"),
    "pair": (lambda p: (np.arange(2), np.ones((3, D))), "a row for each key, got 2 keys and 3 rows"),
    "layer": (lambda p: keras.layers.Embedding(3, D), "has no rows before it is built"),
}


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("what", BAD)
def test_what_is_damaged_or_does_not_fit_leaves_the_table_as_it_was(make_table, tmp_path, monkeypatch, what, replace):
    make, message = BAD[what]
    # One row a chunk: what is wrong comes last.
    monkeypatch.setattr("tf_sparse_emb.interchange.rows.CHUNK_BYTES", 1)
    table = make_table("slab", D, max_rows=8)
    table.upsert([3, 4, 100], np.full([3, D], 0.5))
    before = content(table)
    if what == "too_many" and replace:
        table = make_table("slab", D, max_rows=5)
        table.upsert([3, 4, 100], np.full([3, D], 0.5))
        message = "to 6 rows, and its max_rows is 5"
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        import_table(table, make(tmp_path), replace=replace)
    for got, want in zip(content(table), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_key_out_of_range_leaves_the_table_as_it_was(make_table):
    table = make_table("index", D, rows=5)
    before = content(table)
    with pytest.raises(ValueError, match=r"keys of the dict must be in \[0, 5\), got 5"):
        import_table(table, {1: [1.0] * D, 5: [1.0] * D})
    for got, want in zip(content(table), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_file_that_changes_between_checking_and_reading_is_noticed(make_table):
    class Changing(type(rows_of(MATRIX))):
        walks = 0

        def _chunks(self, max_rows):
            self.walks += 1
            for keys, rows, state in super()._chunks(max_rows):
                yield keys + (self.walks == 2), rows, state

    source = Changing("the rows", None, MATRIX)
    with pytest.raises(RuntimeError, match="the rows changed while it was read"):
        import_table(make_table("slab", D), source)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"path": "rows.txt"}, r"must end in .npz or .parquet, or format='raw' be given, got .*rows.txt"),
        ({"path": "rows.npz", "format": "csv"}, "format must be one of npz, parquet, raw, got 'csv'"),
        ({"path": "rows", "format": "raw", "with_state": True}, "raw files have no place for it"),
    ],
)
def test_exports_that_cannot_be_are_refused(make_table, tmp_path, kwargs, message):
    path = tmp_path / kwargs.pop("path")
    with pytest.raises(ValueError, match=message):
        export_table(make_table("slab", D), path, **kwargs)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"with_state": True}, "with_state needs replace=True"),
        ({"with_state": True, "replace": True}, "with_state needs a source with a state"),
        ({"name": "a"}, "name is for paths that hold several tables, got name='a'"),
    ],
)
def test_imports_that_cannot_be_are_refused(make_table, kwargs, message):
    with pytest.raises(ValueError, match=message):
        import_table(make_table("slab", D), MATRIX, **kwargs)
    table = make_table("slab", D)
    with pytest.raises(ValueError, match="source must be another table than"):
        import_table(table, table)


def test_a_write_that_fails_leaves_the_file_that_was_there(make_table, target, monkeypatch):
    format, path = target
    table, _, _ = a_table(make_table)
    export_table(table, path, format=format)
    files = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    monkeypatch.setattr("tf_sparse_emb.interchange.rows.CHUNK_BYTES", 1 << 10)
    chunks = table.export_chunks

    def failing(*args, **kwargs):
        for number, chunk in enumerate(chunks(*args, **kwargs)):
            if number == 2:
                raise OSError("no space left on device")
            yield chunk

    table.upsert([1], np.ones([1, D]))
    monkeypatch.setattr(table, "export_chunks", failing, raising=False)
    with pytest.raises(OSError, match="no space left"):
        export_table(table, path, format=format)
    assert {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)} == files


_LIMITED = """
import resource, sys
import numpy as np
import tf_sparse_emb as tse
table = tse.EmbeddingVariable(5)
table.upsert(np.arange(100_000), np.ones([100_000, 5]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    tse.interchange.export_table(table, sys.argv[1])
except OSError as error:
    sys.exit(f"OSError: {error}")
"""


def test_a_disk_that_is_full_is_an_error_and_leaves_the_file_that_was_there(make_table, tmp_path):
    table, _, _ = a_table(make_table)
    export_table(table, tmp_path / "rows.npz")
    before = (tmp_path / "rows.npz").read_bytes()
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, tmp_path / "rows.npz"], capture_output=True, text=True, timeout=100
    )
    assert run.stderr.strip().splitlines()[-1] == f"OSError: [Errno 27] File too large: '{tmp_path / 'rows.npz'}'"
    assert os.listdir(tmp_path) == ["rows.npz"] and (tmp_path / "rows.npz").read_bytes() == before


def test_memory_for_a_large_table_is_a_few_chunks(tmp_path, monkeypatch):
    """The rows, 77 MB, are never in memory as a whole: neither to write nor to read them."""
    table = tse.EmbeddingVariable(64, initializer="zeros")
    keys = np.arange(300_000)
    for begin in range(0, len(keys), 30_000):
        table.lookup(keys[begin : begin + 30_000], insert=True)
    monkeypatch.setattr("tf_sparse_emb.interchange.rows.CHUNK_BYTES", 1 << 20)
    export_table(table, tmp_path / "warm.npz")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    export_table(table, tmp_path / "rows.npz")
    source = read_table(tmp_path / "rows.npz")
    assert sum(len(chunk.keys) for chunk in source.chunks()) == 300_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 25


def test_meta_of_an_npz_file_is_json(make_table, tmp_path):
    table, _, _ = a_table(make_table)
    table.bind("row_wise_adagrad")
    export_table(table, tmp_path / "rows.npz", with_state=True)
    with zipfile.ZipFile(tmp_path / "rows.npz") as archive:
        assert json.loads(archive.read("meta.json")) == {"rule": "row_wise_adagrad"}
