"""SavedModels with the package's ops: `model.export` and `tf.saved_model.save`."""

import gc
import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from saving_cases import make_model, tables_of, train
from tensorflow.core.protobuf import saved_model_pb2

import tf_sparse_emb as tse

SEEN_AND_NEW = np.array([[1, 2, 3], [10**15, -5, 40], [7, 10**15, 1]])


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    model = make_model()
    train(model, 3)
    return model


def _export(model, path):
    model.export(str(path), verbose=False)
    loaded = tf.saved_model.load(str(path))  # which its functions do not keep alive
    return lambda keys: loaded.serve(keys)


def _save(model, path):
    tf.saved_model.save(model, str(path))
    loaded = tf.saved_model.load(str(path))
    return lambda keys: next(iter(loaded.signatures["serving_default"](keys).values()))


@pytest.mark.parametrize("how", [_export, _save])
def test_a_loaded_model_answers_as_the_model(model, how, tmp_path):
    serve = how(model, tmp_path / "model")
    want = model(SEEN_AND_NEW).numpy()
    np.testing.assert_array_equal(serve(tf.constant(SEEN_AND_NEW)), want)
    train(model, 1, first=7)  # what goes on here does not reach it
    assert (model(SEEN_AND_NEW).numpy() != want).any()
    np.testing.assert_array_equal(serve(tf.constant(SEEN_AND_NEW)), want)


def test_a_saved_model_has_each_table_once(model, tmp_path):
    for how in (model.export, lambda path: tf.saved_model.save(model, path)):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        how(str(path))
        content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        files = [asset.filename for asset in content.meta_graphs[0].asset_file_def]
        assert len(set(files)) == len(files) == len(tables_of(model))


def test_an_export_has_the_rows_of_its_moment_while_the_archive_of_another_lives(model, tmp_path):
    archives = []
    for i in range(2):
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", model.__call__, [tf.TensorSpec([None, 3], tf.int64)])
        train(model, 1, first=20 + i)
        archive.write_out(str(tmp_path / str(i)), verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / str(i)))
        np.testing.assert_array_equal(loaded.serve(tf.constant(SEEN_AND_NEW)), model(SEEN_AND_NEW).numpy())
        archives.append(archive)


class Lookup(tf.Module):
    """Signatures of every kind of keys."""

    def __init__(self, storage="slab"):
        super().__init__()
        self.table = tse.EmbeddingVariable(3, storage=storage, input_dim=90 if storage == "index" else None, seed=4)
        self.layer = tse.Embedding(None, 2, combiner="mean", seed=5)
        self.layer.build()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def ints(self, keys):
        return {"rows": tse.embedding_lookup(self.table, keys)}

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)])
    def ragged(self, keys):
        return {"rows": self.layer(keys)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.string)])
    def strings(self, keys):
        return {"rows": self.layer(keys)}

    @tf.function
    def size(self):
        return self.table.size(), self.layer.embeddings.size()


def test_int_ragged_and_string_keys_are_served_and_insert_nothing(storage, tmp_path):
    module = Lookup(storage)
    ints = tf.constant([1, 2, 80], tf.int64)
    ragged = tf.ragged.constant([[7, 2**40], [], [9]], dtype=tf.int64)
    strings = tf.constant([["a", "b"], ["c", ""]])
    module.table.lookup([1, 2], insert=True)
    module.table.upsert([2], [[1.0, 2.0, 3.0]])
    module.layer(ragged, training=True)
    module.layer(strings[:1], training=True)
    module.size()
    sizes = [int(size) for size in module.size()]
    functions = {name: getattr(module, name) for name in ("ints", "ragged", "strings")}
    tf.saved_model.save(module, str(tmp_path), signatures=functions)
    loaded = tf.saved_model.load(str(tmp_path))
    # A signature has tensors alone.
    arguments = {"keys": ragged.values, "keys_1": ragged.row_splits}
    for _ in range(2):
        for name, keys in {"ints": ints, "ragged": ragged, "strings": strings}.items():
            np.testing.assert_array_equal(getattr(loaded, name)(keys)["rows"], getattr(module, name)(keys)["rows"])
        for name, keys in {"ints": {"keys": ints}, "ragged": arguments, "strings": {"keys": strings}}.items():
            want = getattr(module, name)(ragged if name == "ragged" else keys["keys"])["rows"]
            np.testing.assert_array_equal(loaded.signatures[name](**keys)["rows"], want)
        assert [int(size) for size in loaded.size()] == sizes


def test_every_load_has_tables_of_its_own_which_go_with_it(tmp_path):
    module = tf.Module()
    module.table = tse.EmbeddingVariable(32)
    module.table.lookup(np.arange(150_000), insert=True)
    tf.saved_model.save(module, str(tmp_path))
    # A process of its own, where with one arena what is freed is used again: the figures hardly move.
    program = """if True:
        import gc, sys, tensorflow as tf, tf_sparse_emb
        from pathlib import Path

        def resident():
            gc.collect()
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

        def load():
            gc.collect()  # what is loaded refers to itself
            return tf.saved_model.load(sys.argv[1])

        load()
        before = resident()
        for _ in range(24):
            load()
        gone = resident()
        loaded = [load() for _ in range(8)]
        print(gone - before, resident() - gone)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    table = 150_000 * (8 + 128)
    gone, kept = (int(number) / table for number in result.stdout.split())
    assert gone < 3, f"of 24 loads that are gone, {gone:.1f} tables are in memory"
    assert kept > 7, f"of 8 loads that are kept, {kept:.1f} tables are in memory"


def test_a_loaded_model_is_saved_again(model, tmp_path):
    want = _export(model, tmp_path / "first")(tf.constant(SEEN_AND_NEW))
    tf.saved_model.save(tf.saved_model.load(str(tmp_path / "first")), str(tmp_path / "second"))
    for file in (tmp_path / "first").rglob("*.table"):
        file.unlink()
    again = tf.saved_model.load(str(tmp_path / "second"))
    np.testing.assert_array_equal(again.serve(tf.constant(SEEN_AND_NEW)), want)


def test_an_exported_layer_is_a_part_of_another_model(model, tmp_path):
    model.export(str(tmp_path), verbose=False)
    layer = keras.layers.TFSMLayer(str(tmp_path), call_endpoint="serve")
    np.testing.assert_array_equal(layer(SEEN_AND_NEW), model(SEEN_AND_NEW))


def test_a_session_finds_the_rows_in_every_run(model, tmp_path):
    model.export(str(tmp_path), verbose=False)
    want = model(SEEN_AND_NEW).numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = graph.signature_def["serving_default"]
        (keys,), (output,) = signature.inputs.values(), signature.outputs.values()
        for _ in range(2):
            np.testing.assert_array_equal(session.run(output.name, {keys.name: SEEN_AND_NEW}), want)


def test_a_new_process_serves_with_the_package_and_says_what_is_missing_without(model, tmp_path):
    model.export(str(tmp_path / "model"), verbose=False)
    np.save(tmp_path / "keys.npy", SEEN_AND_NEW)
    program = """if True:
        import sys, numpy as np, tensorflow as tf
        folder, package = sys.argv[1:]
        if package == "with": import tf_sparse_emb
        loaded = tf.saved_model.load(folder + "/model")
        np.save(folder + "/answer.npy", loaded.serve(tf.constant(np.load(folder + "/keys.npy"))))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def run(package):
        command = [sys.executable, "-c", program, str(tmp_path), package]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    result = run("with")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), model(SEEN_AND_NEW))
    assert "Op type not registered 'SparseEmb>Embedding" in run("without").stderr


def test_a_saved_model_has_the_rows_once_and_no_state_of_the_optimizer(tmp_path):
    module = tf.Module()
    module.table = tse.EmbeddingVariable(16)
    module.table.bind("adam")
    module.table.lookup(np.arange(5000), insert=True)
    tf.saved_model.save(module, str(tmp_path))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert 5000 * (8 + 64) < size < 5000 * (8 + 64) + 50_000


def test_nothing_is_left_of_a_save(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    model.export(str(tmp_path / "model"), verbose=False)
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_damaged_table_in_a_saved_model_is_named(model, tmp_path):
    model.export(str(tmp_path), verbose=False)
    file = sorted(tmp_path.rglob("*.table*"))[0]
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError, match=f"{file}' is damaged: the checksum"):
        tf.saved_model.load(str(tmp_path))


def test_training_goes_on_after_an_export(model, tmp_path):
    before = [table.numpy() for table in tables_of(model)]
    model.export(str(tmp_path), verbose=False)
    assert [table.numpy() for table in tables_of(model)] == before
    train(model, 2, first=9)
    assert [table.numpy() for table in tables_of(model)] != before
