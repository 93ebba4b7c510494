"""The optimizers of tse.legacy do what tse.optimizers do: on tables, IndexedSlices and dense variables, also by fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from legacy_cases import RULES, assert_same_tables, data, embedding, make_pair, model_of, model_pair, slices

import tf_sparse_emb as tse

STEPS = 5


@pytest.fixture(params=RULES)
def rule(request):
    return request.param


def _variables(rng):
    """A table, a row-wise and an element-wise plain variable and one for dense gradients, for each kind of Keras."""
    start = rng.normal(size=(9, 3)).astype(np.float32)
    ours, theirs = [], []
    for variables, make in ((ours, keras.Variable), (theirs, tf.Variable)):
        table = tse.EmbeddingVariable(3, seed=5)
        table.upsert(np.arange(9), start)
        variables += [table, *(make(start, dtype="float32", name=name) for name in ("embeddings", "lookup", "kernel"))]
    return ours, theirs


def _apply(optimizer, variables, mode):
    """A function of (gradients, indices) that applies a step; indices repeat."""

    def step(grads, indices):
        sparse = [tf.IndexedSlices(grads, indices)] * 3
        optimizer.apply_gradients([*zip([*sparse, grads[:9]], variables, strict=True)])

    return step if mode == "eager" else tf.function(step)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("kwargs", [{}, {"clipnorm": 0.7}, {"global_clipnorm": 0.9, "weight_decay": 0.2}], ids=str)
def test_steps_are_bit_equal_to_those_of_tse_optimizers(rule, mode, kwargs, rng):
    optimizers, variables = make_pair(rule, **kwargs), _variables(rng)
    optimizers[0].build(variables[0])
    steps = [_apply(*pair, mode) for pair in zip(optimizers, variables, strict=True)]
    for _ in range(STEPS):
        grads = tf.constant(rng.normal(size=(12, 3)), tf.float32)
        indices = tf.constant(rng.integers(0, 6, 12), tf.int64)  # rows 6, 7 and 8 are never named
        for step in steps:
            step(grads, indices)
    (our_table, *ours), (their_table, *theirs) = variables
    assert_same_tables(their_table, our_table)
    for got, want in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy())
    assert int(optimizers[1].iterations) == int(optimizers[0].iterations) == STEPS
    for name in optimizers[0].get_slot_names():
        np.testing.assert_array_equal(
            optimizers[1].get_slot(their_table, name).lookup(np.arange(9)),
            optimizers[0].get_slot(our_table, name).lookup(np.arange(9)),
        )
        for got, want in zip(theirs, ours, strict=True):
            slots = optimizers[1].get_slot(got, name), optimizers[0].get_slot(want, name)
            np.testing.assert_array_equal(slots[0].numpy(), slots[1].numpy())


def test_fit_gives_what_keras_3_gives(rule, rng):
    keys, answers = data(rng)
    models = model_pair()
    for model, optimizer in zip(models, make_pair(rule), strict=True):
        model.compile(optimizer, "mse")
        model.fit(keys, answers, batch_size=16, epochs=2, shuffle=False, verbose=0)
    (our_layer, our_dense), (their_layer, their_dense) = (model.layers for model in models)
    assert int(their_layer.embeddings.size()) == 12
    assert_same_tables(their_layer.embeddings, our_layer.embeddings, rtol=1e-5, atol=1e-6)
    for got, want in zip(their_dense.get_weights(), our_dense.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        models[1].predict(keys, verbose=0), models[0].predict(keys, verbose=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        models[1].evaluate(keys, answers, verbose=0), models[0].evaluate(keys, answers, verbose=0), rtol=1e-5
    )


# Where the formulas agree; RMSprop without momentum and Adagrad of tf_keras have epsilon outside of the root.
STOCK = {
    "SGD": (tse.legacy.SGD, tf_keras.optimizers.legacy.SGD, {"learning_rate": 0.1}),
    "Nesterov": (
        tse.legacy.SGD,
        tf_keras.optimizers.legacy.SGD,
        {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True, "decay": 0.3},
    ),
    "Adagrad": (tse.legacy.Adagrad, tf_keras.optimizers.legacy.Adagrad, {"learning_rate": 0.1, "clipvalue": 0.4}),
    "Adam": (
        tse.legacy.Adam,
        tf_keras.optimizers.legacy.Adam,
        {"learning_rate": 0.05, "beta_1": 0.8, "epsilon": 1e-3, "clipnorm": 0.5},
    ),
    "AMSGrad": (
        tse.legacy.Adam,
        tf_keras.optimizers.legacy.Adam,
        {"learning_rate": 0.05, "beta_2": 0.8, "amsgrad": True, "global_clipnorm": 0.5},
    ),
    "Ftrl": (
        tse.legacy.Ftrl,
        tf_keras.optimizers.legacy.Ftrl,
        {"learning_rate": 0.1, "l1_regularization_strength": 0.02, "l2_regularization_strength": 0.1, "beta": 0.2},
    ),
    "RMSprop": (
        tse.legacy.RMSprop,
        tf_keras.optimizers.legacy.RMSprop,
        {"learning_rate": 0.05, "momentum": 0.5, "epsilon": 1e-3},
    ),
    "RMSpropCentered": (
        tse.legacy.RMSprop,
        tf_keras.optimizers.legacy.RMSprop,
        {"learning_rate": 0.05, "momentum": 0.5, "epsilon": 1e-3, "centered": True},
    ),
}


@pytest.mark.parametrize("name", STOCK)
def test_dense_variables_get_the_rule_of_tf_keras(name, rng):
    ours, theirs, arguments = STOCK[name]
    start = rng.normal(size=(4, 3))
    variables = [[tf.Variable(start, dtype=tf.float32, name="kernel"), tf.Variable(1.0)] for _ in range(2)]
    optimizers = ours(**arguments), theirs(**arguments)
    for _ in range(20):
        grads = [tf.constant(rng.normal(size=(4, 3)), tf.float32), tf.constant(rng.normal(), tf.float32)]
        for optimizer, pair in zip(optimizers, variables, strict=True):
            optimizer.apply_gradients(zip(grads, pair, strict=True))
    for got, want in zip(*variables, strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=2e-6)
    assert np.abs(variables[0][0].numpy() - start).max() > 0.1


RATES = {
    "schedule": ({"learning_rate": tf_keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.25])}, -0.75),
    "callable": ({"learning_rate": lambda: 0.5}, -1.0),
    "decay": ({"learning_rate": 1.0, "decay": 1.0}, -1.5),
    "lr": ({"lr": 0.25}, -0.5),
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", RATES)
def test_a_learning_rate_of_any_kind_reaches_tables(name, mode):
    arguments, want = RATES[name]
    table, optimizer = tse.EmbeddingVariable(1, initializer="zeros"), tse.legacy.SGD(**arguments)

    def step():
        optimizer.apply_gradients([(slices([[1.0]], [7]), table)])

    step = step if mode == "eager" else tf.function(step)
    step()
    step()
    assert float(table.lookup([7])[0, 0]) == pytest.approx(want)


def test_an_assigned_learning_rate_holds_from_the_next_step_on():
    table, optimizer = tse.EmbeddingVariable(1, initializer="zeros"), tse.legacy.SGD(1.0)

    @tf.function
    def step():
        optimizer.apply_gradients([(slices([[1.0]], [7]), table)])

    step()
    optimizer.learning_rate = 0.25
    step()
    assert float(table.lookup([7])[0, 0]) == -1.25


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("where", ["table", "sum", "dense"])
def test_a_gradient_that_is_not_finite_changes_nothing(bad, mode, where):
    table, kernel = tse.EmbeddingVariable(2, initializer="ones", name="item"), tf.Variable([1.0, 1.0], name="kernel")
    table.lookup([5, 9], insert=True)
    optimizer = tse.legacy.RowWiseAdam(0.1)

    def step():
        row = {"table": bad, "sum": 3e38, "dense": 1.0}[where]
        grads = [
            slices([[1.0, 1.0], [row, 1.0], [row, 1.0]], [5, 9, 9]),
            tf.constant([bad if where == "dense" else 1.0, 1.0]),
        ]
        optimizer.apply_gradients(zip(grads, [table, kernel], strict=True))

    expected = "kernel" if where == "dense" else "key 9 of table 'item'"
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        (step if mode == "eager" else tf.function(step))()
    np.testing.assert_array_equal(table.lookup([5, 9]), np.ones((2, 2)))
    np.testing.assert_array_equal(kernel.numpy(), [1.0, 1.0])
    assert int(optimizer.iterations) == 0
    lenient = tse.legacy.SGD(0.1, check_finite=False)
    lenient.apply_gradients([(slices([[bad, 1.0]], [9]), table)])
    assert not np.isfinite(table.lookup([9]).numpy()).all()


def test_the_hook_sums_repeated_keys_of_who_calls_it_directly():
    table, plain = tse.EmbeddingVariable(1, initializer="zeros"), tf.Variable(np.zeros((4, 1), np.float32))
    optimizer = tse.legacy.Adagrad(1.0, initial_accumulator_value=0.0)
    # Binds the table, and makes slots.
    optimizer.apply_gradients([(slices(np.zeros((1, 1)), [1]), v) for v in (table, plain)])
    for variable in (table.value, plain):
        optimizer._resource_apply_sparse_duplicate_indices(tf.ones([3, 1]), variable, tf.constant([2, 3, 2], tf.int64))
    np.testing.assert_allclose(optimizer.get_slot(table, "accumulator").lookup([2, 3]), [[4.0], [1.0]])
    np.testing.assert_allclose(optimizer.get_slot(plain, "accumulator").numpy()[2:], [[4.0], [1.0]])
    np.testing.assert_allclose(table.lookup([2, 3]), plain.numpy()[2:], rtol=1e-6)


def test_transformed_gradients_are_summed_and_checked_again():
    table = tse.EmbeddingVariable(1, initializer="zeros")

    def repeat(grads_and_vars):
        return [
            (tf.IndexedSlices(tf.concat([g.values, g.values], 0), tf.concat([g.indices, g.indices], 0)), v)
            for g, v in grads_and_vars
        ]

    optimizer = tse.legacy.SGD(1.0, gradient_transformers=[repeat])
    optimizer.apply_gradients([(slices([[1.0], [1.0]], [4, 4]), table)])
    assert float(table.lookup([4])[0, 0]) == -4.0
    with pytest.raises(tf.errors.InvalidArgumentError, match="key 4 of table"):
        optimizer.apply_gradients([(slices([[3e38]], [4]), table)])
    assert float(table.lookup([4])[0, 0]) == -4.0


def test_minimize_updates_tables_given_as_layers_list_them(rule):
    optimizer = make_pair(rule)[1]
    layer = embedding(tse.legacy, embeddings_initializer="ones")
    layer.build()
    optimizer.minimize(lambda: tf.reduce_sum(layer(np.array([[1, 2, 1]]), training=True)), layer.trainable_variables)
    rows = layer.embeddings.lookup([1, 2, 3]).numpy()
    assert (rows[:2] < 1).all()
    assert (rows[2] == 1).all()
    names = optimizer.get_slot_names()
    assert all(optimizer.get_slot(layer.trainable_variables[0], name).width in (1, 4) for name in names)


def test_an_unknown_slot_or_variable_is_a_key_error_that_names_it():
    table = tse.EmbeddingVariable(3, name="item")
    optimizer = tse.legacy.Adam()
    with pytest.raises(KeyError, match="Adam has not updated variable 'item'"):
        optimizer.get_slot(table, "momentum")
    optimizer.apply_gradients([(slices(np.ones((1, 3)), [1]), table)])
    with pytest.raises(KeyError, match="slot_name must be one of momentum, velocity, got 'm'"):
        optimizer.get_slot(table, "m")
    with pytest.raises(KeyError, match="Adam has not updated variable 'other'"):
        optimizer.get_slot(tf.Variable(1.0, name="other"), "momentum")


def test_a_new_optimizer_starts_afresh_and_the_old_one_is_refused():
    table = tse.EmbeddingVariable(1, initializer="zeros")
    first, second = tse.legacy.Adagrad(1.0), tse.legacy.Adagrad(1.0)
    step = [(slices([[1.0]], [3]), table)]
    first.apply_gradients(step)
    second.apply_gradients(step)
    np.testing.assert_allclose(second.get_slot(table, "accumulator").lookup([3]), [[1.1]])
    with pytest.raises(tf.errors.FailedPreconditionError):
        first.apply_gradients(step)


def test_half_precision_variables_are_updated_in_float32(rule, rng):
    optimizers, start = make_pair(rule), rng.normal(size=(6, 2))
    ours, theirs = keras.Variable(start, dtype="bfloat16", name="w"), tf.Variable(tf.cast(start, tf.bfloat16), name="w")
    optimizers[0].build([ours])
    for _ in range(3):
        grad = tf.cast(rng.normal(size=(6, 2)), tf.bfloat16)
        optimizers[0].apply_gradients([(grad, ours)])
        optimizers[1].apply_gradients([(grad, theirs)])
    np.testing.assert_array_equal(theirs.numpy().astype(np.float32), tf.cast(ours.value, tf.float32).numpy())


def test_a_config_makes_the_same_optimizer(rule):
    schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = make_pair(rule, learning_rate=schedule, weight_decay=0.01, clipvalue=1.0, row_wise_variables="x")[1]
    config = tf_keras.optimizers.serialize(optimizer)
    again = tf_keras.optimizers.deserialize(config)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["clipvalue"] == 1.0
    assert type(optimizer).from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    assert again.get_slot_names() == optimizer.get_slot_names()


def test_weights_of_an_optimizer_are_the_step_and_the_slots_of_plain_variables(rng):
    variable, table = tf.Variable([1.0, 2.0]), tse.EmbeddingVariable(2)
    optimizer, again = tse.legacy.Adam(0.1), tse.legacy.Adam(0.1)
    optimizer.apply_gradients([(tf.constant([1.0, -1.0]), variable), (slices([[1.0, 1.0]], [3]), table)])
    again._create_all_weights([variable])
    again.set_weights(optimizer.get_weights())
    assert int(again.iterations) == 1
    np.testing.assert_array_equal(again.get_slot(variable, "momentum"), optimizer.get_slot(variable, "momentum"))


REFUSED = {
    "overrides": (lambda: tse.legacy.SGD(overrides={"a": 1.0}), ValueError, "tse.legacy have no overrides, got"),
    "dense": (lambda: tse.legacy.SGD(dense_optimizer="adam"), ValueError, "have no dense_optimizer, got 'adam'"),
    "ema": (lambda: tse.legacy.Adam(use_ema=True), ValueError, "have no use_ema, got True"),
    "scale": (lambda: tse.legacy.Adam(loss_scale_factor=2.0), ValueError, "have no loss_scale_factor, got 2.0"),
    "unknown": (lambda: tse.legacy.Adam(beta_3=0.1), TypeError, "beta_3"),
    "schedule": (
        lambda: tse.legacy.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)),
        ValueError,
        "learning_rate must be .* got a schedule of Keras 3, ExponentialDecay",
    ),
    "decay": (lambda: tse.legacy.Adam(weight_decay=-0.1), ValueError, "weight_decay must not be negative, got -0.1"),
    "pattern": (lambda: tse.legacy.Adam(row_wise_variables="("), ValueError, "must be a regular expression, got '\\('"),
    "beta": (lambda: tse.legacy.Adam(beta_1=1.0), ValueError, r"beta_1 must be in \[0, 1\), got 1.0"),
    "clip": (lambda: tse.legacy.Adam(clipnorm=-1.0), ValueError, "clipnorm >= 0"),
    "dense gradient": (
        lambda: tse.legacy.SGD().apply_gradients([(tf.zeros([2, 2]), tse.EmbeddingVariable(2, name="item"))]),
        TypeError,
        "the gradient of embedding table 'item' must be tf.IndexedSlices, got a dense tensor",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_refused_by_name(name):
    make, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        make()


STOCK_OPTIMIZERS = {
    "adam": lambda: "adam",
    "new SGD": lambda: tf_keras.optimizers.SGD(0.1),
    "new Adagrad": lambda: tf_keras.optimizers.Adagrad(0.1),
    "legacy SGD": lambda: tf_keras.optimizers.legacy.SGD(0.1),
    "legacy Adam": lambda: tf_keras.optimizers.legacy.Adam(0.1),
    "legacy Adagrad": lambda: tf_keras.optimizers.legacy.Adagrad(0.1),
}


@pytest.mark.parametrize("name", STOCK_OPTIMIZERS)
def test_an_optimizer_of_tf_keras_on_a_table_is_an_error_that_names_tse_legacy(name, rng):
    keys, answers = data(rng)
    model = model_of(tf_keras, embedding(tse.legacy))
    before = model.layers[-1].get_weights()
    model.compile(STOCK_OPTIMIZERS[name](), "mse", run_eagerly=True)
    with pytest.raises(
        TypeError, match="'user/embeddings' is an embedding table, which only the optimizers of tse.legacy"
    ):
        model.fit(keys, answers, verbose=0)
    for got, want in zip(model.layers[-1].get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)
