"""What an optimizer of tse.optimizers offers beside its rule: slots, minimize, other optimizers and rates for a part of
the variables, loss scaling, and Keras' arguments on tables."""

import copy
import inspect
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

ALL = {
    "SGD": lambda **k: tse.optimizers.SGD(0.1, **k),
    "Momentum": lambda **k: tse.optimizers.SGD(0.1, momentum=0.9, nesterov=True, **k),
    "Adagrad": lambda **k: tse.optimizers.Adagrad(0.1, **k),
    "AdagradDecay": lambda **k: tse.optimizers.AdagradDecay(0.1, decay_step=5, decay_rate=0.7, **k),
    "Adam": lambda **k: tse.optimizers.Adam(0.1, amsgrad=True, **k),
    "AdamW": lambda **k: tse.optimizers.AdamW(0.1, **k),
    "Ftrl": lambda **k: tse.optimizers.Ftrl(0.1, l1_regularization_strength=0.01, **k),
    "RMSprop": lambda **k: tse.optimizers.RMSprop(0.1, momentum=0.5, centered=True, **k),
    "RowWiseAdagrad": lambda **k: tse.optimizers.RowWiseAdagrad(0.1, **k),
    "RowWiseAdam": lambda **k: tse.optimizers.RowWiseAdam(0.1, **k),
}


@pytest.fixture(params=ALL)
def make(request):
    return ALL[request.param]


def _slices(values, indices):
    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(indices, tf.int64))


def _model(table_layer=None, dtype=None):
    layer = table_layer or tse.Embedding(None, 4, combiner="mean", name="user", seed=3)
    return keras.Sequential([keras.Input([3], dtype="int64"), layer, keras.layers.Dense(1, dtype=dtype)])


def _data(rng):
    keys = rng.integers(0, 50, (64, 3))
    return keys, (keys.sum(1, keepdims=True) % 3).astype(np.float32)


def test_slots_of_a_table_are_read_by_key_and_equal_those_of_a_plain_variable(make, storage, rng):
    input_dim = 20 if storage == "index" else None
    table = tse.EmbeddingVariable(3, input_dim=input_dim, storage=storage, initializer="ones")
    # The name makes it row-wise for the rules that have such a form.
    plain = keras.Variable(np.ones((20, 3)), name="embeddings", dtype="float32")
    optimizer = make()
    optimizer.build([table, plain])
    for _ in range(3):
        keys = rng.permutation(20)[:6]
        grads = rng.normal(size=(6, 3))
        optimizer.apply([_slices(grads, keys), _slices(grads, keys)], [table, plain])
    np.testing.assert_allclose(table.lookup(np.arange(20)), plain.numpy(), rtol=1e-5, atol=1e-6)
    for name in optimizer.get_slot_names():
        slot = optimizer.get_slot(table, name)
        got = slot.lookup(np.arange(20)).numpy()
        np.testing.assert_allclose(got.reshape(20, -1), optimizer.get_slot(plain, name).numpy().reshape(20, -1), 1e-4)
        keys, rows = slot.export()
        np.testing.assert_array_equal(rows, slot.lookup(keys))


def test_slots_do_not_keep_a_dense_model_from_its_checkpoint(make, tmp_path, rng):
    """By get_slot_names TensorFlow would take it for an optimizer of TF 1."""
    variables = [keras.Variable(rng.normal(size=(3, 2)), dtype="float32", name="kernel") for _ in range(2)]
    optimizers = [make() for _ in range(2)]
    grad = tf.constant(rng.normal(size=(3, 2)), tf.float32)
    for optimizer, variable in zip(optimizers, variables, strict=True):
        optimizer.build([variable])
    optimizers[0].apply([grad], variables[:1])
    first, second = (
        tf.train.Checkpoint(optimizer=optimizer, variable=variable.value)
        for optimizer, variable in zip(optimizers, variables, strict=True)
    )
    second.read(first.write(str(tmp_path / "checkpoint"))).assert_consumed()
    for optimizer, variable in zip(optimizers, variables, strict=True):
        optimizer.apply([grad], [variable])
    np.testing.assert_array_equal(variables[0].numpy(), variables[1].numpy())


def test_an_unknown_slot_is_named():
    table = tse.EmbeddingVariable(3)
    optimizer = tse.optimizers.Adam()
    optimizer.build([table])
    with pytest.raises(ValueError, match="name must be one of momentum, velocity, got 'accumulator'"):
        optimizer.get_slot(table, "accumulator")
    with pytest.raises(ValueError, match="Adam was not built for variable"):
        optimizer.get_slot(tse.EmbeddingVariable(3, name="other"), "momentum")


def _another(default):
    """A value in the range of an argument with this default."""
    if isinstance(default, bool):
        return not default
    return default // 2 if isinstance(default, int) else (default or 1.0) / 2


def test_a_config_holds_every_argument_of_the_constructor(make):
    cls = type(make())
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    given = {p.name: _another(p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert "learning_rate" in given
    for config in (cls(**given).get_config(), cls.from_config(cls(**given).get_config()).get_config()):
        assert {name: config[name] for name in given} == pytest.approx(given)


@pytest.mark.parametrize("how", ["callable", "tape"])
def test_minimize_is_compute_gradients_and_apply(make, how):
    tables = [tse.EmbeddingVariable(2, initializer="ones", name=f"t{t}") for t in range(2)]
    dense = [keras.Variable(np.ones(2), dtype="float32", name=f"d{t}") for t in range(2)]

    def loss(t):
        return tf.reduce_sum(tables[t].lookup([1, 2, 1]) * dense[t])

    first, second = make(), make()
    if how == "callable":
        first.minimize(lambda: loss(0), [tables[0], dense[0]])
    else:
        with tf.GradientTape() as tape:
            value = loss(0)
        first.minimize(value, [tables[0], dense[0]], tape=tape)
    with tf.GradientTape() as tape:
        value = loss(1)
    variables = [tables[1], dense[1]]
    second.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
    np.testing.assert_array_equal(tables[0].lookup([1, 2]), tables[1].lookup([1, 2]))
    np.testing.assert_array_equal(dense[0].numpy(), dense[1].numpy())
    assert (tables[0].lookup([1, 2]).numpy() != 1).all()


def test_minimize_of_a_tensor_needs_a_tape():
    with pytest.raises(ValueError, match="needs the tf.GradientTape"):
        tse.optimizers.SGD().minimize(tf.constant(1.0), [keras.Variable(1.0)])


def test_the_dense_part_can_have_an_optimizer_of_its_own(make, rng):
    keys, answers = _data(rng)
    model = _model()
    twin = _model()
    twin.layers[-1].set_weights(model.layers[-1].get_weights())
    model.compile(make(dense_optimizer=keras.optimizers.Adam(0.03)), "mse")
    embeddings, dense = twin.layers[0], twin.layers[-1]
    optimizer, adam = make(), keras.optimizers.Adam(0.03)
    for batch in range(4):
        part = slice(batch * 16, batch * 16 + 16)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((twin(keys[part], training=True) - answers[part]) ** 2)
        table_grad, *dense_grads = tape.gradient(loss, [embeddings.embeddings, *dense.trainable_variables])
        optimizer.apply([table_grad], [embeddings.embeddings])
        adam.apply(dense_grads, dense.trainable_variables)
    model.fit(keys, answers, batch_size=16, shuffle=False, verbose=0)
    for got, want in zip(model.layers[-1].get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.layers[0].embeddings.lookup(np.arange(50)),
        embeddings.embeddings.lookup(np.arange(50)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_optimizers_for_a_part_count_the_steps_of_all_who_step_at_once():
    """As workers on parameter servers do."""
    kernel, gate = (keras.Variable(np.zeros([2, 3]), name=name) for name in ("kernel", "gate"))
    dense, override = keras.optimizers.Adam(0.1), keras.optimizers.SGD(0.1)
    optimizer = tse.optimizers.RowWiseAdam(dense_optimizer=dense, overrides={"gate": override})
    optimizer.build([kernel, gate])

    @tf.function
    def step(grad):
        optimizer.apply([grad, grad], [kernel, gate])

    def steps(_):
        for _ in range(500):
            step(tf.ones([2, 3]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(steps, range(4)))
    assert [int(each.iterations) for each in (optimizer, dense, override)] == [2000] * 3


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_overrides_give_tables_rates_and_optimizers_of_their_own(mode):
    names = ("user", "item", "city", "shop", "rest")
    tables = {name: tse.EmbeddingVariable(2, initializer="zeros", name=name) for name in names}
    plain = keras.Variable(np.zeros((4, 2)), name="plain_rate", dtype="float32")
    halving = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.25])
    optimizer = tse.optimizers.SGD(
        1.0,
        overrides={
            tables["user"]: 0.1,
            "item": tse.optimizers.SGD(0.01),
            "city|shop": halving,
            "rate$": 0.2,
        },
    )
    variables = [*tables.values(), plain]
    optimizer.build(variables)

    def step():
        grads = [_slices(np.ones((1, 2)), [3])] * 6
        optimizer.apply(grads, variables)

    step = step if mode == "eager" else tf.function(step)
    for _ in range(2):
        step()
    want = {"user": -0.2, "item": -0.02, "city": -0.75, "shop": -0.75, "rest": -2.0}
    for name, value in want.items():
        np.testing.assert_allclose(tables[name].lookup([3]), [[value, value]], rtol=1e-6)
    np.testing.assert_allclose(plain.numpy()[3], [-0.4, -0.4], rtol=1e-6)
    assert int(optimizer.iterations) == int(optimizer.overrides.optimizers[0].iterations) == 2


@pytest.mark.parametrize(
    "overrides, text",
    [
        ([1], "overrides must be a dict or None, got list"),
        ({"(": 0.1}, "key of overrides must be a regular expression, got '\\('"),
        ({3: 0.1}, "key of overrides must be a tse.EmbeddingVariable"),
        ({"a": -0.1}, "value of overrides must be a learning rate .* got -0.1"),
        ({"a": "adam"}, "value of overrides must be a learning rate .* got 'adam'"),
    ],
)
def test_bad_overrides_are_named(overrides, text):
    with pytest.raises(ValueError, match=text):
        tse.optimizers.SGD(overrides=overrides)


def test_a_table_as_a_key_means_itself_and_no_other_of_its_path():
    tables = [tse.EmbeddingVariable(2, initializer="zeros") for _ in range(2)]
    assert tables[0].path == tables[1].path
    optimizer = tse.optimizers.SGD(1.0, overrides={tables[1]: 0.1})
    optimizer.apply([_slices(np.ones((1, 2)), [3])] * 2, tables)
    np.testing.assert_allclose(tables[0].lookup([3]), [[-1.0, -1.0]])
    np.testing.assert_allclose(tables[1].lookup([3]), [[-0.1, -0.1]])


def test_a_layer_as_a_key_means_its_table_also_after_the_config():
    layers = [tse.Embedding(None, 2, embeddings_initializer="zeros", name=name) for name in ("user", "user_2")]
    for layer in layers:
        layer.build()
    tables = [layer.embeddings for layer in layers]
    optimizer = tse.optimizers.SGD(1.0, overrides={layers[0]: 0.1})
    again = tse.optimizers.SGD.from_config(optimizer.get_config())
    for trained in (optimizer, again):
        trained.apply([_slices(np.ones((1, 2)), [3])] * 2, tables)
    np.testing.assert_allclose(tables[0].lookup([3]), [[-0.2, -0.2]], rtol=1e-6)
    np.testing.assert_allclose(tables[1].lookup([3]), [[-2.0, -2.0]])


def test_a_pattern_that_matches_no_variable_is_a_warning_that_lists_the_variables():
    variables = [tse.EmbeddingVariable(2, name="user"), keras.Variable(np.zeros(2), name="kernel")]
    optimizer = tse.optimizers.SGD(1.0, overrides={"usr": 0.1, "user": 0.2, "kernel|bias": 0.3, "itme": 0.4})
    text = r"overrides \['usr', 'itme'\] match none of the variables .*: \['user', 'kernel'\]"
    with pytest.warns(UserWarning, match=text):
        optimizer.build(variables)
    assert optimizer.built


@pytest.mark.parametrize("key", ["layer", "pattern that matches the others too"])
def test_overrides_of_a_frozen_table_are_no_warning(key, recwarn, rng):
    """Freeze, compile, fit; unfreeze, compile, fit: Keras builds an optimizer for the trainable variables."""
    keys, answers = _data(rng)
    model = _model()
    layer = model.layers[0]
    start = layer.embeddings.lookup(keys).numpy()
    for trainable in (False, True):
        layer.trainable = trainable
        overrides = {layer if key == "layer" else "user|dense": 0.0}
        model.compile(tse.optimizers.SGD(0.1, overrides=overrides), "mse")
        model.fit(keys, answers, verbose=0)
        # A rate of 0 keeps the table, whose layer the key names, as it is.
        np.testing.assert_array_equal(layer.embeddings.lookup(keys), start)
    assert not [str(warning.message) for warning in recwarn if "overrides" in str(warning.message)]


@pytest.mark.parametrize("steps", [None, 2])
def test_averages_and_accumulation_of_the_dense_optimizer_are_those_of_keras(steps, rng):
    """They are no business of the table's; at the end of fit the averages are in the dense variables."""
    keys, answers = _data(rng)
    arguments = {"gradient_accumulation_steps": steps} if steps else {"use_ema": True, "ema_momentum": 0.5}
    model, twin = _model(), keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    twin.layers[-1].set_weights(model.layers[-1].get_weights())
    # The table stays as it is, so that the twin, which has its output for input, sees the same.
    overrides = {model.layers[0]: 0.0}
    dense_optimizer = keras.optimizers.Adam(0.1, **arguments)
    model.compile(tse.optimizers.SGD(0.1, dense_optimizer=dense_optimizer, overrides=overrides), "mse")
    twin.compile(keras.optimizers.Adam(0.1, **arguments), "mse")
    vectors = model.layers[0](keys).numpy()
    model.fit(keys, answers, batch_size=16, shuffle=False, verbose=0)
    twin.fit(vectors, answers, batch_size=16, shuffle=False, verbose=0)
    for got, want in zip(model.layers[-1].get_weights(), twin.layers[-1].get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_config_makes_the_same_optimizer(make):
    optimizer = make(
        weight_decay=0.01,
        clipnorm=1.0,
        dense_optimizer=keras.optimizers.Adam(0.2),
        overrides={"a": 0.5, "b": tse.optimizers.RowWiseAdam(0.3)},
    )
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(optimizer)
    assert keras.saving.serialize_keras_object(again) == config
    assert again.get_slot_names() == optimizer.get_slot_names()


class TestLossScaling:
    """`mixed_float16` with tse.optimizers.LossScaleOptimizer."""

    def test_a_mixed_float16_model_trains_with_it(self, make, rng):
        keys, answers = _data(rng)
        layer = tse.Embedding(None, 4, combiner="mean", dtype="mixed_float16", seed=1)
        model = _model(layer, dtype="mixed_float16")
        optimizer = tse.optimizers.LossScaleOptimizer(make(), initial_scale=1024.0, dynamic_growth_steps=3)
        model.compile(optimizer, "mse")
        before = layer.embeddings.lookup(keys).numpy()
        losses = model.fit(keys, answers, batch_size=16, epochs=2, verbose=0).history["loss"]
        assert np.isfinite(losses).all()
        assert (layer.embeddings.lookup(keys).numpy() != before).any()
        assert layer.embeddings.lookup(keys).dtype == tf.float32
        assert int(optimizer.inner_optimizer.iterations) == 8
        # 8 finite steps double the scale after each 3.
        assert float(optimizer.dynamic_scale) == 4096.0

    def test_it_divides_gradients_by_the_scale(self, make):
        tables = [tse.EmbeddingVariable(2, initializer="ones") for _ in range(2)]
        scaled, plain = tse.optimizers.LossScaleOptimizer(make(), initial_scale=256.0), make()
        grad = np.array([[0.5, -0.25], [1.0, 2.0]])
        scaled.apply([_slices(grad * 256.0, [1, 2])], tables[:1])
        plain.apply([_slices(grad, [1, 2])], tables[1:])
        np.testing.assert_array_equal(tables[0].lookup([1, 2]), tables[1].lookup([1, 2]))

    def test_its_config_makes_the_same(self, make):
        optimizer = tse.optimizers.LossScaleOptimizer(make(), initial_scale=64.0, dynamic_growth_steps=7, name="mine")
        config = keras.saving.serialize_keras_object(optimizer)
        # A copy, because Keras' from_config takes the inner optimizer out of the one that it is given.
        again = keras.saving.deserialize_keras_object(copy.deepcopy(config))
        assert type(again) is tse.optimizers.LossScaleOptimizer
        assert keras.saving.serialize_keras_object(again) == config

    @pytest.mark.parametrize("bad", [np.inf, np.nan])
    @pytest.mark.parametrize("mode", ["eager", "graph"])
    def test_a_step_that_is_not_finite_is_left_out_and_halves_the_scale(self, bad, mode):
        table = tse.EmbeddingVariable(2, initializer="ones")
        optimizer = tse.optimizers.LossScaleOptimizer(tse.optimizers.SGD(1.0), initial_scale=256.0)
        optimizer.build([table])

        def step():
            optimizer.apply([_slices([[bad, 0.0]], [1])], [table])

        step() if mode == "eager" else tf.function(step)()
        np.testing.assert_array_equal(table.lookup([1]), [[1.0, 1.0]])
        assert float(optimizer.dynamic_scale) == 128.0
        assert int(optimizer.inner_optimizer.iterations) == 0

    def test_keras_own_wrapper_is_an_error_that_names_it(self, rng):
        keys, answers = _data(rng)
        model = _model(tse.Embedding(None, 4, combiner="mean", dtype="mixed_float16"), dtype="mixed_float16")
        model.dtype_policy = "mixed_float16"
        model.compile(keras.optimizers.LossScaleOptimizer(tse.optimizers.SGD(0.1)), "mse")
        with pytest.raises(TypeError, match="tse.optimizers.LossScaleOptimizer"):
            model.fit(keys, answers, verbose=0)


def _loss_scale(**kwargs):
    return tse.optimizers.LossScaleOptimizer(tse.optimizers.SGD(), **kwargs)


BAD_ARGUMENTS = [
    (lambda: tse.optimizers.SGD(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
    (lambda: tse.optimizers.Adagrad(initial_accumulator_value=-1), "initial_accumulator_value must not be negative"),
    (lambda: tse.optimizers.Adagrad(epsilon=0), "epsilon must be positive, got 0"),
    (lambda: tse.optimizers.AdagradDecay(decay_step=0), "decay_step must be a positive int, got 0"),
    (lambda: tse.optimizers.AdagradDecay(decay_rate=0), r"decay_rate must be in \(0, 1\], got 0"),
    (lambda: tse.optimizers.AdagradDecay(decay_rate=1.5), r"decay_rate must be in \(0, 1\], got 1.5"),
    (lambda: tse.optimizers.AdagradDecay(initial_accumulator_value=0), "initial_accumulator_value must be positive"),
    (lambda: tse.optimizers.Adam(beta_1=1), r"beta_1 must be in \[0, 1\), got 1"),
    (lambda: tse.optimizers.AdamW(weight_decay=None), "weight_decay of AdamW must be a float, got None"),
    (lambda: tse.optimizers.Ftrl(learning_rate_power=0.5), "learning_rate_power must not be positive, got 0.5"),
    (lambda: tse.optimizers.Ftrl(beta=-1), "beta must not be negative, got -1"),
    (lambda: tse.optimizers.RMSprop(rho=-0.1), r"rho must be in \[0, 1\), got -0.1"),
    (lambda: tse.optimizers.RMSprop(epsilon=float("nan")), "epsilon must be positive, got nan"),
    (lambda: tse.optimizers.Adam(epsilon="a"), "epsilon must be positive, got 'a'"),
    (lambda: tse.optimizers.SGD(momentum=None), r"momentum must be in \[0, 1\), got None"),
    (lambda: tse.optimizers.AdagradDecay(decay_step="x"), "decay_step must be a positive int, got 'x'"),
    (lambda: tse.optimizers.Ftrl(learning_rate_power="a"), "learning_rate_power must not be positive, got 'a'"),
    (lambda: tse.optimizers.SGD(nesterov="no"), "nesterov must be True or False, got 'no'"),
    (lambda: tse.optimizers.Adam(amsgrad="no"), "amsgrad must be True or False, got 'no'"),
    (lambda: tse.optimizers.RMSprop(centered=1), "centered must be True or False, got 1"),
    (lambda: tse.optimizers.Adam(weight_decay=-0.1), "weight_decay must not be negative, got -0.1"),
    (lambda: tse.optimizers.Adam(clipnorm=0), "clipnorm must be positive or None, got 0"),
    (lambda: tse.optimizers.Adam(clipvalue=-1.0), "clipvalue must be positive or None, got -1.0"),
    (lambda: tse.optimizers.Adam(global_clipnorm="a"), "global_clipnorm must be positive or None, got 'a'"),
    (lambda: tse.optimizers.Adam(loss_scale_factor=0.0), "loss_scale_factor must be positive or None, got 0.0"),
    (lambda: tse.optimizers.Adam(check_finite=0), "check_finite must be True or False, got 0"),
    (
        lambda: tse.optimizers.Adam(dense_optimizer=keras.optimizers.SGD(loss_scale_factor=2.0)),
        "dense_optimizer must not scale the loss, .* give loss_scale_factor to the optimizer of all",
    ),
    (
        lambda: tse.optimizers.Adam(overrides={"a": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())}),
        "an optimizer in overrides must not scale the loss",
    ),
    (lambda: tse.optimizers.LossScaleOptimizer("sgd"), "inner_optimizer must be an optimizer .* got 'sgd'"),
    (
        lambda: tse.optimizers.LossScaleOptimizer(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())),
        "inner_optimizer must be an optimizer .* no LossScaleOptimizer itself",
    ),
    (lambda: _loss_scale(initial_scale=0.0), "initial_scale must be positive, got 0.0"),
    (lambda: _loss_scale(initial_scale=float("inf")), "initial_scale must be positive, got inf"),
    (lambda: _loss_scale(dynamic_growth_steps=0), "dynamic_growth_steps must be a positive int, got 0"),
    (lambda: _loss_scale(dynamic_growth_steps=1.5), "dynamic_growth_steps must be a positive int, got 1.5"),
    (lambda: _loss_scale(clipnorm=1.0), "set `clipnorm` on the `inner_optimizer`"),
]


@pytest.mark.parametrize("make_bad, text", BAD_ARGUMENTS, ids=[text.split()[0] for _, text in BAD_ARGUMENTS])
def test_a_bad_argument_is_named(make_bad, text):
    with pytest.raises(ValueError, match=text):
        make_bad()
