"""tse.optimizers against float64 twins and against Keras: tables, IndexedSlices on plain variables, dense variables."""

import functools

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

V, STEPS = 60, 50
CASES = {
    "SGD": (tse.optimizers.SGD, "sgd", {"learning_rate": 0.05}),
    "RowWiseAdagrad": (tse.optimizers.RowWiseAdagrad, "row_wise_adagrad", {"learning_rate": 0.05, "epsilon": 1e-4}),
    "RowWiseAdam": (
        tse.optimizers.RowWiseAdam,
        "row_wise_adam",
        {"learning_rate": 0.01, "beta_1": 0.85, "beta_2": 0.99, "epsilon": 1e-5},
    ),
    "Momentum": (tse.optimizers.SGD, "momentum", {"learning_rate": 0.01, "momentum": 0.8}),
    "Nesterov": (tse.optimizers.SGD, "momentum", {"learning_rate": 0.01, "momentum": 0.8, "nesterov": True}),
    "Adagrad": (tse.optimizers.Adagrad, "adagrad", {"learning_rate": 0.05, "epsilon": 1e-5}),
    "AdagradDecay": (
        tse.optimizers.AdagradDecay,
        "adagrad_decay",
        {"learning_rate": 0.05, "decay_step": 7, "decay_rate": 0.5, "initial_accumulator_value": 0.1},
    ),
    "Adam": (tse.optimizers.Adam, "adam", {"learning_rate": 0.01, "beta_1": 0.85, "beta_2": 0.99, "epsilon": 1e-5}),
    "AMSGrad": (tse.optimizers.Adam, "adam_amsgrad", {"learning_rate": 0.01, "beta_2": 0.9, "epsilon": 1e-5}),
    "Ftrl": (
        tse.optimizers.Ftrl,
        "ftrl",
        {"learning_rate": 0.1, "l1_regularization_strength": 0.05, "l2_regularization_strength": 0.1, "beta": 0.2},
    ),
    "RMSprop": (tse.optimizers.RMSprop, "rmsprop", {"learning_rate": 0.01, "epsilon": 1e-4}),
    "RMSpropMomentum": (
        tse.optimizers.RMSprop,
        "rmsprop_momentum",
        {"learning_rate": 0.003, "momentum": 0.7, "epsilon": 1e-4},
    ),
    "RMSpropCentered": (tse.optimizers.RMSprop, "rmsprop_centered", {"learning_rate": 0.01, "epsilon": 1e-3}),
    "RMSpropCenteredMomentum": (
        tse.optimizers.RMSprop,
        "rmsprop_centered_momentum",
        {"learning_rate": 0.003, "momentum": 0.7, "epsilon": 1e-3},
    ),
}
# What a class takes beside the hyper-parameters of its rule.
EXTRA = {
    "AMSGrad": {"amsgrad": True},
    "RMSpropCentered": {"centered": True},
    "RMSpropCenteredMomentum": {"centered": True},
}
# The state that a row begins with, of width D.
INITIAL_STATE = {
    "adagrad": lambda dim: 0.1,
    "adagrad_decay": lambda dim: [0.1] * dim + [0.0],
    "ftrl": lambda dim: [0.1] * dim + [0.0] * dim,
}


def _twin(start, rule):
    return reference.TableTwin(start, rule, INITIAL_STATE.get(rule, lambda dim: 0.0)(start.shape[1]))


@pytest.fixture(params=CASES)
def case(request):
    """(what makes the optimizer, rule, hyper-parameters)"""
    cls, rule, hyperparameters = CASES[request.param]
    return functools.partial(cls, **EXTRA.get(request.param, {})), rule, hyperparameters


def _slices(values, indices, rows=2**62):
    values = tf.constant(values, tf.float32)
    return tf.IndexedSlices(values, tf.constant(indices, tf.int64), tf.constant([rows, values.shape[1]], tf.int64))


def _random_steps(rng, dim, steps=STEPS, batch=40):
    """Repeated positions in every step, and gradients of several magnitudes."""
    for _ in range(steps):
        positions = rng.integers(0, V, batch)
        yield positions, (rng.normal(size=(batch, dim)) * 10.0 ** rng.integers(-2, 1, (batch, 1))).astype(np.float32)


def _filled_table(make_table, storage, dim, rng, **kwargs):
    keys = reference.key_universe(storage, V)
    start = rng.normal(size=(V, dim)).astype(np.float32)
    table = make_table(storage, dim, rows=V, **kwargs)
    table.upsert(keys, start)
    return table, keys, start


def _plain(start, name):
    return keras.Variable(np.array(start), name=name, dtype="float32")


@pytest.mark.parametrize("weight_decay", [None, 0.2])
def test_a_table_follows_its_float64_twin_for_50_steps(make_table, storage, dim, case, weight_decay, rng):
    cls, rule, hyperparameters = case
    table, keys, start = _filled_table(make_table, storage, dim, rng)
    optimizer = cls(**hyperparameters, weight_decay=weight_decay)
    optimizer.build([table])
    twin = _twin(start, rule)
    for positions, grads in _random_steps(rng, dim):
        optimizer.apply_gradients([(_slices(grads, keys[positions]), table)])
        twin.apply(positions, grads, **hyperparameters, weight_decay=weight_decay or 0.0)
    assert int(optimizer.iterations) == STEPS
    np.testing.assert_allclose(table.lookup(keys), twin.rows, rtol=3e-5, atol=3e-5)
    assert np.abs(twin.rows - start).max() > 0.05


@pytest.mark.parametrize("weight_decay", [None, 0.2])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_keras_embedding_gets_the_row_wise_rule(dim, case, weight_decay, mode, rng):
    cls, rule, hyperparameters = case
    layer = keras.layers.Embedding(V, dim)
    layer.build()
    start = rng.normal(size=(V, dim)).astype(np.float32)
    layer.embeddings.assign(start)
    optimizer = cls(**hyperparameters, weight_decay=weight_decay)
    optimizer.build([layer.embeddings])
    twin = _twin(start, rule)

    def step(grads, positions):
        slices = tf.IndexedSlices(grads, positions, tf.constant([V, dim], tf.int64))
        optimizer.apply_gradients([(slices, layer.embeddings)])

    step = step if mode == "eager" else tf.function(step)
    for positions, grads in _random_steps(rng, dim):
        step(tf.constant(grads), tf.constant(positions))
        twin.apply(positions, grads, **hyperparameters, weight_decay=weight_decay or 0.0)
    np.testing.assert_allclose(layer.embeddings.numpy(), twin.rows, rtol=3e-5, atol=3e-5)


ROW_WISE = {"row_wise_adagrad": reference.adagrad, "row_wise_adam": reference.adam}


def _element_wise_twin(start, rule):
    """The rule of plain variables that are not row-wise; that of RowWiseAdagrad starts from 0."""
    return reference.TableTwin(start, ROW_WISE[rule]) if rule in ROW_WISE else _twin(start, rule)


@pytest.mark.parametrize("weight_decay", [None, 0.2])
def test_another_plain_variable_is_element_wise_and_touches_the_named_rows(dim, case, weight_decay, rng):
    cls, rule, hyperparameters = case
    start = rng.normal(size=(V, dim)).astype(np.float32)
    variable = _plain(start, "lookup_weights")
    optimizer = cls(**hyperparameters, weight_decay=weight_decay)
    optimizer.build([variable])
    twin = _element_wise_twin(start, rule)
    for positions, grads in _random_steps(rng, dim):
        optimizer.apply_gradients([(_slices(grads, positions // 2, V), variable)])
        twin.apply(positions // 2, grads, **hyperparameters, weight_decay=weight_decay or 0.0)
    np.testing.assert_allclose(variable.numpy(), twin.rows, rtol=3e-5, atol=3e-5)
    assert variable.numpy()[V // 2 :].tobytes() == start[V // 2 :].tobytes()


@pytest.mark.parametrize("cls, rule", [CASES[name][:2] for name in ("RowWiseAdagrad", "RowWiseAdam")])
def test_row_wise_variables_chooses_the_plain_variables_that_are_row_wise(cls, rule, rng):
    start = rng.normal(size=(V, 3)).astype(np.float32)
    chosen, other = _plain(start, "user_vectors"), _plain(start, "embeddings")
    optimizer = cls(learning_rate=0.1, row_wise_variables="user_vectors")
    optimizer.build([chosen, other])
    twins = [_twin(start, rule), _element_wise_twin(start, rule)]
    for positions, grads in _random_steps(rng, 3, steps=5):
        optimizer.apply_gradients([(_slices(grads, positions, V), v) for v in (chosen, other)])
        for twin in twins:
            twin.apply(positions, grads, learning_rate=0.1, epsilon=1e-8)
    np.testing.assert_allclose(chosen.numpy(), twins[0].rows, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.numpy(), twins[1].rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "cls, floats",
    [(tse.optimizers.SGD, 0), (tse.optimizers.RowWiseAdagrad, V), (tse.optimizers.RowWiseAdam, V + V * 8)],
)
def test_row_wise_state_is_small_and_that_of_a_table_lives_in_the_table(make_table, storage, cls, floats):
    table = make_table(storage, 8, rows=V)
    on_table, on_plain = cls(0.1), cls(0.1)
    on_table.build([table])
    on_plain.build([_plain(np.zeros((V, 8)), "embeddings")])

    def size(optimizer):
        return sum(int(np.prod(v.shape)) for v in optimizer.variables)

    assert size(on_table) == 2  # the step and the learning rate
    assert size(on_plain) == 2 + floats


def test_adagrad_starts_from_its_initial_accumulator(make_table, storage, rng):
    table, keys, start = _filled_table(make_table, storage, 3, rng)
    plain = _plain(start, "embeddings")
    optimizer = tse.optimizers.RowWiseAdagrad(0.1, initial_accumulator_value=0.5)
    optimizer.build([table, plain])
    twin = reference.TableTwin(start, "row_wise_adagrad", initial_state=0.5)
    for positions, grads in _random_steps(rng, 3, steps=4):
        slices = _slices(grads, keys[positions]), _slices(grads, positions, V)
        optimizer.apply_gradients(zip(slices, (table, plain), strict=True))
        twin.apply(positions, grads, learning_rate=0.1)
    np.testing.assert_allclose(table.lookup(keys), twin.rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(plain.numpy(), twin.rows, rtol=1e-5, atol=1e-6)


DENSE = {
    "SGD": (tse.optimizers.SGD, keras.optimizers.SGD, {"learning_rate": 0.1}),
    "Momentum": (tse.optimizers.SGD, keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9}),
    "Nesterov": (tse.optimizers.SGD, keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "RowWiseAdagrad": (
        tse.optimizers.RowWiseAdagrad,
        keras.optimizers.Adagrad,
        {"learning_rate": 0.1, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    ),
    "Adagrad": (tse.optimizers.Adagrad, keras.optimizers.Adagrad, {"learning_rate": 0.1}),
    "RowWiseAdam": (
        tse.optimizers.RowWiseAdam,
        keras.optimizers.Adam,
        {"learning_rate": 0.01, "epsilon": 1e-7, "beta_1": 0.8},
    ),
    "Adam": (tse.optimizers.Adam, keras.optimizers.Adam, {"learning_rate": 0.01, "beta_1": 0.8}),
    "AMSGrad": (tse.optimizers.Adam, keras.optimizers.Adam, {"learning_rate": 0.01, "beta_2": 0.9, "amsgrad": True}),
    "AdamW": (tse.optimizers.AdamW, keras.optimizers.AdamW, {"learning_rate": 0.01}),
    "Ftrl": (tse.optimizers.Ftrl, keras.optimizers.Ftrl, {"learning_rate": 0.1}),
    "FtrlRegularized": (
        tse.optimizers.Ftrl,
        keras.optimizers.Ftrl,
        {
            "learning_rate": 0.1,
            "learning_rate_power": -0.6,
            "l1_regularization_strength": 0.1,
            "l2_regularization_strength": 0.2,
            "l2_shrinkage_regularization_strength": 0.05,
            "beta": 0.3,
        },
    ),
    "RMSprop": (tse.optimizers.RMSprop, keras.optimizers.RMSprop, {"learning_rate": 0.01}),
    "RMSpropCenteredMomentum": (
        tse.optimizers.RMSprop,
        keras.optimizers.RMSprop,
        {"learning_rate": 0.01, "momentum": 0.7, "centered": True, "epsilon": 1e-3},
    ),
}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("weight_decay", [None, 0.1])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_dense_variables_equal_those_of_keras(name, weight_decay, mode, rng):
    cls, keras_cls, arguments = DENSE[name]
    shapes = [(7, 5), (5,), ()]
    start = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    grads = [[rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(20)]

    def train(optimizer):
        variables = [_plain(s, f"dense_{i}") for i, s in enumerate(start)]
        optimizer.build(variables)

        def step(*g):
            optimizer.apply_gradients(zip(g, variables, strict=True))

        step = step if mode == "eager" else tf.function(step)
        for g in grads:
            step(*[tf.constant(x) for x in g])
        return [v.numpy() for v in variables]

    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    results = [train(c(**arguments, **decay)) for c in (cls, keras_cls)]
    for got, want, first in zip(*results, start, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
        assert np.abs(got - first).max() > 1e-3


@pytest.mark.parametrize("name", [name for name in DENSE if not name.startswith("RowWise")])
def test_a_table_of_which_every_step_names_every_row_equals_a_matrix_under_keras(make_table, storage, name, rng):
    cls, keras_cls, arguments = DENSE[name]
    table, keys, start = _filled_table(make_table, storage, 5, rng)
    matrix = _plain(start, "matrix")
    ours, theirs = cls(**arguments), keras_cls(**arguments)
    ours.build([table])
    theirs.build([matrix])
    for _ in range(20):
        order = rng.permutation(V)
        grads = rng.normal(size=(V, 5)).astype(np.float32)
        ours.apply_gradients([(_slices(grads[order], keys[order]), table)])
        theirs.apply_gradients([(tf.constant(grads), matrix)])
    np.testing.assert_allclose(table.lookup(keys), matrix.numpy(), rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("weight_decay", [None, 0.3])
def test_untouched_rows_and_their_state_keep_every_bit(make_table, sorted_export, storage, case, weight_decay, rng):
    cls, _, hyperparameters = case
    table, keys, start = _filled_table(make_table, storage, 17, rng)
    plain = _plain(start, "embeddings")
    optimizer = cls(**hyperparameters, weight_decay=weight_decay)
    optimizer.build([table, plain])

    def step(positions):
        grads = rng.normal(size=(len(positions), 17))
        slices = _slices(grads, keys[positions]), _slices(grads, positions, V)
        optimizer.apply_gradients(zip(slices, (table, plain), strict=True))

    step(np.arange(V))  # gives every row a state
    exported_keys, before = sorted_export(table)
    plain_before = plain.numpy()
    for _ in range(3):
        step(np.arange(0, V, 2))
    _, after = sorted_export(table)
    touched = np.isin(exported_keys, keys[::2])
    assert before[~touched].tobytes() == after[~touched].tobytes()
    assert plain_before[1::2].tobytes() == plain.numpy()[1::2].tobytes()
    assert (before[touched][:, :17] != after[touched][:, :17]).all()
    assert (plain_before[::2] != plain.numpy()[::2]).all()


def test_gradients_of_several_lookups_are_summed_before_the_rule(make_table, storage, case, rng):
    """One apply with [g1, g2] on one key equals one apply with g1 + g2."""
    cls, _, hyperparameters = case
    grads = rng.normal(size=(3, 4)).astype(np.float32)
    rows = []
    for indices, values in [([5, 5, 5], grads), ([5], grads.sum(0, keepdims=True))]:
        table = make_table(storage, 4, rows=V, initializer="ones")
        optimizer = cls(**hyperparameters)
        optimizer.build([table])
        for _ in range(2):
            optimizer.apply_gradients([(_slices(values, indices), table)])
        rows.append(table.lookup([5]).numpy())
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)


def test_a_table_an_embedding_and_dense_variables_in_one_optimizer(make_table, case, rng):
    cls, rule, hyperparameters = case
    table, keys, start = _filled_table(make_table, "slab", 3, rng)
    embeddings, kernel = _plain(start, "embeddings"), _plain(start, "kernel")
    optimizer = cls(**hyperparameters)
    twins = [_twin(start, rule), _twin(start, rule), _element_wise_twin(start, rule)]
    for positions, grads in _random_steps(rng, 3, steps=10):
        dense_grad = rng.normal(size=(V, 3)).astype(np.float32)
        optimizer.apply_gradients(
            [(dense_grad, kernel), (_slices(grads, keys[positions]), table), (_slices(grads, positions, V), embeddings)]
        )
        for twin in twins[:2]:
            twin.apply(positions, grads, **hyperparameters)
        twins[2].apply(np.arange(V), dense_grad, **hyperparameters)
    for got, twin in zip((table.lookup(keys), embeddings.numpy(), kernel.numpy()), twins, strict=True):
        np.testing.assert_allclose(got, twin.rows, rtol=3e-5, atol=3e-5)


def test_a_learning_rate_schedule_is_followed(make_table, storage, case, rng):
    cls, rule, hyperparameters = case
    schedule = keras.optimizers.schedules.ExponentialDecay(0.2, decay_steps=2, decay_rate=0.5, staircase=True)
    table, keys, start = _filled_table(make_table, storage, 3, rng)
    optimizer = cls(**hyperparameters | {"learning_rate": schedule})
    optimizer.build([table])

    @tf.function
    def step(grads, keys):
        slices = tf.IndexedSlices(grads, keys, tf.constant([2**62, 3], tf.int64))
        optimizer.apply_gradients([(slices, table)])

    twin = _twin(start, rule)
    for t, (positions, grads) in enumerate(_random_steps(rng, 3, steps=7)):
        step(tf.constant(grads), tf.constant(keys[positions]))
        twin.apply(positions, grads, **hyperparameters | {"learning_rate": 0.2 * 0.5 ** (t // 2)})
    np.testing.assert_allclose(table.lookup(keys), twin.rows, rtol=3e-5, atol=3e-5)


def test_an_assigned_learning_rate_holds_from_the_next_step(make_table, storage):
    table = make_table(storage, 2, rows=V, initializer="zeros")
    optimizer = tse.optimizers.SGD(1.0)
    optimizer.build([table])

    @tf.function
    def step():
        optimizer.apply_gradients([(_slices([[1.0, 2.0]], [3]), table)])

    step()
    optimizer.learning_rate = 10.0
    step()
    np.testing.assert_allclose(table.lookup([3]), [[-11.0, -22.0]])


@pytest.mark.parametrize(
    "clip, expected",
    [
        ({"clipvalue": 2.5}, ([-2.5, -2.5], [-1.0, 0.0], [-2.5, 0.0])),
        ({"clipnorm": 1.0}, ([-3 / 26**0.5, -4 / 26**0.5], [-1 / 26**0.5, 0.0], [-1.0, 0.0])),
        ({"global_clipnorm": 1.0}, ([-3 / 170**0.5, -4 / 170**0.5], [-1 / 170**0.5, 0.0], [-12 / 170**0.5, 0.0])),
    ],
    ids=["clipvalue", "clipnorm", "global_clipnorm"],
)
def test_clipping_is_that_of_the_reduced_gradient(make_table, storage, clip, expected):
    """Key 1 gets (1, 1) + (2, 3) = (3, 4), key 2 gets (1, 0), the dense variable (12, 0)."""
    table = make_table(storage, 2, rows=V, initializer="zeros")
    dense = _plain(np.zeros(2), "dense")
    optimizer = tse.optimizers.SGD(1.0, **clip)
    optimizer.build([table, dense])
    slices = _slices([[1.0, 1.0], [1.0, 0.0], [2.0, 3.0]], [1, 2, 1])
    optimizer.apply_gradients([(slices, table), (tf.constant([12.0, 0.0]), dense)])
    got = (*table.lookup([1, 2]).numpy(), dense.numpy())
    for value, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-7)
