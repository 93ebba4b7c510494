"""What `export_for_serving` promises beside the answers: signatures, sizes, errors, and a model that is as it was."""

import os
import shutil

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from serving_cases import flat_outputs, shared, trained, wide_keys

import tf_sparse_emb as tse

D = 6


def small_model(rng=None, **kwargs):
    """A trained model of one table: 20 rows or so, keys [batch, 3] in, one number out."""
    layer = tse.Embedding(None, D, seed=3, name="table", **kwargs)
    model = keras.Sequential(
        [keras.Input([3], dtype="int64", name="items"), layer, keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    return trained(model, wide_keys(rng or np.random.default_rng(3), 8, 3))


def lookup_model(dim=D, **kwargs):
    """A model that is a lookup of keys [batch]."""
    return keras.Sequential([keras.Input([], dtype="int64", name="keys"), tse.Embedding(None, dim, seed=3, **kwargs)])


def serve(path, **inputs):
    loaded = tf.saved_model.load(path)
    outputs = loaded.signatures["serving_default"](
        **{name: tf.constant(np.asarray(value)) for name, value in inputs.items()}
    )
    return {name: value.numpy() for name, value in outputs.items()}


def train_on(model, optimizer, keys):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(keys, training=True) - 1.0) ** 2)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return float(loss)


class _FullDisk(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_training_goes_on_as_if_nothing_had_been_exported_also_where_it_failed(tmp_path, fails, monkeypatch):
    losses = {}
    for exports in (False, True):
        keras.utils.set_random_seed(1)
        rng = np.random.default_rng(0)
        model, optimizer = small_model(rng), tse.optimizers.RowWiseAdam(0.1)
        optimizer.build(model.trainable_variables)
        losses[exports] = []
        for step in range(6):
            if exports and step == 3:
                with monkeypatch.context() as patch:
                    if fails:
                        patch.setattr(tf.saved_model, "save", _raise_full_disk)
                        with pytest.raises(_FullDisk):
                            tse.export_for_serving(model, tmp_path / "model")
                    else:
                        tse.export_for_serving(model, tmp_path / "model")
            losses[exports].append(train_on(model, optimizer, wide_keys(rng, 8, 3)))
    assert losses[True] == losses[False]
    assert len(set(losses[True])) == 6
    assert os.listdir(tmp_path) == ([] if fails else ["model"])


def _raise_full_disk(root, folder, signatures):
    with open(os.path.join(folder, "saved_model.pb"), "w") as file:
        file.write("half")
    raise _FullDisk


def test_an_export_holds_what_the_tables_were_when_it_was_made(tmp_path):
    model, keys = small_model(), wide_keys(np.random.default_rng(5), 4, 3)
    want = model.predict(keys, verbose=0)
    tse.export_for_serving(model, tmp_path / "model")
    model.layers[0].embeddings.upsert(np.unique(keys), np.ones([len(np.unique(keys)), D]))
    assert np.abs(model.predict(keys, verbose=0) - want).max() > 0.1
    np.testing.assert_array_equal(serve(tmp_path / "model", items=keys)["output_0"], want)


def test_serving_inserts_nothing_and_the_model_neither(tmp_path):
    model = lookup_model()
    tse.export_for_serving(model, tmp_path / "model")
    first = serve(tmp_path / "model", keys=[5, 2**40])["output_0"]
    assert int(model.layers[0].embeddings.size()) == 0
    np.testing.assert_array_equal(first, model(np.array([5, 2**40])))


def test_an_existing_path_is_refused_and_kept_but_an_empty_folder_is_filled(tmp_path):
    model = lookup_model()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="path must not exist yet, or be an empty folder, got .*full"):
        tse.export_for_serving(model, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    tse.export_for_serving(model, tmp_path / "empty")
    assert serve(tmp_path / "empty", keys=[1])["output_0"].shape == (1, D)
    tse.export_for_serving(model, tmp_path / "not" / "yet" / "1")
    assert sorted(os.listdir(tmp_path)) == ["empty", "full", "not"]


@pytest.mark.parametrize("missing", ["initial", "zeros"])
def test_missing_overrides_what_the_layers_say(tmp_path, missing):
    model = keras.Sequential(
        [keras.Input([], dtype="int64", name="keys"), tse.Embedding(None, D, seed=3, missing="zeros")]
    )
    model.layers[0].embeddings.upsert([1], np.ones([1, D]))
    tse.export_for_serving(model, tmp_path / "model", missing=missing)
    got = serve(tmp_path / "model", keys=[1, 2])["output_0"]
    want = model.layers[0].embeddings.lookup([1, 2], missing=missing).numpy()
    np.testing.assert_array_equal(got, want)
    assert np.any(got[1]) == (missing == "initial")


# Rows in other formats.


def _rows(rng, count=300, dim=17):
    return (rng.normal(size=(count, dim)) * 10.0 ** rng.integers(-4, 4, (count, 1))).astype(np.float32)


def _bound(rows, rows_dtype):
    """The promised bound on the error of each element."""
    if rows_dtype == "float32":
        return np.zeros(rows.shape)
    if rows_dtype == "float16":
        return np.maximum(2.0**-11 * np.abs(rows), 2.0**-25)
    return np.broadcast_to(np.abs(rows).max(1, keepdims=True) / 254, rows.shape) * (1 + 1e-5)


@pytest.mark.parametrize("rows_dtype, row_bytes", [("float32", 68), ("float16", 34), ("int8", 21)])
def test_the_error_of_rows_is_within_its_bound_and_the_one_that_is_returned(tmp_path, rng, rows_dtype, row_bytes):
    rows, keys = _rows(rng), reference.key_universe("slab", 300)
    model = lookup_model(17)
    model.layers[0].embeddings.upsert(keys, rows)
    (table,) = tse.export_for_serving(model, tmp_path / "model", rows_dtype=rows_dtype).values()
    got = serve(tmp_path / "model", keys=keys)["output_0"]
    errors = np.abs(got.astype(np.float64) - rows)
    assert (errors <= _bound(rows, rows_dtype)).all()
    assert table.rows == 300 and table.bytes == 300 * (8 + row_bytes)
    assert table.max_error == errors.max()
    assert table.rms_error == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-9)
    assert (errors.max() > 0) == (rows_dtype != "float32")


@pytest.mark.parametrize("rows_dtype", ["float16", "int8"])
def test_rows_of_zeros_and_of_the_least_numbers_are_read_as_finite(tmp_path, rows_dtype):
    rows = np.array([[0.0] * D, [1e-45] * D, [-1e-40] * D, [1e-38, -1e-38] * 3], np.float32)
    model = lookup_model()
    model.layers[0].embeddings.upsert([1, 2, 3, 4], rows)
    tse.export_for_serving(model, tmp_path / "model", rows_dtype=rows_dtype)
    got = serve(tmp_path / "model", keys=[1, 2, 3, 4])["output_0"]
    np.testing.assert_allclose(got, rows, atol=2.0**-25)
    np.testing.assert_array_equal(got[0], 0.0)


@pytest.mark.parametrize("rows_dtype, value", [("float16", 70000.0), ("float16", np.inf), ("int8", np.nan)])
def test_a_row_beyond_the_format_is_refused_by_key_and_nothing_is_written(tmp_path, rows_dtype, value):
    model = lookup_model()
    model.layers[0].embeddings.upsert([7, 8], [[0.5] * D, [value, *[0.5] * (D - 1)]])
    with pytest.raises(
        ValueError, match=r"rows_dtype '\w+' takes finite elements up to .*key 8 of table '.*embeddings'"
    ):
        tse.export_for_serving(model, tmp_path / "model", rows_dtype=rows_dtype)
    assert os.listdir(tmp_path) == []


def test_rows_are_written_once(tmp_path, rng):
    model = lookup_model(64)
    keys = reference.key_universe("slab", 20_000)
    model.layers[0].embeddings.upsert(keys, rng.normal(size=(20_000, 64)))
    tse.export_for_serving(model, tmp_path / "model")
    size = sum(file.stat().st_size for file in (tmp_path / "model").rglob("*") if file.is_file())
    content = 20_000 * (8 + 4 * 64)
    assert content < size < content + 100_000


# Signatures.


def _names(path):
    signature = tf.saved_model.load(path).signatures["serving_default"]
    return sorted(signature.structured_input_signature[1]), sorted(signature.structured_outputs)


@pytest.mark.parametrize("inputs", ["one", "list", "dict"])
def test_inputs_and_outputs_are_called_as_by_model_export(tmp_path, inputs):
    tensors = [keras.Input([3], dtype="int64", name="first"), keras.Input([2], dtype="int64", name="second")]

    def model_of(embedding):
        x, y = (embedding(tensor) for tensor in tensors)
        if inputs == "one":
            return keras.Model(tensors[0], x)
        if inputs == "list":
            return keras.Model(tensors, [x, y])
        return keras.Model({"a": tensors[0], "b": tensors[1]}, {"x": x, "y": y})

    stock = model_of(keras.layers.Embedding(10, D))
    stock.export(tmp_path / "stock", verbose=False)
    tse.export_for_serving(model_of(tse.Embedding(None, D, seed=1)), tmp_path / "ours")
    assert _names(tmp_path / "ours") == _names(tmp_path / "stock")


def test_the_endpoint_serve_takes_what_the_model_takes(tmp_path):
    model, inputs = shared(np.random.default_rng(2))
    tse.export_for_serving(model, tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")
    got = loaded.serve({name: tf.constant(value) for name, value in inputs.items()})
    want = model.predict(inputs, verbose=0)
    for name, value in flat_outputs(want).items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("kind", ["tensor_spec", "input_spec", "keras_tensor", "array", "ragged"])
def test_an_input_signature_may_be_of_all_that_model_export_takes(tmp_path, kind):
    keys = np.arange(6).reshape(2, 3)
    spec = {
        "tensor_spec": tf.TensorSpec([None, 3], tf.int64),
        "input_spec": keras.InputSpec(shape=(None, 3), dtype="int64"),
        "keras_tensor": keras.KerasTensor([None, 3], "int64", name=None),
        "array": keys,
        "ragged": tf.RaggedTensorSpec([None, None], tf.int64),
    }[kind]
    layer = tse.Embedding(None, D, combiner="sum", seed=1)
    want = layer(keys).numpy()
    tse.export_for_serving(layer, tmp_path / "model", input_signature=[spec])
    argument = tf.RaggedTensor.from_tensor(keys) if kind == "ragged" else tf.constant(keys)
    loaded = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.serve(argument), want)


class TwoTowers(keras.Model):
    def __init__(self):
        super().__init__()
        self.user, self.item = tse.Embedding(None, D, seed=1, name="user"), tse.Embedding(None, D, seed=2, name="item")
        self.user.build()
        self.item.build()
        self.built = True

    def call(self, inputs):
        return tf.reduce_sum(self.user(inputs["user"]) * self.item(inputs["item"]), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="line")])
    def rate(self, line):
        parts = tf.reshape(tf.strings.to_number(tf.strings.split(line, " ").values, tf.int64), [-1, 2])
        score = self({"user": parts[:, 0], "item": parts[:, 1]})
        if tf.size(line) > 1:  # Python's control flow, which AutoGraph translates
            score += 100.0
        return {"score": score}


def test_signatures_are_functions_of_ones_own_and_write_only_the_tables_that_they_use(tmp_path):
    model = TwoTowers()
    model.user.embeddings.upsert([1, 2], np.full([2, D], 0.5))
    model.item.embeddings.upsert([7], np.full([1, D], 2.0))
    before = model.rate(tf.constant(["1 7", "2 7"]))["score"].numpy()  # traced before
    user = tf.function(lambda keys: model.user(keys), input_signature=[tf.TensorSpec([None], tf.int64, name="keys")])
    assert list(tse.export_for_serving(model, tmp_path / "user", signatures=user)) == ["user/embeddings"]
    np.testing.assert_array_equal(serve(tmp_path / "user", keys=[1])["output_0"], np.full([1, D], 0.5))

    tables = tse.export_for_serving(model, tmp_path / "both", signatures={"rate": model.rate, "user": user})
    assert sorted(tables) == ["item/embeddings", "user/embeddings"]
    loaded = tf.saved_model.load(tmp_path / "both")
    np.testing.assert_array_equal(loaded.signatures["rate"](line=tf.constant(["1 7", "2 7"]))["score"], before)
    np.testing.assert_array_equal(loaded.rate(tf.constant(["1 7"]))["score"], [6.0])
    model.item.embeddings.upsert([7], np.zeros([1, D]))
    np.testing.assert_array_equal(model.rate(tf.constant(["1 7", "2 7"]))["score"], [100.0, 100.0])


class CallsAFunction(keras.Model):
    def __init__(self):
        super().__init__()
        self.table = tse.Embedding(None, D, seed=1)
        self.table.build()
        table = self.table
        self.functions = {"of_nobody": tf.function(lambda keys: table(keys))}
        self.built = True

    def call(self, keys):
        return self.functions["of_nobody"](keys)


@pytest.mark.parametrize("traced_before", [False, True])
def test_a_tf_function_that_would_keep_the_trace_is_refused_and_does_not_keep_it(tmp_path, traced_before):
    model, keys = CallsAFunction(), tf.constant([1, 2], tf.int64)
    if traced_before:
        model(keys)
    with pytest.raises(ValueError, match="calls the tf.function|calls a tf.function traced before"):
        tse.export_for_serving(model, tmp_path / "model", input_signature=[tf.TensorSpec([None], tf.int64)])
    assert os.listdir(tmp_path) == []
    model.table.embeddings.upsert([1, 2], np.ones([2, D]))
    np.testing.assert_array_equal(model(keys), np.ones([2, D]))


# What is refused.


def _call_not_exported():
    class Counting(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = tse.EmbeddingVariable(D, counts="seen")
            self.built = True

        def call(self, keys):
            return self.table.key_counts(keys)

    return Counting()


@pytest.mark.parametrize(
    "error, message, make, kwargs",
    [
        (TypeError, "model must be a Keras model or layer, got Zeros", lambda: keras.initializers.Zeros(), {}),
        (ValueError, "is not built: call it on data first, or fit it", lambda: TwoTowersUnbuilt(), {}),
        (ValueError, "input_signature is needed for", lambda: TwoTowers(), {}),
        (ValueError, "rows_dtype must be one of float32, float16, int8, got 'int4'", lookup_model,
         {"rows_dtype": "int4"}),
        (ValueError, "missing must be 'initial' or 'zeros', got 'error'", lookup_model, {"missing": "error"}),
        (TypeError, "signatures must be tf.functions with an input_signature, got 'serving_default'", lookup_model,
         {"signatures": tf.function(lambda x: x)}),
        (TypeError, "signatures must be tf.functions with an input_signature, got 'a'", lookup_model,
         {"signatures": {"a": len}}),
        (ValueError, "give input_signature, of the model's call, or signatures", lookup_model,
         {"signatures": TwoTowers.rate, "input_signature": [tf.TensorSpec([None], tf.int64)]}),
        (TypeError, "input_signature must be made of tf.TypeSpec, .* got 'int64'", lookup_model,
         {"input_signature": ["int64"]}),
        (ValueError, "uses embedding_table_key_counts, which has no counterpart", _call_not_exported,
         {"input_signature": [tf.TensorSpec([None], tf.int64)]}),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path, error, message, make, kwargs):
    with pytest.raises(error, match=message):
        tse.export_for_serving(make(), tmp_path / "model", **kwargs)
    assert os.listdir(tmp_path) == []


class TwoTowersUnbuilt(keras.Model):
    pass


def test_a_path_of_another_file_system_is_refused():
    with pytest.raises(ValueError, match="path must be a local folder, .* got 'gs://bucket/1'"):
        tse.export_for_serving(lookup_model(), "gs://bucket/1")


@pytest.mark.parametrize("storage", ["index", "slab"])
def test_a_key_out_of_range_is_an_error_that_names_the_input(tmp_path, storage):
    model = keras.Sequential(
        [keras.Input([], dtype="int64", name="keys"), tse.Embedding(10, D, storage=storage, name="country")]
    )
    tse.export_for_serving(model, tmp_path / "model")
    for key in (-1, 10):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 10\) \(keys of layer .*country"
        ):
            serve(tmp_path / "model", keys=[3, key])


def test_row_splits_that_are_none_are_an_error(tmp_path):
    inputs = keras.Input([None], dtype="int64", ragged=True, name="bags")
    model = keras.Model(inputs, tse.Embedding(None, D, combiner="sum", name="bag")(inputs))
    tse.export_for_serving(model, tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")

    def pooled(splits):
        keys = tf.constant([1, 2, 3], tf.int64)
        return loaded.signatures["serving_default"](bags=keys, bags_row_splits=tf.constant(splits, tf.int64))

    assert pooled([0, 1, 3])["output_0"].shape == (2, D)
    for splits in ([0, 2], [1, 2, 3], [0, 3, 2, 3], [0, 4]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="(?i)row_splits|RowPartition|splits"):
            pooled(splits)


def test_a_table_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    model = lookup_model()
    table = model.layers[0].embeddings
    table.upsert(range(5), np.ones([5, D]))
    chunks = table.export_chunks

    def changing(max_rows):
        yield from chunks(2)
        table.upsert([100], np.ones([1, D]))

    monkeypatch.setattr(table, "export_chunks", changing, raising=False)
    with pytest.raises(RuntimeError, match="changed while it was exported; do not train it at the same time"):
        tse.export_for_serving(model, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_an_export_can_be_copied_loaded_twice_and_saved_again(tmp_path):
    model, keys = small_model(), wide_keys(np.random.default_rng(5), 4, 3)
    tse.export_for_serving(model, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    first, second = (tf.saved_model.load(tmp_path / "two") for _ in range(2))
    tf.saved_model.save(first, tmp_path / "three", signatures=first.signatures)
    del first
    third = tf.saved_model.load(tmp_path / "three")
    for loaded in (second, third):
        got = loaded.signatures["serving_default"](items=tf.constant(keys))["output_0"]
        np.testing.assert_array_equal(got, model.predict(keys, verbose=0))
