"""tse.TableSnapshot: get_weights and set_weights of layers and models, and what Keras does with them."""

import copy
import pickle

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

D, VOCABULARY = 4, 60
OPTIMIZERS = {
    "sgd": lambda: tse.optimizers.SGD(0.1),
    "row_wise_adagrad": lambda: tse.optimizers.RowWiseAdagrad(0.1, initial_accumulator_value=0.25),
    "row_wise_adam": lambda: tse.optimizers.RowWiseAdam(0.01),
}
INITIAL_STATE = {"sgd": [], "row_wise_adagrad": [0.25], "row_wise_adam": [0.0] * (D + 1)}


def _layer(storage, **kwargs):
    return tse.Embedding(VOCABULARY if storage == "index" else None, D, storage=storage, **{"seed": 5} | kwargs)


def _step(layer, optimizer, keys, rng):
    keys = np.asarray(keys)
    labels = rng.integers(0, 2, keys.shape) if layer.counts == "clicked" else None
    coefficients = tf.constant(rng.normal(size=(*keys.shape, D)), tf.float32)
    with tf.GradientTape() as tape:
        output = layer(keys, labels=labels, training=True)
        loss = tf.reduce_sum(coefficients * output + 0.5 * output**2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))


def _trained(storage, rule, steps=3, **kwargs):
    """A layer that was trained on the first half of `_keys`, its optimizer and its source of batches."""
    layer, optimizer, rng = _layer(storage, **kwargs), OPTIMIZERS[rule](), np.random.default_rng(1)
    for _ in range(steps):
        _step(layer, optimizer, rng.choice(_keys(storage)[: VOCABULARY // 2], 40), rng)
    return layer, optimizer, rng


def _keys(storage):
    return reference.key_universe(storage, VOCABULARY)


def _content(table):
    """Everything that a table holds, sorted by key: keys, rows with their state, counts."""
    keys, rows, counts = (np.asarray(part) for part in table.export(with_state=True, with_counts=True))
    order = np.argsort(keys)
    return keys[order], rows[order], counts[order]


def _assert_same(got, want):
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _differ(got, want):
    return any(mine.shape != theirs.shape or (mine != theirs).any() for mine, theirs in zip(got, want, strict=True))


@pytest.mark.parametrize("counts", [None, "seen", "clicked"])
def test_a_snapshot_holds_keys_rows_state_counts_and_rule(storage, rule, counts):
    layer, _, _ = _trained(storage, rule, counts=counts)
    (snapshot,) = layer.get_weights()
    assert isinstance(snapshot, tse.TableSnapshot)
    keys, rows, key_counts = _content(layer.embeddings)
    order = np.argsort(snapshot.keys)
    np.testing.assert_array_equal(snapshot.keys[order], keys)
    np.testing.assert_array_equal(snapshot.rows[order], rows[:, :D])
    np.testing.assert_array_equal(snapshot.state[order], rows[:, D:])
    np.testing.assert_array_equal(snapshot.counts[order], key_counts)
    assert snapshot.rule == rule
    assert [part.dtype for part in (snapshot.keys, snapshot.rows, snapshot.state, snapshot.counts)] == [
        np.int64,
        np.float32,
        np.float32,
        np.float64,
    ]
    assert snapshot.state.shape[1] == len(INITIAL_STATE[rule])
    assert snapshot.counts.shape == (len(keys), {None: 0, "seen": 1, "clicked": 2}[counts])
    assert (snapshot.shape, snapshot.dtype) == ((0, D), np.float32)


def test_the_snapshot_of_an_empty_table_has_no_rows(hash_storage):
    layer = _layer(hash_storage)
    layer.build()
    (snapshot,) = layer.get_weights()
    assert (snapshot.keys.shape, snapshot.rows.shape, snapshot.rule) == ((0,), (0, D), "")
    layer(np.arange(5), training=True)
    layer.set_weights([snapshot])
    assert int(layer.embeddings.size()) == 0


@pytest.mark.parametrize("counts", [None, "clicked"])
def test_set_weights_of_a_layer_brings_back_what_get_weights_took(storage, rule, counts):
    layer, optimizer, rng = _trained(storage, rule, counts=counts)
    taken, want = layer.get_weights(), _content(layer.embeddings)
    later = _keys(storage)[VOCABULARY // 2 :]
    for _ in range(3):
        _step(layer, optimizer, later, rng)
    layer.embeddings.remove(_keys(storage)[:3])
    assert _differ(_content(layer.embeddings), want)
    layer.set_weights(taken)
    _assert_same(_content(layer.embeddings), want)
    assert layer.get_weights() == taken
    # On "index" all keys have rows from the start.
    np.testing.assert_array_equal(layer.embeddings.contains(later), np.full(len(later), storage == "index"))


def _model(layer):
    dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=3))
    return keras.Sequential([keras.Input((3,), dtype="int64"), layer, keras.layers.Flatten(), dense])


RULES_OF_STORAGES = [("slab", rule) for rule in reference.RULES] + [
    (storage, "row_wise_adam") for storage in reference.STORAGES if storage != "slab"
]


@pytest.mark.parametrize("storage, rule", RULES_OF_STORAGES)
def test_set_weights_of_a_model_brings_back_its_tables_and_its_dense_weights(storage, rule, rng):
    layer = _layer(storage, counts="seen")
    model = _model(layer)
    model.compile(OPTIMIZERS[rule](), "mse")
    keys = _keys(storage).reshape(-1, 3)
    half = len(keys) // 2
    y = rng.normal(size=(len(keys), 1))
    model.fit(keys[:half], y[:half], batch_size=5, verbose=0)
    taken, want = model.get_weights(), _content(layer.embeddings)
    predictions = model.predict(keys, verbose=0)
    assert [type(weight) for weight in taken] == [tse.TableSnapshot, np.ndarray, np.ndarray]
    model.fit(keys[half:], y[half:], batch_size=5, epochs=2, verbose=0)
    assert _differ(_content(layer.embeddings), want)
    model.set_weights(taken)
    _assert_same(_content(layer.embeddings), want)
    for got, weight in zip(model.get_weights()[1:], taken[1:], strict=True):
        np.testing.assert_array_equal(got, weight)
    np.testing.assert_array_equal(model.predict(keys, verbose=0), predictions)


def test_set_weights_of_a_collection_restores_all_tables(rule, rng):
    layer = tse.EmbeddingCollection(
        [
            tse.TableConfig("item", None, 3, counts="seen"),
            tse.TableConfig("city", 10, 2),
            tse.TableConfig("user", 9, 3),
        ],
        [tse.FeatureConfig(name, name, "sum") for name in ("item", "city", "user")],
    )
    optimizer = OPTIMIZERS[rule]()

    def step(low):
        keys = {"item": rng.integers(low, low + 10**6, (8, 3)), **{n: rng.integers(0, 9, 8) for n in ("city", "user")}}
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(value**2 + value) for value in layer(keys, training=True).values())
        gradients = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

    step(0)
    taken, want = layer.get_weights(), {name: _content(table) for name, table in layer.tables.items()}
    assert [snapshot.shape for snapshot in taken] == [(0, 3), (0, 2), (0, 3)]
    step(10**9)
    assert all(_differ(_content(table), want[name]) for name, table in layer.tables.items())
    layer.set_weights(taken)
    for name, table in layer.tables.items():
        _assert_same(_content(table), want[name])
    with pytest.raises(ValueError, match="weights must be a list of 3.* got 2"):
        layer.set_weights(taken[:2])


@pytest.mark.parametrize(
    "disturbance, counts, decay", [("steps", None, 1.0), ("steps", "clicked", 0.5), ("rows", "clicked", 0.5)]
)
def test_training_goes_on_after_a_restore_as_in_a_twin_that_was_never_disturbed(
    storage, rule, disturbance, counts, decay
):
    contents = []
    for disturbed in (False, True):
        layer, optimizer, rng = _trained(storage, rule, counts=counts, count_decay=decay)
        if disturbed:
            taken, own = layer.get_weights(), [variable.numpy() for variable in optimizer.variables]
            if disturbance == "steps":
                other = np.random.default_rng(8)
                for _ in range(3):
                    _step(layer, optimizer, other.choice(_keys(storage), 40), other)
            else:
                layer.embeddings.upsert(_keys(storage), np.ones((VOCABULARY, D), np.float32))
                layer.embeddings.remove(_keys(storage)[::2])
            layer.set_weights(taken)
            # What the optimizer keeps besides the table: its number of steps.
            for variable, value in zip(optimizer.variables, own, strict=True):
                variable.assign(value)
        for _ in range(3):
            _step(layer, optimizer, rng.choice(_keys(storage), 40), rng)
        contents.append(_content(layer.embeddings))
    _assert_same(contents[1], contents[0])


def test_a_model_goes_on_after_a_restore_as_its_undisturbed_twin(rule, rng):
    keys, y = rng.integers(0, 2**60, (24, 3)), rng.normal(size=(24, 1)).astype(np.float32)
    contents = []
    for disturbed in (False, True):
        layer = _layer("slab")
        model = _model(layer)
        model.compile(OPTIMIZERS[rule](), "mse")
        model.fit(keys[:8], y[:8], shuffle=False, batch_size=4, verbose=0)
        if disturbed:
            taken, own = model.get_weights(), [variable.numpy() for variable in model.optimizer.variables]
            model.fit(keys[8:16], -y[:8], verbose=0)
            model.set_weights(taken)
            for variable, value in zip(model.optimizer.variables, own, strict=True):
                variable.assign(value)
        model.fit(keys[8:], y[8:], shuffle=False, batch_size=4, verbose=0)
        contents.append([*_content(layer.embeddings), *model.get_weights()[1:]])
    _assert_same(contents[1], contents[0])


# Early stopping.


class _Recorder(keras.callbacks.Callback):
    def __init__(self, tables):
        super().__init__()
        self.tables, self.contents, self.kernels = tables, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.contents.append([_content(table) for table in self.tables])
        self.kernels.append(self.model.layers[-1].kernel.numpy())


def _fit_until_it_gets_worse(model, tables, batches, x, compiled):
    """Every epoch has batches of its own, so that rows come in each. Targets are 1; the validation wants 0.4."""
    model.compile(tse.optimizers.RowWiseAdagrad(0.02), "mse", run_eagerly=compiled == "eager")
    recorder = _Recorder(tables)
    stopping = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    # Keras takes a dataset of known length for one epoch's.
    dataset = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    history = model.fit(
        dataset,
        epochs=40,
        steps_per_epoch=2,
        validation_data=(x, np.full((len(next(iter(x.values()))) if isinstance(x, dict) else len(x), 1), 0.4)),
        callbacks=[recorder, stopping],
        shuffle=False,
        verbose=0,
    ).history["val_loss"]
    best = int(np.argmin(history))
    assert best == stopping.best_epoch and 0 < best == len(history) - 3
    return recorder, best


@pytest.mark.parametrize("storage, compiled", [*[(s, "graph") for s in reference.STORAGES], ("slab", "eager")])
def test_early_stopping_restores_the_table_of_the_best_epoch(storage, compiled, rng):
    layer = _layer(storage, counts="seen")
    model = _model(layer)
    universe = _keys(storage)
    first = rng.choice(universe[:12], (80, 2, 4, 2))
    coming = np.repeat(universe[12:], 2)[:, None, None, None] if storage == "index" else _new_keys(80)
    keys = np.concatenate([first, np.broadcast_to(np.resize(coming, (80, 1, 1, 1)), (80, 2, 4, 1))], -1)
    keys = keys.reshape(-1, 4, 3)
    batches = tf.data.Dataset.from_tensor_slices((keys, np.ones((len(keys), 4, 1), np.float32)))
    recorder, best = _fit_until_it_gets_worse(model, [layer.embeddings], batches, keys[0], compiled)
    _assert_same(_content(layer.embeddings), recorder.contents[best][0])
    np.testing.assert_array_equal(model.layers[-1].kernel, recorder.kernels[best])
    last = recorder.contents[-1][0]
    assert _differ(last, recorder.contents[best][0])
    if storage != "index":
        assert len(last[0]) > int(layer.embeddings.size())


def _new_keys(count):
    return (2**61 + np.arange(count)).reshape(-1, 1, 1, 1)


def test_early_stopping_restores_the_tables_of_a_collection(rng):
    layer = tse.EmbeddingCollection(
        [tse.TableConfig("item", None, D), tse.TableConfig("city", 10, 2)],
        [tse.FeatureConfig("item", "item"), tse.FeatureConfig("city", "city")],
        concat=True,
    )
    shapes = {"item": (3,), "city": (1,)}
    inputs = {name: keras.Input(shape, dtype="int64", name=name) for name, shape in shapes.items()}
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(layer(inputs)))
    keys = {"item": rng.integers(0, 30, (160, 4, 3)), "city": rng.integers(0, 10, (160, 4, 1))}
    keys["item"][..., 0] = np.arange(160)[:, None] + 2**60
    batches = tf.data.Dataset.from_tensor_slices((keys, np.ones((160, 4, 1), np.float32)))
    x = {name: values[0] for name, values in keys.items()}
    recorder, best = _fit_until_it_gets_worse(model, list(layer.tables.values()), batches, x, "graph")
    for table, want, last in zip(layer.tables.values(), recorder.contents[best], recorder.contents[-1], strict=True):
        _assert_same(_content(table), want)
        assert _differ(last, want)


# Matrices, other tables and other rules.


@pytest.mark.parametrize("form", ["array", "float64", "lists", "tensor"])
def test_a_matrix_sets_the_rows_of_a_table_with_input_dim(storage, rule, form, rng):
    layer = tse.Embedding(VOCABULARY, D, storage=storage, seed=2)
    layer.build()
    optimizer = OPTIMIZERS[rule]()
    _step(layer, optimizer, np.arange(0, VOCABULARY, 3), rng)
    keys, trained, _ = _content(layer.embeddings)
    matrix = rng.normal(size=(VOCABULARY, D)).astype(np.float32)
    forms = {
        "array": matrix,
        "float64": matrix.astype(np.float64),
        "lists": matrix.tolist(),
        "tensor": tf.constant(matrix),
    }
    layer.set_weights([forms[form]])
    np.testing.assert_array_equal(layer(np.arange(VOCABULARY)), matrix)
    all_keys, content, _ = _content(layer.embeddings)
    np.testing.assert_array_equal(all_keys, np.arange(VOCABULARY))
    want_state = np.tile(np.float32(INITIAL_STATE[rule]), (VOCABULARY, 1))
    want_state[keys] = trained[:, D:]
    np.testing.assert_array_equal(content[:, D:], want_state)


@pytest.mark.parametrize("source", reference.STORAGES)
def test_a_snapshot_goes_into_a_table_of_another_storage(source, storage, rule="row_wise_adam"):
    layer, _, _ = _trained(source, rule, counts="seen")
    if storage == "index" and source != "index":
        layer.embeddings.clear()
        _step(layer, OPTIMIZERS[rule](), np.arange(5, VOCABULARY, 2), np.random.default_rng(0))
    other = _layer(storage, counts="seen", embeddings_initializer="ones", seed=8)
    other.build()
    other.embeddings.bind(rule)
    other(np.arange(7), training=True)
    other.set_weights(layer.get_weights())
    assert other.get_weights() == layer.get_weights()
    _assert_same(_content(other.embeddings), _content(layer.embeddings))


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("bound", [None, *reference.RULES])
@pytest.mark.parametrize("taken_under", [None, *reference.RULES])
def test_the_state_of_another_rule_begins_anew(storage, bound, taken_under):
    if taken_under is None:
        layer = _layer(storage)
        layer(_keys(storage), training=True)
    else:
        layer, _, _ = _trained(storage, taken_under)
    (snapshot,) = layer.get_weights()
    other = _layer(storage)
    other.build()
    if bound is not None:
        OPTIMIZERS[bound]().build(other.trainable_variables)
    other.set_weights([snapshot])
    (got,) = other.get_weights()
    np.testing.assert_array_equal(other(snapshot.keys), snapshot.rows)
    assert got.rule == (bound or "")
    if bound == taken_under:
        assert got == snapshot
    else:
        want = INITIAL_STATE.get(bound, [])
        np.testing.assert_array_equal(got.state, np.tile(np.float32(want), (len(snapshot.keys), 1)))


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("taken, into", [("seen", "clicked"), ("clicked", "seen"), ("clicked", None), (None, "seen")])
def test_counts_of_another_kind_begin_at_zero(storage, taken, into):
    layer, _, _ = _trained(storage, "sgd", counts=taken)
    other, _, _ = _trained(storage, "sgd", counts=into)
    (snapshot,) = layer.get_weights()
    other.set_weights([snapshot])
    np.testing.assert_array_equal(other(snapshot.keys), snapshot.rows)
    counts = other.embeddings.numpy().counts
    np.testing.assert_array_equal(counts, np.zeros((len(snapshot.keys), {None: 0, "seen": 1, "clicked": 2}[into])))


def test_the_optimizer_of_before_goes_on_with_a_table_that_was_restored(storage, rule):
    """set_weights is no new binding, which would refuse the optimizer's updates."""
    layer, optimizer, rng = _trained(storage, rule)
    other, _, _ = _trained(storage, "sgd")
    layer.set_weights(other.get_weights())
    before = _content(layer.embeddings)
    _step(layer, optimizer, _keys(storage), rng)
    assert layer.get_weights()[0].rule == rule
    assert _differ(_content(layer.embeddings), before)


def test_a_frozen_layer_takes_weights_too(storage):
    layer, _, _ = _trained(storage, "row_wise_adagrad")
    taken, want = layer.get_weights(), _content(layer.embeddings)
    layer.trainable = False
    assert layer.get_weights() == taken
    layer.embeddings.remove(_keys(storage)[:9])
    layer.set_weights(taken)
    _assert_same(_content(layer.embeddings), want)


def test_the_row_of_a_padding_key_is_set_like_any_other(storage):
    """Only updates leave it alone; what was saved comes back."""
    layer = _layer(storage, padding_idx=3)
    layer(np.arange(6), training=True)
    layer.embeddings.upsert([3], np.full((1, D), 2.0, np.float32))
    taken = layer.get_weights()
    layer.embeddings.upsert([3], np.zeros((1, D), np.float32))
    layer.set_weights(taken)
    np.testing.assert_array_equal(layer(np.array([3])), np.full((1, D), 2.0))


def test_a_snapshot_and_the_table_do_not_share_memory(storage):
    layer, optimizer, rng = _trained(storage, "row_wise_adagrad", counts="seen")
    (snapshot,) = layer.get_weights()
    kept = copy.deepcopy(snapshot)
    _step(layer, optimizer, _keys(storage), rng)
    assert snapshot == kept
    layer.set_weights([snapshot])
    mine = tse.TableSnapshot(*(np.array(part) for part in (kept.keys, kept.rows, kept.state, kept.counts)), kept.rule)
    layer.set_weights([mine])
    mine.rows[:] = 7.0
    mine.state[:] = 7.0
    assert layer.get_weights() == [kept]


# What is no content of the table.


def _changed(snapshot, **parts):
    values = {name: getattr(snapshot, name) for name in ("keys", "rows", "state", "counts", "rule")}
    return tse.TableSnapshot(**values | parts)


def _with(array, value):
    array = np.array(array)
    array[-1, -1] = value
    return array


BAD_SNAPSHOTS = {
    "rows_of_another_width": (lambda s: _changed(s, rows=s.rows[:, :-1]), f"shape .*{D}.*got .*{D - 1}"),
    "wider_rows": (lambda s: _changed(s, rows=np.repeat(s.rows, 2, 1)), f"shape .*{D}.*got .*{2 * D}"),
    "rows_of_rank_1": (lambda s: _changed(s, rows=s.rows[:, 0]), "shape"),
    "a_row_too_few": (lambda s: _changed(s, rows=s.rows[1:]), "one row for each"),
    "nan_row": (lambda s: _changed(s, rows=_with(s.rows, np.nan)), "finite.*nan"),
    "infinite_row": (lambda s: _changed(s, rows=_with(s.rows, -np.inf)), "finite.*-inf"),
    "nan_state": (lambda s: _changed(s, state=_with(s.state, np.nan)), "state.*finite|finite.*state"),
    "state_of_another_width": (lambda s: _changed(s, state=np.repeat(s.state, 3, 1)), "state"),
    "a_state_too_few": (lambda s: _changed(s, state=s.state[1:]), "state"),
    "a_count_too_few": (lambda s: _changed(s, counts=s.counts[1:]), "counts"),
    "nan_counts": (lambda s: _changed(s, counts=_with(s.counts, np.nan)), "counts.*finite|finite.*counts"),
    "repeated_keys": (lambda s: _changed(s, keys=np.concatenate([s.keys[1:], s.keys[-1:]])), "keys must differ"),
}


@pytest.mark.parametrize("case", BAD_SNAPSHOTS)
def test_a_bad_snapshot_is_an_error_and_the_table_unchanged(storage, case):
    make, match = BAD_SNAPSHOTS[case]
    layer, _, _ = _trained(storage, "row_wise_adagrad", counts="seen")
    (before,) = layer.get_weights()
    bad = make(before)
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError), match=match):
        layer.set_weights([bad])
    assert layer.get_weights() == [before]


OTHER_KINDS = {
    "array": np.zeros((VOCABULARY, D), np.float32),
    "array_of_the_keras_shape": np.zeros((0, D), np.float32),
    "tensor": tf.zeros((VOCABULARY, D)),
    "none": None,
    "string": "rows",
    "number": 0.0,
    "vector": np.zeros(D, np.float32),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_is_no_snapshot_is_a_type_error_on_a_dynamic_table_which_is_unchanged(hash_storage, kind):
    layer, _, _ = _trained(hash_storage, "row_wise_adam")
    before = layer.get_weights()
    with pytest.raises(TypeError, match="is an embedding table; it can be assigned a tse.TableSnapshot, got"):
        layer.set_weights([OTHER_KINDS[kind]])
    assert layer.get_weights() == before


BAD_MATRICES = {
    "a_row_too_few": (np.zeros((VOCABULARY - 1, D)), f"one row for each of {VOCABULARY}.*got {VOCABULARY - 1}"),
    "a_row_too_many": (np.zeros((VOCABULARY + 1, D)), f"one row for each of {VOCABULARY}.*got {VOCABULARY + 1}"),
    "another_width": (np.zeros((VOCABULARY, D + 1)), rf"must be of shape \[V, {D}\], got \({VOCABULARY}, {D + 1}\)"),
    "nan": (np.full((VOCABULARY, D), np.nan), "finite.*nan"),
    "inf": (np.full((VOCABULARY, D), np.inf), "finite.*inf"),
    "vector": (np.zeros(D), rf"tse.TableSnapshot or an array \[{VOCABULARY}, {D}\], got"),
    "rank_3": (np.zeros((1, VOCABULARY, D)), rf"tse.TableSnapshot or an array \[{VOCABULARY}, {D}\], got"),
    "none": (None, rf"tse.TableSnapshot or an array \[{VOCABULARY}, {D}\], got"),
}


@pytest.mark.parametrize("case", BAD_MATRICES)
def test_a_bad_matrix_is_an_error_and_the_table_unchanged(case):
    value, match = BAD_MATRICES[case]
    layer, _, _ = _trained("index", "row_wise_adagrad")
    before = layer.get_weights()
    with pytest.raises((ValueError, TypeError), match=match):
        layer.set_weights([value])
    assert layer.get_weights() == before


@pytest.mark.parametrize("bad", [-1, VOCABULARY, 2**62])
def test_a_snapshot_with_a_key_beyond_the_vocabulary_is_an_error(storage, bad):
    layer = tse.Embedding(VOCABULARY, D, storage=storage)
    layer(np.arange(9), training=True)
    (before,) = layer.get_weights()
    keys = np.array(before.keys)
    keys[2] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"keys must be in \[0, {VOCABULARY}\), got .*{bad}"):
        layer.set_weights([_changed(before, keys=keys)])
    assert layer.get_weights() == [before]


def test_a_snapshot_of_more_than_max_rows_is_an_error(hash_storage):
    layer = _layer(hash_storage, max_rows=10)
    layer(np.arange(10), training=True)
    before = layer.get_weights()
    more = _layer(hash_storage)
    more(np.arange(11), training=True)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows = 10 .* 11 rows"):
        layer.set_weights(more.get_weights())
    assert layer.get_weights() == before
    # Ten others are no more than ten.
    other = _layer(hash_storage)
    other(np.arange(100, 110), training=True)
    layer.set_weights(other.get_weights())
    np.testing.assert_array_equal(np.sort(layer.embeddings.export()[0]), np.arange(100, 110))


def test_a_wrong_number_of_weights_is_a_value_error(storage):
    layer, _, _ = _trained(storage, "sgd")
    before = layer.get_weights()
    for weights in ([], before * 2):
        with pytest.raises(ValueError, match=f"weights must be a list of 1.* got {len(weights)}"):
            layer.set_weights(weights)
    model = _model(layer)
    model(np.zeros((1, 3), np.int64))
    with pytest.raises(ValueError, match="weight"):
        model.set_weights(before)
    assert layer.get_weights() == before


def test_weights_that_are_not_in_a_list_are_an_error_that_says_so(storage):
    layer, _, _ = _trained(storage, "sgd")
    (before,) = layer.get_weights()
    with pytest.raises((TypeError, ValueError), match="weights must be a list of 1"):
        layer.set_weights(before)
    assert layer.get_weights() == [before]


def test_a_layer_that_is_not_built_has_no_weights():
    layer = _layer("slab")
    assert layer.get_weights() == []
    with pytest.raises(ValueError, match="has no weights before it is built"):
        layer.set_weights([tse.EmbeddingVariable(D).numpy()])


@pytest.mark.parametrize("what", ["width", "dense_shape"])
def test_a_model_refuses_weights_of_another_shape(storage, what):
    layer, _, _ = _trained(storage, "sgd")
    model = _model(layer)
    model(np.zeros((1, 3), np.int64))
    taken = model.get_weights()
    (before,) = layer.get_weights()
    wider = tse.EmbeddingVariable(D + 1).numpy()
    bad = [wider, *taken[1:]] if what == "width" else [np.zeros((VOCABULARY, D)), *taken[1:]]
    with pytest.raises(ValueError, match="shape"):
        model.set_weights(bad)
    assert layer.get_weights() == [before]


# The snapshot as an object.


def test_a_snapshot_can_be_pickled_and_copied(storage, rule):
    layer, _, _ = _trained(storage, rule, counts="clicked")
    (snapshot,) = layer.get_weights()
    for again in (pickle.loads(pickle.dumps(snapshot)), copy.copy(snapshot), copy.deepcopy(snapshot)):
        assert isinstance(again, tse.TableSnapshot) and again is not snapshot
        assert again == snapshot and (again != snapshot) is False
    other = _layer(storage, counts="clicked")
    other.build()
    other.embeddings.bind(rule)
    other.set_weights([pickle.loads(pickle.dumps(snapshot))])
    _assert_same(_content(other.embeddings), _content(layer.embeddings))


def test_snapshots_are_equal_when_they_hold_the_same_in_whatever_order(storage):
    layer, _, _ = _trained(storage, "row_wise_adam", counts="seen")
    (snapshot,) = layer.get_weights()
    order = np.random.default_rng(3).permutation(len(snapshot.keys))
    arrays = {name: getattr(snapshot, name)[order] for name in ("keys", "rows", "state", "counts")}
    assert _changed(snapshot, **arrays) == snapshot
    assert _changed(snapshot, **arrays | {"keys": snapshot.keys}) != snapshot


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("part", ["keys", "rows", "state", "counts", "rule", "fewer"])
def test_snapshots_differ_when_a_part_does(storage, part):
    layer, _, _ = _trained(storage, "row_wise_adagrad", counts="seen")
    (snapshot,) = layer.get_weights()
    if part == "rule":
        other = _changed(snapshot, rule="sgd")
    elif part == "fewer":
        arrays = {name: getattr(snapshot, name)[1:] for name in ("keys", "rows", "state", "counts")}
        other = _changed(snapshot, **arrays)
    else:
        array = np.array(getattr(snapshot, part))
        array[(0,) * array.ndim] += 100
        other = _changed(snapshot, **{part: array})
    assert other != snapshot and (other == snapshot) is False


def test_a_snapshot_equals_nothing_else_and_is_no_key(storage):
    layer, _, _ = _trained(storage, "sgd")
    (snapshot,) = layer.get_weights()
    for other in (None, 0, "x", [], {}):
        assert snapshot != other and (snapshot == other) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(snapshot)


AS_ARRAYS = {
    "np.asarray": np.asarray,
    "np.array": np.array,
    "np.array_float": lambda snapshot: np.array(snapshot, np.float32),
    "np.stack": lambda snapshot: np.stack([snapshot, snapshot]),
    "np.mean": np.mean,
    "tf.convert_to_tensor": tf.convert_to_tensor,
    "tf.reduce_sum": tf.reduce_sum,
    "keras.ops": keras.ops.convert_to_tensor,
    "plus": lambda snapshot: snapshot + np.ones(1),
}


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("use", AS_ARRAYS)
def test_a_snapshot_does_not_become_an_array(storage, use):
    layer, _, _ = _trained(storage, "sgd")
    (snapshot,) = layer.get_weights()
    with pytest.raises(TypeError, match="TableSnapshot"):
        AS_ARRAYS[use](snapshot)


def test_its_repr_names_its_size():
    table = tse.EmbeddingVariable(3)
    table.lookup([5, 6], insert=True)
    assert repr(table.numpy()) == "<TableSnapshot of 2 rows of width 3>"
