"""The arguments of keras.optimizers.Optimizer on tables: they do what a float64 twin does, or are refused at build."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from optimizer_cases import (
    CASES,
    V,
    case_of,
    filled_table,
    make_plain,
    make_slices,
    make_twin,
    optimizer_of,
    random_steps,
)

import tf_sparse_emb as tse

DIM = 3
CLOSE = {"rtol": 3e-5, "atol": 3e-5}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


class Run:
    """Tables of all storages under one optimizer, in a tf.function, beside their twin."""

    def __init__(self, make_table, rng, case, **kwargs):
        make, rule, self.hyperparameters = case_of(case)
        start = rng.normal(size=(V, DIM)).astype(np.float32)
        filled = [filled_table(make_table, storage, DIM, rng, start, name=storage) for storage in reference.STORAGES]
        self.tables, self.keys_of, _ = zip(*filled, strict=True)
        self.twin = make_twin(start, rule)
        self.optimizer = make(**self.hyperparameters | kwargs)
        self.optimizer.build(self.tables)

        @tf.function
        def step(positions, grads):
            slices = [tf.IndexedSlices(grads, tf.gather(keys, positions)) for keys in self.keys_of]
            self.optimizer.apply_gradients(zip(slices, self.tables, strict=True))

        self._step = step

    def step(self, positions, grads, twin_grads=None, **hyperparameters):
        """One step of the tables, and one of the twin with its gradients and hyper-parameters."""
        self._step(tf.constant(positions), tf.constant(grads))
        grads = grads if twin_grads is None else twin_grads
        self.twin.apply(positions, grads, **self.hyperparameters | hyperparameters)

    def check(self):
        for table, keys in zip(self.tables, self.keys_of, strict=True):
            np.testing.assert_allclose(table.lookup(keys), self.twin.rows, **CLOSE, err_msg=table.name)


def test_a_learning_rate_schedule_is_followed(make_table, case, rng):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.2, decay_steps=2, decay_rate=0.5, staircase=True)
    run = Run(make_table, rng, case, learning_rate=schedule)
    for t, (positions, grads) in enumerate(random_steps(rng, DIM, steps=7)):
        run.step(positions, grads, learning_rate=0.2 * 0.5 ** (t // 2))
    run.check()


def test_an_assigned_learning_rate_holds_from_the_next_step(make_table, case, rng):
    run = Run(make_table, rng, case)
    for rate, (positions, grads) in zip((0.1, 0.02, 0.3), random_steps(rng, DIM, steps=3), strict=True):
        run.optimizer.learning_rate = rate
        run.step(positions, grads, learning_rate=rate)
    run.check()


def test_a_callable_learning_rate_is_called_once_a_step(make_table, case, rng):
    rate, calls = tf.Variable(0.0), tf.Variable(0)

    def learning_rate():
        calls.assign_add(1)
        return rate.read_value()

    run = Run(make_table, rng, case, learning_rate=learning_rate)
    for value, (positions, grads) in zip((0.1, 0.02, 0.3), random_steps(rng, DIM, steps=3), strict=True):
        rate.assign(value)
        run.step(positions, grads, learning_rate=value)
    run.check()
    assert int(calls) == 3


def _summed(positions, grads):
    """The float64 gradient of each position, as positions 0 .. V - 1 and [V, DIM]."""
    sums = np.zeros((V, DIM))
    np.add.at(sums, positions, np.asarray(grads, np.float64))
    return sums


def _clipped(sums, argument, limit, num_tables):
    """What a clipping argument makes of the gradient of each of num_tables tables."""
    if argument == "clipvalue":
        return np.clip(sums, -limit, limit)
    norm = np.sqrt(np.sum(sums**2) * (num_tables if argument == "global_clipnorm" else 1))
    return sums * min(1.0, limit / norm)


@pytest.mark.parametrize(
    "argument, limit", [(None, None), ("clipvalue", 0.3), ("clipnorm", 2.0), ("global_clipnorm", 5.0)]
)
def test_loss_scale_clipping_and_weight_decay_in_one_run(make_table, case, argument, limit, rng):
    """Divided by the loss scale, summed by key, clipped; then the rule, with decay of the rows named alone."""
    clip = {} if argument is None else {argument: limit}
    run = Run(make_table, rng, case, loss_scale_factor=8.0, weight_decay=0.2, **clip)
    assert float(run.optimizer.scale_loss(tf.constant(3.0))) == 24.0
    clips = 0
    for positions, grads in random_steps(rng, DIM, steps=10):
        sums = _summed(positions, grads)
        clipped = _clipped(sums, argument, limit, len(run.tables)) if argument else sums
        clips += (clipped != sums).any()
        named = np.unique(positions)
        run._step(tf.constant(positions), tf.constant(8.0 * grads))
        run.twin.apply(named, clipped[named], **run.hyperparameters, weight_decay=0.2)
    run.check()
    assert clips >= (5 if argument else 0)


@pytest.mark.parametrize("how", ["var_list", "var_names"])
def test_tables_can_be_excluded_from_weight_decay(make_table, case, how, rng):
    make, rule, hyperparameters = case_of(case)
    filled = [filled_table(make_table, "slab", DIM, rng, name=name) for name in ("item", "user", "shop")]
    tables = [table for table, _, _ in filled]
    optimizer = make(**hyperparameters, weight_decay=0.3)
    optimizer.exclude_from_weight_decay(**{how: tables[1:2] if how == "var_list" else ["use"]})
    optimizer.build(tables)
    twins = [make_twin(start, rule) for _, _, start in filled]
    for positions, grads in random_steps(rng, DIM, steps=5):
        slices = [make_slices(grads, keys[positions]) for _, keys, _ in filled]
        optimizer.apply_gradients(zip(slices, tables, strict=True))
        for twin, decay in zip(twins, (0.3, 0.0, 0.3), strict=True):
            twin.apply(positions, grads, **hyperparameters, weight_decay=decay)
    for (table, keys, _), twin in zip(filled, twins, strict=True):
        np.testing.assert_allclose(table.lookup(keys), twin.rows, **CLOSE, err_msg=table.name)


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
    dense = make_plain(np.zeros(2), "dense")
    optimizer = tse.optimizers.SGD(1.0, **clip)
    optimizer.build([table, dense])
    slices = make_slices([[1.0, 1.0], [1.0, 0.0], [2.0, 3.0]], [1, 2, 1])
    optimizer.apply_gradients([(slices, table), (tf.constant([12.0, 0.0]), dense)])
    got = (*table.lookup([1, 2]).numpy(), dense.numpy())
    for value, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("argument", [{"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str)
@pytest.mark.parametrize("with_what", ["a table", "overrides", "dense_optimizer"])
def test_what_would_touch_whole_tables_is_refused_at_build(case, argument, with_what):
    (name,) = argument
    kwargs = {"a table": {}, "overrides": {"overrides": {"kernel": tse.optimizers.SGD(0.1)}}}
    kwargs["dense_optimizer"] = {"dense_optimizer": "sgd"}
    optimizer = optimizer_of(case, **argument, **kwargs[with_what])
    variable = tse.EmbeddingVariable(3) if with_what == "a table" else make_plain(np.zeros((2, 3)), "kernel")
    instead = "Lower the learning rate" if name == "use_ema" else "Take larger batches"
    with pytest.raises(ValueError, match=f"{name} would touch every row of a table at every step.*{instead}"):
        optimizer.build([variable])
    assert not optimizer.built


@pytest.mark.parametrize(
    "argument",
    [{"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}, {"gradient_accumulation_steps": 2}],
    ids=str,
)
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_without_tables_averaging_and_accumulation_are_those_of_keras(argument, weight_decay, rng):
    start, results = rng.normal(size=(4, 3)), []
    grads = rng.normal(size=(6, 4, 3)).astype(np.float32)
    for cls in (tse.optimizers.Adam, keras.optimizers.Adam):
        variable = keras.Variable(start, dtype="float32", name="kernel")
        optimizer = cls(0.05, weight_decay=weight_decay, **argument)
        optimizer.build([variable])
        for grad in grads:
            optimizer.apply([tf.constant(grad)], [variable])
        results.append(variable.numpy())
    # Where gradients accumulate, Keras decays at the step that applies them, as ours do.
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
    assert np.abs(results[0] - start).max() > 1e-2
