"""tse.optimizers: non-finite gradients, binding, hooks, configuration, what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from optimizer_cases import CASES, optimizer_of

import tf_sparse_emb as tse

CLASSES = (tse.optimizers.SGD, tse.optimizers.RowWiseAdagrad, tse.optimizers.RowWiseAdam)
# Variables of one apply: two tables that one op updates, one of another width, and two plain variables.
NAMES = ("item", "user", "shop", "embeddings", "kernel")
INDICES = [7, 42, 55]  # of which tables do not have 55 yet


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


class Setting:
    """An optimizer on the variables of NAMES, after one good step."""

    def __init__(self, make_table, sorted_export, case, **kwargs):
        self._export = sorted_export
        self.tables = [make_table("slab", dim, name=name) for name, dim in zip(NAMES, (3, 3, 5), strict=False)]
        for table in self.tables:
            table.lookup(np.arange(50), insert=True)
        self.variables = [*self.tables, _plain("embeddings"), _plain("kernel", (3,))]
        self.optimizer = optimizer_of(case, **kwargs)
        self.optimizer.build(self.variables)
        self.graph_step = tf.function(self.step)
        self.step(*self.values())

    def values(self, bad_in=None, bad=np.nan):
        """Gradients of ones; that of `bad_in` has a bad element, in tables and embeddings that of the second key."""
        shapes = {"shop": (3, 5), "kernel": (3,)}
        values = {name: np.ones(shapes.get(name, (3, 3)), np.float32) for name in NAMES}
        if bad_in is not None:
            values[bad_in][(2,) if bad_in == "kernel" else (1, 2)] = bad
        return [tf.constant(value) for value in values.values()]

    def step(self, *values):
        """Applies gradients."""
        slices = [tf.IndexedSlices(value, tf.constant(INDICES, tf.int64)) for value in values[:4]]
        self.optimizer.apply_gradients(zip([*slices, values[4]], self.variables, strict=True))

    def snapshot(self):
        """The bytes of all variables and their state, in the order of NAMES, then those of the optimizer."""
        tables = [b"".join(part.tobytes() for part in self._export(table)) for table in self.tables]
        return tables + [v.numpy().tobytes() for v in (*self.variables[3:], *self.optimizer.variables)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_gradient_that_is_not_finite_is_refused_before_anything_changes(make_table, sorted_export, case, mode):
    setting = Setting(make_table, sorted_export, case)
    before = setting.snapshot()
    step = setting.step if mode == "eager" else setting.graph_step
    for bad_in in NAMES:
        for bad in (np.nan, np.inf, -np.inf):
            word = "nan" if np.isnan(bad) else "inf"
            where = rf"(?is)(?=.*{bad_in})(?=.*{word})" + ("" if bad_in in ("embeddings", "kernel") else "(?=.*key 42)")
            with pytest.raises(tf.errors.InvalidArgumentError, match=where):
                step(*setting.values(bad_in, bad))
            assert setting.snapshot() == before, (bad_in, bad)
    step(*setting.values())  # training goes on
    assert all(a != b for a, b in zip(setting.snapshot()[:5], before[:5], strict=True))
    assert int(setting.optimizer.iterations) == 2


def test_the_refusal_names_the_first_bad_key_of_the_batch_and_the_table(make_table, sorted_export):
    setting = Setting(make_table, sorted_export, "SGD")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"grads\[1, 2\] is nan \(key 42 of table 'user'\)"):
        setting.step(*setting.values("user"))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_global_norm_that_overflows_is_refused_before_anything_changes(make_table, sorted_export, mode):
    """The square of 1e20 is beyond float32."""
    setting = Setting(make_table, sorted_export, "RowWiseAdam", global_clipnorm=1.0)
    before = setting.snapshot()
    with pytest.raises(tf.errors.InvalidArgumentError, match="nan"):
        (setting.step if mode == "eager" else setting.graph_step)(*setting.values("user", 1e20))
    assert setting.snapshot() == before


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_check_finite_false_lets_them_through(make_table, sorted_export, case, mode):
    setting = Setting(make_table, sorted_export, case, check_finite=False)
    step = setting.step if mode == "eager" else setting.graph_step
    for bad_in in NAMES:
        step(*setting.values(bad_in))
    for table in setting.tables:
        assert np.isnan(table.lookup([42]).numpy()).any()
        assert np.isfinite(table.lookup(np.delete(np.arange(60), 42))).all()
    embeddings, kernel = (variable.numpy() for variable in setting.variables[3:])
    assert np.isnan(embeddings[42]).any()
    assert np.isfinite(np.delete(embeddings, 42, 0)).all()
    np.testing.assert_array_equal(np.isnan(kernel), [False, False, True])


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_whose_square_overflows_harms_its_own_row_alone(make_table, sorted_export, case):
    """As in Keras: |g| > 1.8e19 is finite, but g^2 is not a float32."""
    setting, twin = (Setting(make_table, sorted_export, case) for _ in range(2))
    setting.step(*setting.values("item", 1e20))
    twin.step(*twin.values())
    others = np.delete(np.arange(60), 42)
    for table, same in zip(setting.tables, twin.tables, strict=True):
        rows, same_rows = (t.read_rows(others, with_state=True).numpy() for t in (table, same))
        np.testing.assert_array_equal(rows, same_rows)
        assert np.isfinite(rows).all()
    row = setting.tables[0].read_rows([42], with_state=True).numpy()
    assert np.isfinite(row).all() == (CASES[case][1] in ("sgd", "momentum"))
    assert np.isfinite(np.concatenate([t.read_rows([42], with_state=True)[0] for t in setting.tables[1:]])).all()


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
