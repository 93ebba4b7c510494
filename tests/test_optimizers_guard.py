"""tse.optimizers: non-finite gradients, binding, hooks, configuration, what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

CLASSES = (tse.optimizers.SGD, tse.optimizers.RowWiseAdagrad, tse.optimizers.RowWiseAdam)


@pytest.fixture(params=["slab", "index"])
def storage(request):
    """Two of the storages: what is tested here lies above them."""
    return request.param


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


def _slices(values, indices, rows=2**62):
    values = tf.constant(values, tf.float32)
    return tf.IndexedSlices(values, tf.constant(indices, tf.int64), tf.constant([rows, values.shape[1]], tf.int64))


def _plain(name, shape=(60, 3)):
    return keras.Variable(np.ones(shape), name=name, dtype="float32")


@pytest.fixture
def setting(make_table, storage, sorted_export, cls):
    """(optimizer, variables, snapshot): a table, an embedding, a kernel, after one good step."""
    table = make_table(storage, 3, rows=60, name="item")
    table.lookup(np.arange(50), insert=True)
    variables = [table, _plain("embeddings"), _plain("kernel", (3,))]
    optimizer = cls(0.1)
    optimizer.build(variables)
    optimizer.apply_gradients(zip(_gradients(), variables, strict=True))

    def snapshot():
        plain = [v.numpy().tobytes() for v in (*variables[1:], *optimizer.variables)]
        return [array.tobytes() for array in sorted_export(table)] + plain

    return optimizer, variables, snapshot


def _gradients(bad_in=None, bad=np.nan):
    """The keys 7, 42 and 55 (not in the table yet) with a bad element at [1, 2] of the chosen variable."""
    values = {name: np.ones((3, 3), np.float32) for name in ("item", "embeddings")} | {"kernel": np.ones(3, np.float32)}
    if bad_in == "kernel":
        values["kernel"][2] = bad
    elif bad_in:
        values[bad_in][1, 2] = bad
    return [
        _slices(values["item"], [7, 42, 55]),
        _slices(values["embeddings"], [7, 42, 55], 60),
        tf.constant(values["kernel"]),
    ]


@pytest.mark.parametrize("mode, bad", [("eager", np.nan), ("eager", np.inf), ("eager", -np.inf), ("graph", np.nan)])
@pytest.mark.parametrize("bad_in", ["item", "embeddings", "kernel"])
def test_a_gradient_that_is_not_finite_is_refused_before_anything_changes(setting, bad, bad_in, mode):
    optimizer, variables, snapshot = setting
    before = snapshot()

    def step():
        optimizer.apply_gradients(zip(_gradients(bad_in, bad), variables, strict=True))

    word = "nan" if np.isnan(bad) else "inf"
    where = rf"(?is)(?=.*{bad_in})(?=.*{word})" + ("(?=.*key 42)" if bad_in == "item" else "")
    with pytest.raises(tf.errors.InvalidArgumentError, match=where):
        (step if mode == "eager" else tf.function(step))()
    assert snapshot() == before


def test_the_refusal_names_the_first_bad_key_of_the_batch_and_the_table(setting):
    optimizer, variables, _ = setting
    gradients = _gradients("item")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"is nan \(key 42 of table 'item'\)"):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))


def test_training_goes_on_after_a_refusal(setting):
    optimizer, variables, snapshot = setting
    with pytest.raises(tf.errors.InvalidArgumentError, match="nan"):
        optimizer.apply_gradients(zip(_gradients("item"), variables, strict=True))
    before = snapshot()
    optimizer.apply_gradients(zip(_gradients(), variables, strict=True))
    assert all(a != b for a, b in zip(snapshot()[1:4], before[1:4], strict=True))
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_check_finite_false_lets_them_through(make_table, storage, cls, mode):
    table, kernel = make_table(storage, 3, rows=60), _plain("kernel", (3,))
    optimizer = cls(0.1, check_finite=False)
    optimizer.build([table, kernel])

    def step():
        slices = _slices([[1.0, np.nan, 1.0], [1.0, 1.0, 1.0]], [42, 7])
        optimizer.apply_gradients([(slices, table), (tf.constant([np.inf, 1.0, 1.0]), kernel)])

    (step if mode == "eager" else tf.function(step))()
    assert np.isnan(table.lookup([42]).numpy()[0, 1])
    assert np.isfinite(table.lookup([7])).all()
    assert not np.isfinite(kernel.numpy()[0])
    assert np.isfinite(kernel.numpy()[1:]).all()


def test_fit_stops_at_a_nan_loss_and_keeps_the_model(storage, cls):
    layer = tse.Embedding(20 if storage == "index" else None, 3, storage=storage, seed=1, name="item")
    model = keras.Sequential([keras.Input((2,), dtype="int64"), layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(cls(0.1), "mse")
    x, y = np.arange(20).reshape(10, 2), np.ones((10, 1))
    model.fit(x, y, verbose=0)
    rows, dense = layer(np.arange(20)).numpy(), model.layers[-1].kernel.numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?i)nan"):
        model.fit(x, y * np.nan, verbose=0)
    np.testing.assert_array_equal(layer(np.arange(20)), rows)
    np.testing.assert_array_equal(model.layers[-1].kernel.numpy(), dense)


def test_a_new_optimizer_starts_from_fresh_state(make_table, sorted_export, storage, cls):
    """Its first step on the trained rows is the first step of a fresh table that holds these rows."""
    first, second = cls(0.1), cls(0.1)
    table = make_table(storage, 3, rows=60)
    slices = _slices([[1.0, 2.0, 3.0]], [5])
    for _ in range(4):
        first.apply_gradients([(slices, table)])
    copy = make_table(storage, 3, rows=60)
    copy.upsert([5], table.lookup([5]))
    second.build([table])
    assert (sorted_export(table)[1][:, 3:] == 0).all()
    second.apply_gradients([(slices, table)])
    cls(0.1).apply_gradients([(slices, copy)])
    np.testing.assert_array_equal(table.lookup([5]), copy.lookup([5]))
    assert int(second.iterations) == 1


@pytest.mark.parametrize("newer", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_an_update_by_an_optimizer_that_is_no_longer_bound_is_an_error(
    make_table, sorted_export, storage, cls, newer, mode
):
    table = make_table(storage, 3, rows=60)
    older = cls(0.1)
    slices = _slices([[1.0, 2.0, 3.0]], [5])

    def step():
        older.apply_gradients([(slices, table)])

    step = step if mode == "eager" else tf.function(step)
    older.build([table])
    step()
    newer(0.1).build([table])
    before = sorted_export(table)[1]
    with pytest.raises((tf.errors.FailedPreconditionError, RuntimeError, ValueError), match="(?i)bound|bind"):
        step()
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_they_are_keras_optimizers_with_the_hooks_of_tensorflow(cls):
    assert issubclass(cls, keras.optimizers.Optimizer)
    calls = []

    class Recording(cls):
        def _resource_apply_dense(self, grad, var):
            calls.append(("dense", tuple(var.shape)))
            return super()._resource_apply_dense(grad, var)

        def _resource_apply_sparse(self, grad, var, indices):
            calls.append(("sparse", tuple(var.shape), np.unique(indices).tolist()))
            return super()._resource_apply_sparse(grad, var, indices)

    table, plain, dense = tse.EmbeddingVariable(3, seed=1), _plain("embeddings"), _plain("kernel", (3,))
    optimizer = Recording(0.1)
    optimizer.build([table, plain, dense])
    gradients = [_slices(np.ones((2, 3)), [-4, -4]), _slices(np.ones((1, 3)), [9], 60), tf.ones(3)]
    optimizer.apply_gradients(zip(gradients, [table, plain, dense], strict=True))
    assert sorted(calls) == [("dense", (3,)), ("sparse", (0, 3), [-4]), ("sparse", (60, 3), [9])]


ARGUMENTS = {
    "SGD": {"learning_rate": 0.3, "weight_decay": 0.01, "check_finite": False, "name": "mine"},
    "RowWiseAdagrad": {
        "learning_rate": 0.3,
        "initial_accumulator_value": 0.2,
        "epsilon": 1e-5,
        "weight_decay": 0.01,
        "row_wise_variables": "user",
        "check_finite": False,
    },
    "RowWiseAdam": {
        "learning_rate": 0.3,
        "beta_1": 0.7,
        "beta_2": 0.8,
        "epsilon": 1e-5,
        "weight_decay": 0.01,
        "row_wise_variables": "user",
        "check_finite": False,
    },
}
DEFAULTS = {
    "SGD": {"learning_rate": 0.01, "weight_decay": None, "check_finite": True},
    "RowWiseAdagrad": {
        "learning_rate": 0.001,
        "initial_accumulator_value": 0.0,
        "epsilon": 1e-8,
        "weight_decay": None,
        "check_finite": True,
    },
    "RowWiseAdam": {
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": None,
        "check_finite": True,
    },
}


@pytest.mark.parametrize("given", [True, False], ids=["given", "default"])
def test_the_config_holds_every_argument_and_makes_the_same_optimizer(cls, given):
    arguments = ARGUMENTS[cls.__name__] if given else {}
    want = DEFAULTS[cls.__name__] | arguments
    optimizer = cls(**arguments)
    config = optimizer.get_config()
    for name, value in want.items():
        assert config[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    assert cls.from_config(config).get_config() == config
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is cls
    assert again.get_config() == config


def test_a_schedule_survives_the_config(cls):
    optimizer = cls(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9))
    again = cls.from_config(optimizer.get_config())
    assert isinstance(again.learning_rate, tf.Tensor) or float(again.learning_rate) == pytest.approx(0.5)
    assert again.get_config() == optimizer.get_config()


def test_an_unknown_argument_is_an_error_that_names_it(cls):
    with pytest.raises((TypeError, ValueError), match="no_such"):
        cls(0.1, no_such=1)


def test_an_unknown_variable_is_an_error(make_table, storage, cls):
    optimizer = cls(0.1)
    optimizer.build([make_table(storage, 3)])
    with pytest.raises(ValueError, match="(?i)unknown variable"):
        optimizer.apply_gradients([(_slices(np.ones((1, 3)), [1]), make_table(storage, 3))])


def test_a_plain_gradient_for_a_table_is_an_error_that_changes_nothing(make_table, sorted_export, storage, cls):
    table = make_table(storage, 3, rows=20)
    table.lookup(np.arange(10), insert=True)
    optimizer = cls(0.1)
    optimizer.build([table])
    before = sorted_export(table)[1]
    with pytest.raises((TypeError, ValueError), match="IndexedSlices"):
        optimizer.apply_gradients([(tf.ones([1, 3]), table)])
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_a_variable_without_a_gradient_is_left_alone(make_table, sorted_export, storage, cls):
    first, second = (make_table(storage, 3, rows=20, name=name) for name in ("first", "second"))
    second.lookup(np.arange(5), insert=True)
    optimizer = cls(0.1)
    optimizer.build([first, second])
    before = sorted_export(second)[1]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply_gradients([(_slices(np.ones((1, 3)), [1]), first), (None, second)])
    np.testing.assert_array_equal(sorted_export(second)[1], before)


@pytest.mark.parametrize("name", ["Adam", "SGD", "Adagrad", "RMSprop", "Ftrl", "AdamW", "Nadam", "Lion"])
def test_a_keras_optimizer_refuses_a_table(make_table, storage, name):
    table = make_table(storage, 3, rows=20)
    with pytest.raises(TypeError, match=r"tse\.optimizers"):
        optimizer = getattr(keras.optimizers, name)(0.1)
        optimizer.build([table])
        optimizer.apply_gradients([(_slices(np.ones((1, 3)), [1]), table)])
