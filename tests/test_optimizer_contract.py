"""What an optimizer of tse.optimizers offers beside its rule: slots, minimize, other optimizers and rates for a part of
the variables, loss scaling, and Keras' arguments on tables."""

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

    for _ in range(2):
        step() if mode == "eager" else tf.function(step)()
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


@pytest.mark.parametrize("argument", [{"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str)
def test_what_would_touch_whole_tables_is_refused_when_one_comes(make, argument):
    optimizer = make(**argument)
    (name,) = argument
    with pytest.raises(ValueError, match=f"{name} would touch every row of a table"):
        optimizer.build([tse.EmbeddingVariable(3)])


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


BAD_ARGUMENTS = [
    (lambda: tse.optimizers.SGD(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
    (lambda: tse.optimizers.Adagrad(initial_accumulator_value=-1), "initial_accumulator_value must not be negative"),
    (lambda: tse.optimizers.Adagrad(epsilon=0), "epsilon must be positive, got 0"),
    (lambda: tse.optimizers.AdagradDecay(decay_step=0), "decay_step must be a positive int, got 0"),
    (lambda: tse.optimizers.AdagradDecay(decay_rate=0), "decay_rate must be positive, got 0"),
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
]


@pytest.mark.parametrize("make_bad, text", BAD_ARGUMENTS, ids=[text.split()[0] for _, text in BAD_ARGUMENTS])
def test_a_bad_argument_is_named(make_bad, text):
    with pytest.raises(ValueError, match=text):
        make_bad()


STATE_BYTES = {"SGD": 0, "Momentum": 32, "Adagrad": 32, "AdagradDecay": 36, "AdamW": 64, "Ftrl": 64, "RMSprop": 96}
STATE_BYTES |= {"Adam": 96, "RowWiseAdagrad": 4, "RowWiseAdam": 36}


@pytest.mark.parametrize("name", ALL)
def test_a_row_has_the_bytes_of_state_that_the_docstring_says(name):
    table = tse.EmbeddingVariable(8)
    table.lookup(np.arange(1000), insert=True)
    before = int(table.memory_bytes())
    ALL[name]().build([table])
    assert int(table.statistics()["state_bytes"]) == 1000 * STATE_BYTES[name]
    # Rows are in chunks, of which a part is spare.
    assert 1000 * STATE_BYTES[name] <= int(table.memory_bytes()) - before <= 3000 * STATE_BYTES[name]


def test_rows_that_are_not_named_keep_every_bit_for_1000_steps(make, rng):
    table = tse.EmbeddingVariable(3, seed=1)
    optimizer = make()
    optimizer.build([table])
    optimizer.apply([_slices(rng.normal(size=(40, 3)), np.arange(40))], [table])
    keys, before = (part.numpy() for part in table.export(with_state=True))

    @tf.function
    def step(keys, grads):
        optimizer.apply([tf.IndexedSlices(grads, keys)], [table])

    for _ in range(1000):
        named = rng.integers(0, 20, 8)
        step(tf.constant(named, tf.int64), tf.constant(rng.normal(size=(8, 3)), tf.float32))
    _, after = (part.numpy() for part in table.export(with_state=True))
    assert before[keys >= 20].tobytes() == after[keys >= 20].tobytes()
    assert (before[keys < 20] != after[keys < 20]).any(1).all()
