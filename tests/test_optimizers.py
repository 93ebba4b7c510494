"""tse.optimizers against float64 twins and against Keras: tables, IndexedSlices on plain variables, dense variables."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from optimizer_cases import (
    CASES,
    STEPS,
    WIDTHS,
    V,
    case_of,
    filled_table,
    make_plain,
    make_slices,
    make_twin,
    random_steps,
)

import tf_sparse_emb as tse


@pytest.fixture(params=CASES)
def case(request):
    return case_of(request.param)


ROW_WISE = {"row_wise_adagrad": reference.adagrad, "row_wise_adam": reference.adam}


def _element_wise_twin(start, rule):
    """The rule of plain variables that are not row-wise; that of RowWiseAdagrad starts from 0."""
    return reference.TableTwin(start, ROW_WISE[rule]) if rule in ROW_WISE else make_twin(start, rule)


@pytest.mark.parametrize("mode, weight_decay", [("eager", 0.2), ("graph", None), ("graph", 0.2)])
def test_rows_and_state_follow_a_float64_twin_for_50_steps(make_table, case, weight_decay, mode, rng):
    """Tables of all storages, a Keras embedding and another plain variable, of all widths; keys repeat."""
    make, rule, hyperparameters = case
    widths, storages = (WIDTHS, reference.STORAGES) if mode == "graph" else ((17,), ("slab",))
    optimizer = make(**hyperparameters, weight_decay=weight_decay)
    variables, keys_of, twins, row_wise_twins, element_wise_twins = [], [], [], [], []
    for dim in widths:
        start = rng.normal(size=(V, dim)).astype(np.float32)
        row_wise_twins.append(make_twin(start, rule))
        element_wise_twins.append(_element_wise_twin(start, rule))
        for storage in storages:
            table, keys, _ = filled_table(make_table, storage, dim, rng, start, name=storage)
            variables.append(table)
            keys_of.append(keys)
        layer = keras.layers.Embedding(V, dim, weights=start)
        layer.build()
        variables += [layer.embeddings, make_plain(start, "lookup_weights")]
        keys_of += [np.arange(V), np.arange(V) // 2]
        twins += [row_wise_twins[-1]] * (len(storages) + 1) + [element_wise_twins[-1]]
    optimizer.build(variables)

    def step(positions, *grads):
        gradients = [
            tf.IndexedSlices(grads[widths.index(v.shape[1])], tf.gather(keys, positions), [2**62, v.shape[1]])
            for v, keys in zip(variables, keys_of, strict=True)
        ]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    step = step if mode == "eager" else tf.function(step)
    all_steps = zip(*[random_steps(np.random.default_rng(dim), dim) for dim in widths], strict=True)
    for number, of_widths in enumerate(all_steps):
        positions = np.random.default_rng(number).integers(0, V, 40)
        grads = [grads for _, grads in of_widths]
        step(tf.constant(positions), *[tf.constant(g) for g in grads])
        for row_wise, element_wise, g in zip(row_wise_twins, element_wise_twins, grads, strict=True):
            row_wise.apply(positions, g, **hyperparameters, weight_decay=weight_decay or 0.0)
            element_wise.apply(positions // 2, g, **hyperparameters, weight_decay=weight_decay or 0.0)
    assert int(optimizer.iterations) == STEPS
    # 50 steps, each of a few float32 roundings of numbers up to ten.
    close = {"rtol": 3e-5, "atol": 3e-5}
    for variable, keys, twin in zip(variables, keys_of, twins, strict=True):
        name = f"{variable.path}, width {variable.shape[1]}"
        if isinstance(variable, tse.EmbeddingVariable):
            dim = variable.dim
            rows = variable.read_rows(keys, with_state=True).numpy()
            np.testing.assert_allclose(rows[:, :dim], twin.rows, **close, err_msg=name)
            np.testing.assert_allclose(rows[:, dim:], twin.state, **close, err_msg=name)
        else:
            np.testing.assert_allclose(variable.numpy(), twin.rows, **close, err_msg=name)


@pytest.mark.parametrize("cls, rule", [CASES[name][:2] for name in ("RowWiseAdagrad", "RowWiseAdam")])
def test_row_wise_variables_chooses_the_plain_variables_that_are_row_wise(cls, rule, rng):
    start = rng.normal(size=(V, 3)).astype(np.float32)
    chosen, other = make_plain(start, "user_vectors"), make_plain(start, "embeddings")
    optimizer = cls(learning_rate=0.1, row_wise_variables="user_vectors")
    optimizer.build([chosen, other])
    twins = [make_twin(start, rule), _element_wise_twin(start, rule)]
    for positions, grads in random_steps(rng, 3, steps=5):
        optimizer.apply_gradients([(make_slices(grads, positions, V), v) for v in (chosen, other)])
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
    on_plain.build([make_plain(np.zeros((V, 8)), "embeddings")])

    def size(optimizer):
        return sum(int(np.prod(v.shape)) for v in optimizer.variables)

    assert size(on_table) == 2  # the step and the learning rate
    assert size(on_plain) == 2 + floats


def test_adagrad_starts_from_its_initial_accumulator(make_table, storage, rng):
    table, keys, start = filled_table(make_table, storage, 3, rng)
    plain = make_plain(start, "embeddings")
    optimizer = tse.optimizers.RowWiseAdagrad(0.1, initial_accumulator_value=0.5)
    optimizer.build([table, plain])
    twin = reference.TableTwin(start, "row_wise_adagrad", initial_state=0.5)
    for positions, grads in random_steps(rng, 3, steps=4):
        slices = make_slices(grads, keys[positions]), make_slices(grads, positions, V)
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
    "RMSpropMomentum": (
        tse.optimizers.RMSprop,
        keras.optimizers.RMSprop,
        {"learning_rate": 0.01, "momentum": 0.7},
    ),
    "RMSpropCentered": (
        tse.optimizers.RMSprop,
        keras.optimizers.RMSprop,
        {"learning_rate": 0.01, "centered": True, "epsilon": 1e-3},
    ),
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
        variables = [make_plain(s, f"dense_{i}") for i, s in enumerate(start)]
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
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_a_table_of_which_every_step_names_every_row_equals_a_matrix_under_keras(make_table, name, weight_decay, rng):
    cls, keras_cls, arguments = DENSE[name]
    arguments = arguments if weight_decay is None else arguments | {"weight_decay": weight_decay}
    start = rng.normal(size=(V, 5)).astype(np.float32)
    filled = [filled_table(make_table, storage, 5, rng, start, name=storage) for storage in reference.STORAGES]
    tables = [table for table, _, _ in filled]
    matrix = make_plain(start, "matrix")
    ours, theirs = cls(**arguments), keras_cls(**arguments)
    ours.build(tables)
    theirs.build([matrix])

    @tf.function
    def step(order, grads):
        slices = [tf.IndexedSlices(tf.gather(grads, order), tf.gather(keys, order)) for _, keys, _ in filled]
        ours.apply_gradients(zip(slices, tables, strict=True))
        theirs.apply_gradients([(grads, matrix)])

    for _ in range(25):
        step(tf.constant(rng.permutation(V)), tf.constant(rng.normal(size=(V, 5)), tf.float32))
    for table, keys, _ in filled:
        np.testing.assert_allclose(table.lookup(keys), matrix.numpy(), rtol=2e-6, atol=2e-6, err_msg=table.name)
    assert np.abs(matrix.numpy() - start).max() > 1e-2


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
            optimizer.apply_gradients([(make_slices(values, indices), table)])
        rows.append(table.lookup([5]).numpy())
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)


def test_a_table_an_embedding_and_dense_variables_in_one_optimizer(make_table, case, rng):
    cls, rule, hyperparameters = case
    table, keys, start = filled_table(make_table, "slab", 3, rng)
    embeddings, kernel = make_plain(start, "embeddings"), make_plain(start, "kernel")
    optimizer = cls(**hyperparameters)
    twins = [make_twin(start, rule), make_twin(start, rule), _element_wise_twin(start, rule)]
    for positions, grads in random_steps(rng, 3, steps=10):
        dense_grad = rng.normal(size=(V, 3)).astype(np.float32)
        optimizer.apply_gradients(
            [
                (dense_grad, kernel),
                (make_slices(grads, keys[positions]), table),
                (make_slices(grads, positions, V), embeddings),
            ]
        )
        for twin in twins[:2]:
            twin.apply(positions, grads, **hyperparameters)
        twins[2].apply(np.arange(V), dense_grad, **hyperparameters)
    for got, twin in zip((table.lookup(keys), embeddings.numpy(), kernel.numpy()), twins, strict=True):
        np.testing.assert_allclose(got, twin.rows, rtol=3e-5, atol=3e-5)
