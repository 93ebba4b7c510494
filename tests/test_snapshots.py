"""tse.TableSnapshot: get_weights and set_weights of layers and models."""

import copy

import numpy as np
import pytest
import reference
import tensorflow as tf
from snapshot_cases import (
    INITIAL_STATE,
    OPTIMIZERS,
    VOCABULARY,
    D,
    assert_same,
    contents_differ,
    keys_of,
    make_layer,
    make_model,
    table_content,
    train_step,
    trained_layer,
)

import tf_sparse_emb as tse


@pytest.mark.parametrize("counts", [None, "seen", "clicked"])
def test_a_snapshot_holds_keys_rows_state_counts_and_rule(storage, rule, counts):
    layer, _, _ = trained_layer(storage, rule, counts=counts)
    (snapshot,) = layer.get_weights()
    assert isinstance(snapshot, tse.TableSnapshot)
    keys, rows, key_counts = table_content(layer.embeddings)
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
    layer = make_layer(hash_storage)
    layer.build()
    (snapshot,) = layer.get_weights()
    assert (snapshot.keys.shape, snapshot.rows.shape, snapshot.rule) == ((0,), (0, D), "")
    layer(np.arange(5), training=True)
    layer.set_weights([snapshot])
    assert int(layer.embeddings.size()) == 0


@pytest.mark.parametrize("counts", [None, "clicked"])
def test_set_weights_of_a_layer_brings_back_what_get_weights_took(storage, rule, counts):
    layer, optimizer, rng = trained_layer(storage, rule, counts=counts)
    taken, want = layer.get_weights(), table_content(layer.embeddings)
    later = keys_of(storage)[VOCABULARY // 2 :]
    for _ in range(3):
        train_step(layer, optimizer, later, rng)
    layer.embeddings.remove(keys_of(storage)[:3])
    assert contents_differ(table_content(layer.embeddings), want)
    layer.set_weights(taken)
    assert_same(table_content(layer.embeddings), want)
    assert layer.get_weights() == taken
    # On "index" all keys have rows from the start.
    np.testing.assert_array_equal(layer.embeddings.contains(later), np.full(len(later), storage == "index"))


RULES_OF_STORAGES = [("slab", rule) for rule in reference.RULES] + [
    (storage, "row_wise_adam") for storage in reference.STORAGES if storage != "slab"
]


@pytest.mark.parametrize("storage, rule", RULES_OF_STORAGES)
def test_set_weights_of_a_model_brings_back_its_tables_and_its_dense_weights(storage, rule, rng):
    layer = make_layer(storage, counts="seen")
    model = make_model(layer)
    model.compile(OPTIMIZERS[rule](), "mse")
    keys = keys_of(storage).reshape(-1, 3)
    half = len(keys) // 2
    y = rng.normal(size=(len(keys), 1))
    model.fit(keys[:half], y[:half], batch_size=5, verbose=0)
    taken, want = model.get_weights(), table_content(layer.embeddings)
    predictions = model.predict(keys, verbose=0)
    assert [type(weight) for weight in taken] == [tse.TableSnapshot, np.ndarray, np.ndarray]
    model.fit(keys[half:], y[half:], batch_size=5, epochs=2, verbose=0)
    assert contents_differ(table_content(layer.embeddings), want)
    model.set_weights(taken)
    assert_same(table_content(layer.embeddings), want)
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
    taken, want = layer.get_weights(), {name: table_content(table) for name, table in layer.tables.items()}
    assert [snapshot.shape for snapshot in taken] == [(0, 3), (0, 2), (0, 3)]
    step(10**9)
    assert all(contents_differ(table_content(table), want[name]) for name, table in layer.tables.items())
    layer.set_weights(taken)
    for name, table in layer.tables.items():
        assert_same(table_content(table), want[name])
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
        layer, optimizer, rng = trained_layer(storage, rule, counts=counts, count_decay=decay)
        if disturbed:
            taken, own = layer.get_weights(), [variable.numpy() for variable in optimizer.variables]
            if disturbance == "steps":
                other = np.random.default_rng(8)
                for _ in range(3):
                    train_step(layer, optimizer, other.choice(keys_of(storage), 40), other)
            else:
                layer.embeddings.upsert(keys_of(storage), np.ones((VOCABULARY, D), np.float32))
                layer.embeddings.remove(keys_of(storage)[::2])
            layer.set_weights(taken)
            # What the optimizer keeps besides the table: its number of steps.
            for variable, value in zip(optimizer.variables, own, strict=True):
                variable.assign(value)
        for _ in range(3):
            train_step(layer, optimizer, rng.choice(keys_of(storage), 40), rng)
        contents.append(table_content(layer.embeddings))
    assert_same(contents[1], contents[0])


def test_a_model_goes_on_after_a_restore_as_its_undisturbed_twin(rule, rng):
    keys, y = rng.integers(0, 2**60, (24, 3)), rng.normal(size=(24, 1)).astype(np.float32)
    contents = []
    for disturbed in (False, True):
        layer = make_layer("slab")
        model = make_model(layer)
        model.compile(OPTIMIZERS[rule](), "mse")
        model.fit(keys[:8], y[:8], shuffle=False, batch_size=4, verbose=0)
        if disturbed:
            taken, own = model.get_weights(), [variable.numpy() for variable in model.optimizer.variables]
            model.fit(keys[8:16], -y[:8], verbose=0)
            model.set_weights(taken)
            for variable, value in zip(model.optimizer.variables, own, strict=True):
                variable.assign(value)
        model.fit(keys[8:], y[8:], shuffle=False, batch_size=4, verbose=0)
        contents.append([*table_content(layer.embeddings), *model.get_weights()[1:]])
    assert_same(contents[1], contents[0])


# Matrices, other tables and other rules.


@pytest.mark.parametrize("form", ["array", "float64", "lists", "tensor"])
def test_a_matrix_sets_the_rows_of_a_table_with_input_dim(storage, rule, form, rng):
    layer = tse.Embedding(VOCABULARY, D, storage=storage, seed=2)
    layer.build()
    optimizer = OPTIMIZERS[rule]()
    train_step(layer, optimizer, np.arange(0, VOCABULARY, 3), rng)
    keys, trained, _ = table_content(layer.embeddings)
    matrix = rng.normal(size=(VOCABULARY, D)).astype(np.float32)
    forms = {
        "array": matrix,
        "float64": matrix.astype(np.float64),
        "lists": matrix.tolist(),
        "tensor": tf.constant(matrix),
    }
    layer.set_weights([forms[form]])
    np.testing.assert_array_equal(layer(np.arange(VOCABULARY)), matrix)
    all_keys, content, _ = table_content(layer.embeddings)
    np.testing.assert_array_equal(all_keys, np.arange(VOCABULARY))
    want_state = np.tile(np.float32(INITIAL_STATE[rule]), (VOCABULARY, 1))
    want_state[keys] = trained[:, D:]
    np.testing.assert_array_equal(content[:, D:], want_state)


@pytest.mark.parametrize("source", reference.STORAGES)
def test_a_snapshot_goes_into_a_table_of_another_storage(source, storage, rule="row_wise_adam"):
    layer, _, _ = trained_layer(source, rule, counts="seen")
    if storage == "index" and source != "index":
        layer.embeddings.clear()
        train_step(layer, OPTIMIZERS[rule](), np.arange(5, VOCABULARY, 2), np.random.default_rng(0))
    other = make_layer(storage, counts="seen", embeddings_initializer="ones", seed=8)
    other.build()
    other.embeddings.bind(rule)
    other(np.arange(7), training=True)
    other.set_weights(layer.get_weights())
    assert other.get_weights() == layer.get_weights()
    assert_same(table_content(other.embeddings), table_content(layer.embeddings))


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("bound", [None, *reference.RULES])
@pytest.mark.parametrize("taken_under", [None, *reference.RULES])
def test_the_state_of_another_rule_begins_anew(storage, bound, taken_under):
    if taken_under is None:
        layer = make_layer(storage)
        layer(keys_of(storage), training=True)
    else:
        layer, _, _ = trained_layer(storage, taken_under)
    (snapshot,) = layer.get_weights()
    other = make_layer(storage)
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
    layer, _, _ = trained_layer(storage, "sgd", counts=taken)
    other, _, _ = trained_layer(storage, "sgd", counts=into)
    (snapshot,) = layer.get_weights()
    other.set_weights([snapshot])
    np.testing.assert_array_equal(other(snapshot.keys), snapshot.rows)
    counts = other.embeddings.numpy().counts
    np.testing.assert_array_equal(counts, np.zeros((len(snapshot.keys), {None: 0, "seen": 1, "clicked": 2}[into])))


def test_the_optimizer_of_before_goes_on_with_a_table_that_was_restored(storage, rule):
    """set_weights is no new binding, which would refuse the optimizer's updates."""
    layer, optimizer, rng = trained_layer(storage, rule)
    other, _, _ = trained_layer(storage, "sgd")
    layer.set_weights(other.get_weights())
    before = table_content(layer.embeddings)
    train_step(layer, optimizer, keys_of(storage), rng)
    assert layer.get_weights()[0].rule == rule
    assert contents_differ(table_content(layer.embeddings), before)


def test_a_frozen_layer_takes_weights_too(storage):
    layer, _, _ = trained_layer(storage, "row_wise_adagrad")
    taken, want = layer.get_weights(), table_content(layer.embeddings)
    layer.trainable = False
    assert layer.get_weights() == taken
    layer.embeddings.remove(keys_of(storage)[:9])
    layer.set_weights(taken)
    assert_same(table_content(layer.embeddings), want)


def test_the_row_of_a_padding_key_is_set_like_any_other(storage):
    """Only updates leave it alone; what was saved comes back."""
    layer = make_layer(storage, padding_idx=3)
    layer(np.arange(6), training=True)
    layer.embeddings.upsert([3], np.full((1, D), 2.0, np.float32))
    taken = layer.get_weights()
    layer.embeddings.upsert([3], np.zeros((1, D), np.float32))
    layer.set_weights(taken)
    np.testing.assert_array_equal(layer(np.array([3])), np.full((1, D), 2.0))


def test_a_snapshot_and_the_table_do_not_share_memory(storage):
    layer, optimizer, rng = trained_layer(storage, "row_wise_adagrad", counts="seen")
    (snapshot,) = layer.get_weights()
    kept = copy.deepcopy(snapshot)
    train_step(layer, optimizer, keys_of(storage), rng)
    assert snapshot == kept
    layer.set_weights([snapshot])
    mine = tse.TableSnapshot(*(np.array(part) for part in (kept.keys, kept.rows, kept.state, kept.counts)), kept.rule)
    layer.set_weights([mine])
    mine.rows[:] = 7.0
    mine.state[:] = 7.0
    assert layer.get_weights() == [kept]
