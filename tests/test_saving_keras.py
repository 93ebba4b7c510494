"""Keras' files: `.keras`, `.weights.h5`, `.weights.json`, and the callbacks that write them."""

import collections
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from saving_cases import assert_same, contents, differ, make_model, tables_of, train

import tf_sparse_emb as tse


def _save_weights(model, path):
    model.save_weights(path / "m.weights.h5")
    return path / "m.weights.h5"


def _save_sharded(model, path):
    model.save_weights(path / "m.weights.json", max_shard_size=1e-6)
    return path / "m.weights.json"


def _save_keras(model, path):
    model.save(path / "m.keras")
    return path / "m.keras"


SAVES = {"h5": _save_weights, "json": _save_sharded, "keras": _save_keras}


@pytest.fixture(params=SAVES)
def save(request):
    return SAVES[request.param]


class Tower(keras.layers.Layer):
    """A layer with a table inside, for models that are not functional."""

    def __init__(self, embedding=None, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding or tse.Embedding(None, 3, combiner="mean")
        self.head = keras.layers.Dense(1)

    def call(self, keys, training=None):
        return self.head(self.embedding(keys, training=training))


class Subclassed(keras.Model):
    def __init__(self, shared=True, **kwargs):
        super().__init__(**kwargs)
        embedding = tse.Embedding(None, 3, combiner="mean", counts="seen")
        self.towers = [Tower(embedding if shared else None) for _ in range(2)]
        self.more = {"own": tse.Embedding(40, 2, combiner="sum")}

    def call(self, keys, training=None):
        outputs = [tower(keys, training=training) for tower in self.towers]
        return outputs[0] * outputs[1] + tf.reduce_sum(self.more["own"](keys % 40, training=training), -1, True)


def _nested():
    keys = keras.Input([3], dtype="int64")
    inner = keras.Sequential([keras.Input([3], dtype="int64"), tse.Embedding(None, 3, combiner="sum")])
    return keras.Model(keys, keras.layers.Dense(1)(inner(keys) + inner(keys + 1)))


MODELS = {
    "subclassed, shared": Subclassed,
    "subclassed": lambda: Subclassed(shared=False),
    "nested": _nested,
    "sequential": lambda: keras.Sequential([tse.Embedding(None, 3, combiner="mean"), keras.layers.Dense(1)]),
}


def _built(name):
    model = MODELS[name]()
    model.compile(tse.optimizers.RowWiseAdam(0.05), "mse")
    model(np.array([[1, 2, 3]]))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_form_come_back(name, save, tmp_path):
    model = _built(name)
    train(model, 3)
    path = save(model, tmp_path)
    loaded = _built(name)
    assert differ(contents(model), contents(loaded)) or len(contents(model)) != len(contents(loaded))
    loaded.load_weights(path)
    for one in (model, loaded):
        train(one, 2, first=3)
    assert_same(contents(loaded), contents(model))


def test_a_loaded_model_is_the_saved_one_without_custom_objects(tmp_path):
    model = make_model()
    train(model, 3)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_same(contents(loaded), contents(model))
    assert json.loads(json.dumps(loaded.get_config())) == json.loads(json.dumps(model.get_config()))
    without = keras.models.load_model(tmp_path / "m.keras", compile=False)
    without.save(tmp_path / "again.keras")  # with the state that nobody has claimed
    assert_same(contents(keras.models.load_model(tmp_path / "again.keras", compile=False)), contents(without))
    for got, want in zip(tables_of(without), tables_of(model), strict=True):
        assert got.numpy() == want.numpy()


def test_what_is_loaded_brings_its_seed(save, tmp_path):
    model, loaded = make_model(seed=5), make_model(seed=6)
    model(np.array([[1, 2, 3]]), training=True)
    loaded.load_weights(save(model, tmp_path))
    layers = [layer for layer in loaded.layers if isinstance(layer, tse.Embedding)]
    assert [layer.seed for layer in layers] == [layer.get_config()["seed"] for layer in layers] == [5, 5]
    assert [table["seed"] for table in loaded.get_layer("collection").get_config()["tables"]] == [5, 5]
    assert_same(contents(loaded), contents(model))


def test_rows_of_an_archive_are_read_beside_the_weights_that_keras_reads(tmp_path, monkeypatch):
    """Python 3.12.0 to 3.12.8 lose their place in one member of an archive when another is read."""
    members, plain = collections.defaultdict(set), zipfile.ZipFile.open

    def recorded(archive, name, *args, **kwargs):
        members[archive].add("weights" if str(name) == "model.weights.h5" else "other")
        return plain(archive, name, *args, **kwargs)

    model, loaded = make_model(seed=5), make_model(seed=6)
    model(np.array([[1, 2, 3]]), training=True)
    path = _save_keras(model, tmp_path)
    monkeypatch.setattr(zipfile.ZipFile, "open", recorded)
    loaded.load_weights(path)
    assert_same(contents(loaded), contents(model))
    assert {"weights"} in members.values() and {"other"} in members.values()
    assert {"weights", "other"} not in members.values()


def test_a_second_new_optimizer_begins_with_fresh_state(save, tmp_path):
    model = make_model()
    train(model, 3)
    loaded = make_model()
    loaded.load_weights(save(model, tmp_path))
    for fresh in (False, True):
        loaded.compile(tse.optimizers.RowWiseAdam(0.05), "mse")
        loaded.optimizer.build(loaded.trainable_variables)
        for got, want in zip(tables_of(loaded), tables_of(model), strict=True):
            assert got.numpy().state.any() != fresh
            np.testing.assert_array_equal(got.numpy().rows, want.numpy().rows)


def test_rows_go_into_a_model_with_another_optimizer(save, tmp_path):
    model = make_model("RowWiseAdam")
    train(model, 3)
    loaded = make_model("Adagrad")
    loaded.optimizer.build(loaded.trainable_variables)
    path = save(model, tmp_path)
    with pytest.warns(UserWarning, match="bound to rule adagrad: the state of rule row_wise_adam in .* is dropped"):
        loaded.load_weights(path)
    for got, want in zip(tables_of(loaded), tables_of(model), strict=True):
        np.testing.assert_array_equal(got.numpy().rows, want.numpy().rows)
        assert got.numpy().rule == "adagrad"
        np.testing.assert_array_equal(got.numpy().state, np.float32(0.1))


def test_keras_says_that_a_dense_optimizer_which_is_not_built_is_left_out(tmp_path):
    model = make_model("dense_optimizer")
    train(model, 3)
    loaded = make_model("dense_optimizer")
    path = _save_weights(model, tmp_path)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'adam"):
        loaded.load_weights(path)


# Callbacks.


def _fit_model():
    keras.utils.set_random_seed(3)
    keys = keras.Input([3], dtype="int64")
    pooled = tse.Embedding(None, 4, combiner="mean", seed=1, counts="seen")(keys)
    model = keras.Model(keys, keras.layers.Dense(1)(pooled))
    model.compile(tse.optimizers.RowWiseAdam(0.05), "mse")
    return model


def _data():
    rng = np.random.default_rng(1)
    return rng.integers(-20, 20, (32, 3)), rng.normal(size=32)


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("weights_only", [False, True])
def test_model_checkpoint_writes_what_the_model_was(weights_only, best, tmp_path):
    path = str(tmp_path / ("{epoch}.weights.h5" if weights_only else "{epoch}.keras"))
    seen = {}

    class Recorder(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch + 1] = contents(self.model)

    class Worse(keras.callbacks.Callback):
        """The second epoch is the best."""

        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = [3.0, 1.0, 2.0][epoch]

    saver = keras.callbacks.ModelCheckpoint(path, "loss", save_best_only=best, save_weights_only=weights_only)
    model = _fit_model()
    model.fit(*_data(), epochs=3, shuffle=False, verbose=0, callbacks=[Worse(), Recorder(), saver])
    written = sorted(int(file.name.split(".")[0]) for file in tmp_path.iterdir())
    assert written == ([1, 2] if best else [1, 2, 3])
    for epoch in written:
        file = path.format(epoch=epoch)
        if weights_only:
            loaded = _fit_model()
            loaded.optimizer.build(loaded.trainable_variables)
            loaded.load_weights(file)
        else:
            loaded = keras.models.load_model(file)
        assert_same(contents(loaded), seen[epoch])


def test_backup_and_restore_goes_on_where_fit_was_interrupted(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(model, *callbacks):
        model.fit(*_data(), epochs=4, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
        return contents(model)

    want = fit(_fit_model())
    with pytest.raises(KeyboardInterrupt):
        fit(_fit_model(), keras.callbacks.BackupAndRestore(tmp_path), Interrupt())
    assert_same(fit(_fit_model(), keras.callbacks.BackupAndRestore(tmp_path)), want)


# What is refused, and leaves the tables as they were.


def _small(dim=3, **kwargs):
    keys = keras.Input([3], dtype="int64")
    return keras.Model(keys, keras.layers.Dense(1)(tse.Embedding(None, dim, combiner="mean", **kwargs)(keys)))


def _refuses(model, path, text, **kwargs):
    model(np.array([[7, 8, 9]]), training=True)
    before = tables_of(model)[0].numpy()
    with pytest.raises(ValueError, match=text):
        model.load_weights(path)
    assert tables_of(model)[0].numpy() == before
    with pytest.warns(UserWarning, match=text):
        model.load_weights(path, skip_mismatch=True)
    assert tables_of(model)[0].numpy() == before


def test_another_width_is_refused_by_name(save, tmp_path):
    model = _small()
    model(np.array([[1, 2, 3]]), training=True)
    _refuses(_small(dim=5), save(model, tmp_path), "has rows of width 5, but .* holds rows of width 3")


def test_a_collection_is_loaded_whole_or_not_at_all(save, tmp_path):
    def make(dims):
        tables = [tse.TableConfig(name, None, dim) for name, dim in zip("ab", dims, strict=True)]
        collection = tse.EmbeddingCollection(tables, [tse.FeatureConfig(name, name) for name in "ab"], concat=True)
        keys = keras.Input([3], dtype="int64")
        return keras.Model(keys, keras.layers.Dense(1)(collection({"a": keys, "b": keys})))

    model = make([2, 3])
    model(np.array([[1, 2, 3]]), training=True)
    _refuses(make([2, 4]), save(model, tmp_path), "has rows of width 4, but .* holds rows of width 3")


def test_weights_of_another_model_are_refused(save, tmp_path):
    keys = keras.Input([3], dtype="int64")
    other = keras.Model(keys, keras.layers.Dense(1)(keras.layers.Embedding(9, 3)(keys)[:, 0]))
    path = save(other, tmp_path)
    _refuses(_small(), path, "no rows of table 'embeddings' in the place of this layer")


def _damage_h5(path):
    with h5py.File(path, "r+") as file:
        blocks = file["layers/embedding/vars/embeddings.0"]
        block = blocks[...]
        block[-100] ^= 1
        blocks[...] = block


def _cut_h5(path):
    with h5py.File(path, "r+") as file:
        group = file["layers/embedding/vars"]
        block = group["embeddings.0"][...]
        del group["embeddings.0"]
        group["embeddings.0"] = block[:-7]


def _damage_h5_of_h5py(path):
    """Damage that h5py finds, which has checksums where they are asked for."""
    with h5py.File(path, "r+") as file:
        group = file["layers/embedding/vars"]
        block = group["embeddings.0"][...]
        del group["embeddings.0"]
        group.create_dataset("embeddings.0", data=block, chunks=block.shape, fletcher32=True)
    data = bytearray(path.read_bytes())
    data[data.rindex(block.tobytes()) + 40] ^= 1
    path.write_bytes(data)


def _damage_keras(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"ROWS") + 40] ^= 1  # zip has a checksum of its own
    path.write_bytes(data)


def test_a_damaged_weights_file_is_refused(tmp_path):
    model = _small()
    model(np.array([[1, 2, 3]]), training=True)
    _damage_h5(_save_weights(model, tmp_path))
    _refuses(_small(), tmp_path / "m.weights.h5", "table 'embeddings' in '.*m.weights.h5' is damaged: the checksum")
    _damage_h5_of_h5py(_save_weights(model, tmp_path))
    _refuses(_small(), tmp_path / "m.weights.h5", "table 'embeddings' in '.*m.weights.h5' is damaged: .*read data")
    _cut_h5(_save_weights(model, tmp_path))
    _refuses(_small(), tmp_path / "m.weights.h5", "table 'embeddings' in '.*m.weights.h5' is cut off")


def test_a_damaged_keras_file_is_refused(tmp_path):
    model = _small()
    model(np.array([[1, 2, 3]]), training=True)
    path = _save_keras(model, tmp_path)
    _damage_keras(path)
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        keras.models.load_model(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="ensure the file is an accessible `.keras` zip file"):
        keras.models.load_model(path)


# Without any asset Keras loads no assets at all.
@pytest.mark.parametrize("instead", ["assets/other", None])
@pytest.mark.parametrize("make", [lambda: _small(), lambda: _nested(), lambda: make_model()])
def test_a_keras_file_without_its_rows_is_refused(make, instead, tmp_path):
    model = make()
    model(np.array([[1, 2, 3]]), training=True)
    path = _save_keras(model, tmp_path)
    stripped = tmp_path / "stripped.keras"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(stripped, "w") as part:
        for name in whole.namelist():
            new = instead if name.endswith(".table") else name
            if new and new not in part.namelist():
                part.writestr(new, whole.read(name))
        assert len(part.namelist()) == (3 if instead is None else 4)
    with pytest.raises(ValueError, match="the file has lost the rows of table '"):
        keras.models.load_model(stripped)
    _refuses(make(), stripped, "the file has lost the rows of table")


@pytest.mark.filterwarnings("ignore:.*HDF5.*")
def test_a_legacy_h5_file_is_refused(tmp_path):
    model = _small()
    model(np.array([[1, 2, 3]]), training=True)
    with pytest.raises(TypeError, match="legacy .h5 file.* would lose the rows"):
        model.save(tmp_path / "m.h5")


class Direct(keras.layers.Layer):
    """A layer that holds a table without being one of this package."""

    def build(self, shape):
        self.table = tse.EmbeddingVariable(2)

    def call(self, keys):
        return tse.embedding_lookup(self.table, keys)


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_a_table_in_a_layer_of_another_kind_is_refused(name, tmp_path):
    model = keras.Sequential([keras.Input([3], dtype="int64"), Direct()])
    with pytest.raises(TypeError, match="tables in tse.Embedding or tse.EmbeddingCollection .* a table by save"):
        (model.save if name == "m.keras" else model.save_weights)(tmp_path / name)


def test_a_subclass_with_variables_of_its_own_keeps_them(save, tmp_path):
    @keras.saving.register_keras_serializable(package="test")
    class Scaled(tse.Embedding):
        def build(self, input_shape=None):
            super().build(input_shape)
            if not hasattr(self, "scale"):
                self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

        def call(self, keys, **kwargs):
            return super().call(keys, **kwargs) * self.scale

    def make():
        keys = keras.Input([3], dtype="int64")
        return keras.Model(keys, Scaled(None, 2, combiner="sum")(keys))

    model = make()
    model(np.array([[1, 2, 3]]), training=True)
    model.layers[1].scale.assign(5.0)
    path = save(model, tmp_path)
    loaded = make()
    loaded.load_weights(path)
    np.testing.assert_array_equal(loaded(np.array([[1, 2, 3]])), model(np.array([[1, 2, 3]])))
    if path.suffix == ".keras":
        again = keras.models.load_model(path)
        np.testing.assert_array_equal(again(np.array([[1, 2, 3]])), model(np.array([[1, 2, 3]])))


def test_a_keras_file_holds_rows_once_and_as_an_asset(tmp_path):
    model = _small(dim=64)
    model(np.arange(3000).reshape(-1, 3), training=True)
    path = _save_keras(model, tmp_path)
    with zipfile.ZipFile(path) as file:
        sizes = {info.filename: info.file_size for info in file.infolist()}
        assert json.loads(file.read("config.json"))["class_name"] == "Functional"
    assert sizes["assets/layers/embedding/embeddings.table"] > 3000 * 64 * 4
    assert sizes["model.weights.h5"] < 50_000
