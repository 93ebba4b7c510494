"""tse.Embedding in models: fit, evaluate, predict; several calls a step; freezing; the optimizers it refuses."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

N, LENGTH, VOCABULARY = 64, 5, 50
OPTIMIZERS = {
    "SGD": lambda: tse.optimizers.SGD(0.1),
    "RowWiseAdagrad": lambda: tse.optimizers.RowWiseAdagrad(0.1),
    "RowWiseAdam": lambda: tse.optimizers.RowWiseAdam(0.01),
}


@pytest.fixture(params=["slab", "index"])
def storage(request):
    """Two of the storages: what is tested here lies above them."""
    return request.param


STORAGES_AND_OPTIMIZERS = [(storage, "RowWiseAdam") for storage in reference.STORAGES] + [
    ("slab", "SGD"),
    ("index", "RowWiseAdagrad"),
]


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request):
    return OPTIMIZERS[request.param]()


@pytest.fixture
def data(rng):
    keys = rng.integers(0, VOCABULARY, (N, LENGTH))
    return keys, (keys.sum(-1, keepdims=True) % 2).astype(np.float32)


def _embedding(storage="slab", **kwargs):
    return tse.Embedding(VOCABULARY if storage == "index" else None, 4, storage=storage, **{"seed": 1} | kwargs)


def _sequential(layer):
    return keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])


def _sequential_with_input(layer):
    return keras.Sequential([keras.Input((LENGTH,), dtype="int64"), *_sequential(layer).layers])


def _functional(layer):
    inputs = keras.Input((LENGTH,), dtype="int64")
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(layer(inputs))))


class Subclassed(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.dense = keras.layers.Dense(1)

    def call(self, keys):
        return self.dense(tf.reshape(self.layer(keys), [-1, LENGTH * 4]))


MODELS = {
    "sequential": _sequential,
    "sequential_with_input": _sequential_with_input,
    "functional": _functional,
    "subclassed": Subclassed,
}


def _rows(table):
    keys, rows = (np.asarray(x) for x in table.export())
    return dict(zip(keys.tolist(), rows.tolist(), strict=True))


FIT_CASES = [
    *[(kind, "slab", run_eagerly) for kind in MODELS for run_eagerly in (False, True)],
    *[("functional", storage, False) for storage in reference.STORAGES if storage != "slab"],
]


@pytest.mark.parametrize("kind, storage, run_eagerly", FIT_CASES)
def test_fit_learns_and_evaluate_and_predict_insert_nothing(kind, storage, optimizer, run_eagerly, data):
    keys, y = data
    layer = _embedding(storage)
    model = MODELS[kind](layer)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly)
    first = model.evaluate(keys, y, verbose=0)
    model.predict(keys, verbose=0)
    assert int(layer.embeddings.size()) == (VOCABULARY if storage == "index" else 0)
    losses = model.fit(keys, y, batch_size=16, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and losses[-1] < first
    assert int(layer.embeddings.size()) == np.unique(keys).size == VOCABULARY
    trained = _rows(layer.embeddings)
    fresh = np.arange(0, VOCABULARY * 3).reshape(-1, LENGTH) % (VOCABULARY if storage == "index" else 10**9)
    model.predict(fresh, verbose=0)
    model.evaluate(fresh, np.zeros((len(fresh), 1)), verbose=0)
    assert _rows(layer.embeddings) == trained
    np.testing.assert_allclose(model.evaluate(keys, y, verbose=0), np.mean((model(keys) - y) ** 2), rtol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_keys_of_fit_keep_all_their_bits(kind, hash_storage, rng):
    """Sequential takes the dtype of an input that it makes itself from the layer; no key may pass through a float."""
    keys = rng.integers(-(2**63), 2**63 - 1, (N, LENGTH))
    layer = _embedding(hash_storage)
    model = MODELS[kind](layer)
    model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
    model.fit(keys, np.ones((N, 1)), verbose=0)
    np.testing.assert_array_equal(np.sort(layer.embeddings.export()[0]), np.unique(keys))


def test_string_keys_through_fit(hash_storage):
    words = np.array([["a", "b"], ["c", "a"]] * 8)
    layer = _embedding(hash_storage)
    inputs = keras.Input((2,), dtype="string")
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(layer(inputs))))
    model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((words, np.ones((16, 1)))).batch(4), verbose=0)
    assert int(layer.embeddings.size()) == 3


TWIN_CASES = [
    *[(storage, None, 3, "graph") for storage in reference.STORAGES],
    *[("slab", pooled, 3, "graph") for pooled in reference.COMBINERS],
    *[("slab", pooled, 1, "graph") for pooled in (None, "mean")],
    ("slab", None, 3, "eager"),
    ("index", "mean", 3, "graph"),
]


@pytest.mark.parametrize("storage, pooled, calls, compiled", TWIN_CASES)
def test_it_trains_as_the_keras_embedding_does_however_often_it_is_called(storage, pooled, calls, compiled, rng):
    """The same model on keras.layers.Embedding with the same rows, under SGD: equal to 1e-6 after four steps."""
    start = rng.normal(scale=0.5, size=(VOCABULARY, 4)).astype(np.float32)
    x = [rng.integers(0, VOCABULARY, (N, LENGTH)) for _ in range(calls)]
    y = rng.normal(size=(N, 1)).astype(np.float32)

    def model_of(layer, pool):
        inputs = [keras.Input((LENGTH,), dtype="int64") for _ in range(calls)]
        pooled_inputs = [pool(layer(i)) for i in inputs]
        joint = keras.layers.Concatenate()(pooled_inputs) if calls > 1 else pooled_inputs[0]
        dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=2))
        return keras.Model(inputs, dense(joint))

    scale = {None: 1.0, "sum": 1.0, "mean": 1 / LENGTH, "sqrtn": LENGTH**-0.5}[pooled]
    flatten = keras.layers.Flatten() if pooled is None else keras.layers.Lambda(lambda r: scale * tf.reduce_sum(r, 1))
    theirs = keras.layers.Embedding(VOCABULARY, 4)
    theirs.build()
    theirs.embeddings.assign(start)
    keras_model = model_of(theirs, flatten)
    ours = _embedding(storage, combiner=pooled)
    tse_model = model_of(ours, keras.layers.Flatten() if pooled is None else lambda r: r)
    ours.embeddings.upsert(np.arange(VOCABULARY), start)
    keras_model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=compiled == "eager")
    tse_model.compile(tse.optimizers.SGD(0.05), "mse", run_eagerly=compiled == "eager")
    for model in (keras_model, tse_model):
        model.fit(x, y, batch_size=N // 2, epochs=2, shuffle=False, verbose=0)
    got = ours.embeddings.lookup(np.arange(VOCABULARY)).numpy()
    np.testing.assert_allclose(got, theirs.embeddings.numpy(), rtol=1e-6, atol=1e-6)
    assert np.abs(got - start).max() > 1e-3
    np.testing.assert_allclose(tse_model.predict(x, verbose=0), keras_model.predict(x, verbose=0), atol=1e-5)


def test_two_models_with_equal_names_have_two_tables(storage, data):
    keys, y = data
    models = []
    for _ in range(2):
        layer = _embedding(storage, name="item")
        model = _functional(layer)
        model.compile(tse.optimizers.SGD(0.1), "mse")
        models.append((layer, model))
    untouched = models[1][0](np.arange(VOCABULARY)).numpy()
    models[0][1].fit(keys, y, verbose=0)
    np.testing.assert_array_equal(models[1][0](np.arange(VOCABULARY)), untouched)
    assert int(models[1][0].embeddings.size()) == (VOCABULARY if storage == "index" else 0)
    assert np.abs(models[0][0](np.arange(VOCABULARY)).numpy() - untouched).max() > 0


def test_the_table_is_in_the_trainable_variables_of_the_model(storage):
    layer = _embedding(storage)
    model = _functional(layer)
    assert [id(v) for v in model.trainable_variables][:1] == [id(layer.embeddings)]
    assert len(model.trainable_variables) == 3


def test_a_custom_loop_without_training_inserts_only_what_it_updates(hash_storage):
    layer = _embedding(hash_storage)
    model = _functional(layer)
    optimizer = tse.optimizers.SGD(1.0)
    keys = np.arange(LENGTH)[None]
    model(keys)
    assert int(layer.embeddings.size()) == 0
    initial = layer(keys).numpy()[0]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(keys))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert int(layer.embeddings.size()) == 0
    kernel = model.layers[-1].kernel.numpy().reshape(LENGTH, 4)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    assert int(layer.embeddings.size()) == LENGTH
    np.testing.assert_allclose(
        layer.embeddings.lookup(keys[0], missing="zeros"), initial - kernel, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("storage, optimizer", STORAGES_AND_OPTIMIZERS, indirect=["optimizer"])
def test_freeze_compile_fit_unfreeze_compile_fit(storage, optimizer, data):
    keys, y = data
    layer = _embedding(storage)
    model = _functional(layer)
    make = type(optimizer).from_config
    model.compile(make(optimizer.get_config()), "mse")
    model.fit(keys[:32], y[:32], verbose=0)
    trained = _rows(layer.embeddings)
    layer.trainable = False
    model.compile(make(optimizer.get_config()), "mse")
    dense = model.layers[-1].kernel.numpy()
    model.fit(keys, y, verbose=0)
    assert _rows(layer.embeddings) == trained
    assert (model.layers[-1].kernel.numpy() != dense).any()
    layer.trainable = True
    model.compile(make(optimizer.get_config()), "mse")
    model.fit(keys, y, verbose=0)
    unfrozen = _rows(layer.embeddings)
    assert len(unfrozen) == VOCABULARY
    assert all(unfrozen[key] != row for key, row in trained.items() if key in keys)


@pytest.mark.parametrize("storage, optimizer", STORAGES_AND_OPTIMIZERS, indirect=["optimizer"])
def test_rows_present_before_the_optimizer_are_where_training_starts(storage, optimizer, data, rng):
    keys, y = data
    start = rng.normal(size=(VOCABULARY, 4)).astype(np.float32)
    make = type(optimizer).from_config
    tables = []
    for order in ("upsert_first", "compile_first"):
        keras.utils.set_random_seed(1)
        layer = _embedding(storage)
        model = _functional(layer)
        if order == "upsert_first":
            layer.embeddings.upsert(np.arange(VOCABULARY), start)
            model.predict(keys, verbose=0)
        model.compile(make(optimizer.get_config()), "mse")
        if order == "compile_first":
            model.optimizer.build(model.trainable_variables)
            layer.embeddings.upsert(np.arange(VOCABULARY), start)
        model.fit(keys, y, shuffle=False, verbose=0)
        tables.append(layer.embeddings.lookup(np.arange(VOCABULARY)).numpy())
    np.testing.assert_array_equal(tables[0], tables[1])
    assert np.abs(tables[0] - start).max() > 1e-4


@pytest.mark.parametrize("name", ["adam", "sgd", "adagrad", "rmsprop"])
@pytest.mark.parametrize("kind, storage", [(kind, "slab") for kind in MODELS] + [("functional", "index")])
def test_a_keras_optimizer_is_a_type_error_that_names_tse_optimizers(kind, name, data, storage):
    layer = _embedding(storage)
    model = MODELS[kind](layer)
    with pytest.raises(TypeError, match=r"tse\.optimizers"):
        model.compile(name, "mse")
        model.fit(*data, verbose=0)


def test_a_keras_optimizer_is_fine_while_the_layer_is_frozen(storage, data):
    layer = _embedding(storage)
    model = _functional(layer)
    layer.trainable = False
    model.compile("adam", "mse")
    losses = model.fit(*data, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore:.*jit_compile.*")
def test_jit_compile_true_falls_back_and_trains_the_same(storage, optimizer, data):
    tables = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(1)
        layer = _embedding(storage)
        model = _functional(layer)
        model.compile(type(optimizer).from_config(optimizer.get_config()), "mse", jit_compile=jit_compile)
        model.fit(*data, shuffle=False, verbose=0)
        tables.append(layer(np.arange(VOCABULARY)).numpy())
    np.testing.assert_array_equal(tables[0], tables[1])


def test_the_layer_says_that_it_has_no_xla_kernel():
    assert _embedding().supports_jit is False


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_low_precision_models_train_their_float32_table(storage, policy, data):
    layer = _embedding(storage, dtype=policy)
    inputs = keras.Input((LENGTH,), dtype="int64")
    model = keras.Sequential([inputs, layer, keras.layers.Flatten(), keras.layers.Dense(1, dtype=policy)])
    model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
    losses = model.fit(*data, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert layer.embeddings.lookup([0]).dtype == tf.float32


def test_steps_per_execution_and_a_dataset_of_unequal_batches(storage, optimizer, data):
    layer = _embedding(storage)
    model = _functional(layer)
    model.compile(optimizer, "mse", steps_per_execution=2)
    model.fit(tf.data.Dataset.from_tensor_slices(data).batch(15), epochs=2, verbose=0)
    assert int(optimizer.iterations) == 2 * -(-N // 15)
    assert int(layer.embeddings.size()) == VOCABULARY


def test_an_empty_batch_is_a_step_that_changes_no_row(storage, data):
    keys, y = data
    layer = _embedding(storage)
    model = _functional(layer)
    model.compile(tse.optimizers.RowWiseAdam(0.1, check_finite=False), loss=lambda t, p: tf.reduce_sum((t - p) ** 2))
    model.fit(keys, y, verbose=0)
    before = _rows(layer.embeddings)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(keys[:0], training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    assert _rows(layer.embeddings) == before


def test_a_table_past_max_rows_stops_fit_and_keeps_its_rows(hash_storage, optimizer):
    layer = _embedding(hash_storage, max_rows=10)
    model = _functional(layer)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(np.arange(10).reshape(2, LENGTH), np.ones((2, 1)), verbose=0)
    before = _rows(layer.embeddings)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|10"):
        model.fit(np.arange(5, 15).reshape(2, LENGTH), np.ones((2, 1)), verbose=0)
    assert _rows(layer.embeddings) == before


def test_a_cloned_model_has_a_table_of_its_own(storage, data):
    layer = _embedding(storage)
    model = _functional(layer)
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(*data, verbose=0)
    clone = keras.models.clone_model(model)
    assert clone.layers[1].embeddings is not layer.embeddings
    np.testing.assert_array_equal(clone.layers[1](np.arange(9)), _embedding(storage)(np.arange(9)))
