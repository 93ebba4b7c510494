"""The same programs on keras.layers.Embedding under keras.optimizers.SGD and on tse.Embedding under tse.optimizers.SGD.

Outputs, gradients, the table after every step, losses, masks, shapes and configs. Letters: V rows, D dim.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import initializers

import tf_sparse_emb as tse

V, D, STEPS = 19, 5, 4
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
SHAPES = {0: (), 1: (24,), 2: (6, 5), 3: (3, 2, 4)}


@pytest.fixture(params=["index", "dynamic"])
def table(request):
    return request.param


@pytest.fixture
def start(rng):
    return rng.normal(scale=0.7, size=(V, D)).astype(np.float32)


def _ours(table, **kwargs):
    return tse.Embedding(V if table == "index" else None, D, **{"seed": 1} | kwargs)


def _pair(table, start, **kwargs):
    """keras.layers.Embedding and tse.Embedding with the same arguments and the rows `start`."""
    theirs, ours = keras.layers.Embedding(V, D, **kwargs), _ours(table, **kwargs)
    theirs.build()
    ours.build()
    theirs.embeddings.assign(start)
    ours.embeddings.upsert(np.arange(V), start)
    return theirs, ours


def _rows(layer):
    if isinstance(layer, tse.Embedding):
        return layer.embeddings.lookup(np.arange(V)).numpy()
    return layer.embeddings.numpy()


def _dense(gradient):
    if not isinstance(gradient, tf.IndexedSlices):
        return np.asarray(gradient)
    dense = np.zeros((V, D), np.float32)
    np.add.at(dense, np.asarray(gradient.indices), np.asarray(gradient.values))
    return dense


def _step(layer, optimizer, keys, coefficients):
    """One step on sum(c x + x^2 / 2) and the layer's own losses: the output, those losses and the gradient [V, D]."""
    with tf.GradientTape() as tape:
        output = layer(keys, training=True)
        losses = list(layer.losses)
        x = tf.cast(output, tf.float32)
        loss = tf.reduce_sum(coefficients * x + 0.5 * x**2) + sum(losses)
    (gradient,) = tape.gradient(loss, layer.trainable_variables)
    optimizer.apply_gradients([(gradient, layer.trainable_variables[0])])
    return output.numpy(), [float(loss) for loss in losses], _dense(gradient)


def _run_and_compare(theirs, ours, batches, rng, rate=0.05):
    """Runs both over the batches of keys; everything is equal at every step."""
    optimizers = keras.optimizers.SGD(rate), tse.optimizers.SGD(rate)
    before = _rows(theirs)
    for keys in batches:
        coefficients = rng.normal(size=(*keys.shape, D)).astype(np.float32)
        want, got = (
            _step(layer, optimizer, keys, coefficients)
            for layer, optimizer in zip((theirs, ours), optimizers, strict=True)
        )
        for expected, value in zip(want, got, strict=True):
            np.testing.assert_allclose(value, expected, **TOLERANCE)
        np.testing.assert_allclose(_rows(ours), _rows(theirs), **TOLERANCE)
    assert np.abs(_rows(theirs) - before).max() > 1e-2
    assert int(ours.embeddings.size()) == V


def _every_row_once(rng):
    """A batch that names every row once: there, what Keras does to the whole table is done to the rows of the batch."""
    return [rng.permutation(V) for _ in range(STEPS)]


@pytest.mark.parametrize("rank", SHAPES, ids=lambda rank: f"rank{rank}")
@pytest.mark.parametrize("dtype", [np.int32, np.int64], ids=lambda dtype: dtype.__name__)
def test_outputs_gradients_and_tables_are_equal(table, rank, dtype, start, rng):
    batches = [tf.constant(rng.integers(0, V // 2, SHAPES[rank]), dtype) for _ in range(STEPS)]
    _run_and_compare(*_pair(table, start), batches, rng)


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_are_equal(table, seed, start):
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(8):
        shape = tuple(rng.integers(1, 6, rng.integers(0, 4)))
        batches.append(tf.constant(rng.integers(0, V, shape), rng.choice([np.int32, np.int64])))
    batches.append(tf.zeros([0, 3], tf.int64))
    _run_and_compare(*_pair(table, start), batches, rng)


def test_a_step_in_a_tf_function_is_equal(table, start, rng):
    theirs, ours = _pair(table, start)
    keys = [rng.integers(0, V, (6, 5)) for _ in range(STEPS)]
    coefficients = tf.constant(rng.normal(size=(6, 5, D)), tf.float32)
    for layer, optimizer in ((theirs, keras.optimizers.SGD(0.05)), (ours, tse.optimizers.SGD(0.05))):
        optimizer.build(layer.trainable_variables)

        @tf.function
        def step(batch, layer=layer, optimizer=optimizer):
            with tf.GradientTape() as tape:
                output = layer(batch, training=True)
                loss = tf.reduce_sum(coefficients * output + 0.5 * output**2)
            optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)

        for batch in keys:
            step(tf.constant(batch))
    np.testing.assert_allclose(_rows(ours), _rows(theirs), **TOLERANCE)
    assert np.abs(_rows(ours) - start).max() > 1e-2


def test_ragged_keys_give_the_rows_of_their_flat_values(table, start, rng):
    theirs, ours = _pair(table, start)
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, 7), [3, 0, 4])
    output = ours(ragged)
    assert isinstance(output, tf.RaggedTensor)
    np.testing.assert_array_equal(output.row_splits, ragged.row_splits)
    np.testing.assert_array_equal(output.flat_values, theirs(ragged.flat_values))


# Initializers, on an index table.

# Those that tse.Embedding evaluates as Keras does, for all rows at once.
EQUAL_INITIALIZERS = {
    "zeros": lambda: "zeros",
    "ones": lambda: "ones",
    "Zeros": initializers.Zeros,
    "Ones": initializers.Ones,
    "Constant": lambda: initializers.Constant(0.3),
    "Constant_matrix": lambda: initializers.Constant(np.arange(V * D, dtype=np.float32).reshape(V, D)),
    "Identity": lambda: initializers.Identity(2.0),
    "VarianceScaling": lambda: initializers.VarianceScaling(2.0, "fan_avg", "untruncated_normal", seed=5),
    "GlorotUniform": lambda: initializers.GlorotUniform(seed=5),
    "GlorotNormal": lambda: initializers.GlorotNormal(seed=5),
    "HeUniform": lambda: initializers.HeUniform(seed=5),
    "HeNormal": lambda: initializers.HeNormal(seed=5),
    "LecunUniform": lambda: initializers.LecunUniform(seed=5),
    "LecunNormal": lambda: initializers.LecunNormal(seed=5),
    "Orthogonal": lambda: initializers.Orthogonal(gain=3.0, seed=5),
    "callable": lambda: lambda shape, dtype=None: tf.reshape(tf.range(V * D, dtype=dtype), shape),
}
# Those of which it makes each row by itself, a function of (seed, key): equal to Keras' in distribution.
ALIKE_INITIALIZERS = {
    "uniform": lambda: "uniform",
    "normal": lambda: "normal",
    "RandomUniform": lambda: initializers.RandomUniform(-0.5, 1.5, seed=5),
    "RandomNormal": lambda: initializers.RandomNormal(1.0, 0.5, seed=5),
    "TruncatedNormal": lambda: initializers.TruncatedNormal(-1.0, 2.0, seed=5),
}


def test_every_keras_initializer_is_tested():
    classes = {
        name
        for name, value in vars(initializers).items()
        if inspect.isclass(value) and issubclass(value, initializers.Initializer)
    } - {"Initializer"}
    one_name_each = {getattr(initializers, name).__name__ for name in classes}
    tested = {*EQUAL_INITIALIZERS, *ALIKE_INITIALIZERS, "OrthogonalInitializer", "IdentityInitializer"}
    # STFT's windows are no matrix [V, D].
    assert one_name_each - tested - {"STFT", "STFTInitializer"} == set()


@pytest.mark.parametrize("initializer", EQUAL_INITIALIZERS)
def test_an_initializer_makes_the_rows_that_keras_makes(initializer):
    theirs, ours = (cls(V, D, EQUAL_INITIALIZERS[initializer]()) for cls in (keras.layers.Embedding, tse.Embedding))
    theirs.build()
    ours.build()
    np.testing.assert_array_equal(_rows(ours), _rows(theirs))


@pytest.mark.parametrize("initializer", ["GlorotUniform", "HeNormal", "Orthogonal", "VarianceScaling"])
def test_the_seed_of_the_layer_is_that_of_the_initializer_by_itself(initializer):
    theirs = keras.layers.Embedding(V, D, EQUAL_INITIALIZERS[initializer]())
    theirs.build()
    config = EQUAL_INITIALIZERS[initializer]().get_config() | {"seed": None}
    unseeded = getattr(initializers, initializer).from_config(config)
    ours, other = tse.Embedding(V, D, unseeded, seed=5), tse.Embedding(V, D, unseeded, seed=6)
    ours.build()
    other.build()
    np.testing.assert_array_equal(_rows(ours), _rows(theirs))
    assert (_rows(other) != _rows(ours)).any()


@pytest.mark.parametrize(
    "initializer", [initializers.GlorotUniform, initializers.RandomUniform, initializers.RandomNormal]
)
def test_a_seed_that_is_given_to_the_layer_goes_before_the_initializers_own(initializer):
    rows = []
    for own, given in ((3, 7), (7, None), (3, None)):
        layer = tse.Embedding(V, D, initializer(seed=own), seed=given)
        layer.build()
        rows.append(_rows(layer))
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()


@pytest.mark.parametrize("initializer", ALIKE_INITIALIZERS)
def test_an_initializer_that_works_row_by_row_has_the_distribution_of_keras(table, initializer):
    count, dim = 4000, 16
    theirs = keras.layers.Embedding(count, dim, ALIKE_INITIALIZERS[initializer]())
    ours = tse.Embedding(count if table == "index" else None, dim, ALIKE_INITIALIZERS[initializer]())
    want, got = theirs(np.arange(count)).numpy().ravel(), ours(np.arange(count)).numpy().ravel()
    scale = want.std()
    # 64000 draws: the standard error of a mean is 0.004 of the scale, of a quantile at most 0.01.
    np.testing.assert_allclose(got.mean(), want.mean(), atol=0.03 * scale)
    np.testing.assert_allclose(got.std(), scale, rtol=0.02)
    quantiles = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(got, quantiles), np.quantile(want, quantiles), atol=0.06 * scale)
    if initializer not in ("normal", "RandomNormal"):
        np.testing.assert_allclose([got.min(), got.max()], [want.min(), want.max()], atol=0.02 * scale)
    assert np.unique(got).size > 0.9 * got.size


# Regularizers and constraints.

REGULARIZERS = {
    "l1": lambda: keras.regularizers.L1(0.03),
    "l2": lambda: keras.regularizers.L2(0.05),
    "l1_l2": lambda: keras.regularizers.L1L2(0.02, 0.04),
    "by_name": lambda: "l2",
    "orthogonal": lambda: keras.regularizers.OrthogonalRegularizer(0.01),
}


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_regularizer_is_that_of_keras_where_a_batch_names_every_row_once(table, regularizer, start, rng):
    theirs, ours = _pair(table, start, embeddings_regularizer=REGULARIZERS[regularizer]())
    _run_and_compare(theirs, ours, _every_row_once(rng), rng)
    assert len(ours.losses) == 1 and float(ours.losses[0]) > 0


def test_the_loss_is_the_regularizer_of_the_rows_of_the_call(table, start):
    regularizer = keras.regularizers.L2(0.1)
    _, ours = _pair(table, start, embeddings_regularizer=regularizer)
    ours(np.array([[3, 7], [7, 11]]))
    np.testing.assert_allclose([float(loss) for loss in ours.losses], [0.1 * (start[[3, 7, 11]] ** 2).sum()], rtol=1e-6)


@pytest.mark.parametrize("combiner", [None, "sum", "mean", "max"])
def test_a_key_that_comes_twice_is_penalised_once(table, combiner, start):
    """Also in its gradient: 2 * 0.1 * w for every row named, whatever the number of times."""
    _, ours = _pair(table, start, embeddings_regularizer=keras.regularizers.L2(0.1))
    pooled = _ours(table, embeddings_regularizer=keras.regularizers.L2(0.1), combiner=combiner)
    pooled.build()
    pooled.embeddings.upsert(np.arange(V), start)
    want = np.zeros((V, D), np.float32)
    want[[2, 4]] = 0.2 * start[[2, 4]]
    for layer, keys in ((pooled, [[2, 2, 4], [4, 2, 2]]), (ours, [[2, 4]])):
        with tf.GradientTape() as tape:
            layer(np.array(keys))
            (loss,) = layer.losses
        np.testing.assert_allclose(float(loss), 0.1 * (start[[2, 4]] ** 2).sum(), rtol=1e-6)
        np.testing.assert_allclose(_dense(tape.gradient(loss, layer.trainable_variables)[0]), want, **TOLERANCE)


def test_calls_in_a_model_each_add_their_loss(table, start):
    _, ours = _pair(table, start, embeddings_regularizer=keras.regularizers.L2(0.1))
    inputs = [keras.Input((2,), dtype="int64") for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Add()([ours(i) for i in inputs]))
    for _ in range(2):
        model([np.array([[1, 2]]), np.array([[2, 2]])])
        want = [0.1 * (start[rows] ** 2).sum() for rows in ([1, 2], [2])]
        np.testing.assert_allclose([float(loss) for loss in model.losses], want, rtol=1e-6)


@pytest.mark.parametrize("how", ["constructor", "attribute"])
def test_a_frozen_layer_adds_no_loss_as_in_keras(table, how, start):
    frozen = {"trainable": False} if how == "constructor" else {}
    for layer in _pair(table, start, embeddings_regularizer="l2", **frozen):
        layer.trainable = False
        layer(np.arange(V), training=True)
        assert layer.losses == []
        layer.trainable = True
        layer(np.arange(V), training=True)
        np.testing.assert_allclose(float(layer.losses[0]), 0.01 * (start**2).sum(), rtol=1e-6)


def test_an_activity_regularizer_is_that_of_keras(table, start, rng):
    theirs, ours = _pair(table, start, activity_regularizer=keras.regularizers.L2(0.1))
    keys = rng.integers(0, V, (4, 3))
    losses = []
    for layer in (theirs, ours):
        layer(keys)
        losses.append([float(loss) for loss in layer.losses])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    assert len(losses[0]) == 1


CONSTRAINTS = {
    "NonNeg": keras.constraints.NonNeg,
    "MaxNorm": lambda: keras.constraints.MaxNorm(1.0, axis=1),
    "UnitNorm": lambda: keras.constraints.UnitNorm(axis=1),
    "MinMaxNorm": lambda: keras.constraints.MinMaxNorm(0.5, 1.0, rate=0.7, axis=1),
    "by_name": lambda: "non_neg",
}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_constraint_is_that_of_keras_where_a_batch_names_every_row(table, constraint, start, rng):
    theirs, ours = _pair(table, start, embeddings_constraint=CONSTRAINTS[constraint]())
    repeated = [np.concatenate([rng.permutation(V), rng.integers(0, V, 5)]) for _ in range(STEPS)]
    _run_and_compare(theirs, ours, _every_row_once(rng) + repeated, rng)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_constraint_leaves_rows_that_are_not_named_as_they_are(table, constraint, start):
    made = keras.constraints.get(CONSTRAINTS[constraint]())
    _, ours = _pair(table, start, embeddings_constraint=made)
    named = np.array([1, 4, 17])
    for _ in range(3):
        before = _rows(ours)
        _step(ours, tse.optimizers.SGD(0.05), np.concatenate([named, named[:2]]), np.ones((5, D), np.float32))
        assert (_rows(ours)[named] != before[named]).any()
    others = np.setdiff1d(np.arange(V), named)
    np.testing.assert_array_equal(_rows(ours)[others], start[others])
    assert (np.asarray(made(start)) != start)[others].any()
    if constraint != "MinMaxNorm":  # which approaches its bounds at `rate`
        np.testing.assert_allclose(_rows(ours)[named], made(tf.constant(_rows(ours)[named])), **TOLERANCE)


def test_a_constraint_and_a_regularizer_together_train_as_in_keras(table, start, rng):
    arguments = {"embeddings_regularizer": "l2", "embeddings_constraint": keras.constraints.MaxNorm(1.0, axis=1)}
    _run_and_compare(*_pair(table, start, **arguments), _every_row_once(rng), rng)


# Masks.

MASKED_KEYS = np.array([[3, 0, 5, 0], [0, 0, 0, 7], [1, 2, 3, 4], [0, 6, 0, 0]])


@pytest.mark.parametrize("keys", [MASKED_KEYS[0], MASKED_KEYS, MASKED_KEYS.reshape(2, 2, 4)], ids=lambda k: str(k.ndim))
def test_the_mask_is_that_of_keras(table, keys, start):
    masks = [layer.compute_mask(tf.constant(keys)) for layer in _pair(table, start, mask_zero=True)]
    assert masks[1].dtype == tf.bool
    np.testing.assert_array_equal(masks[1], masks[0])


def test_without_mask_zero_there_is_no_mask(table, start):
    for layer in _pair(table, start):
        assert layer.compute_mask(tf.constant(MASKED_KEYS)) is None
        assert layer.supports_masking is False


DOWNSTREAM = {
    "LSTM": lambda: keras.layers.LSTM(3),
    "GRU_sequences": lambda: keras.layers.GRU(3, return_sequences=True),
    "GlobalAveragePooling1D": lambda: keras.layers.GlobalAveragePooling1D(),
    "Attention": lambda: keras.layers.MultiHeadAttention(2, 3),
}


def _with_downstream(layer, downstream):
    if isinstance(downstream, keras.layers.MultiHeadAttention):
        return lambda keys: (lambda x: downstream(x, x))(layer(keys))
    return lambda keys: downstream(layer(keys))


@pytest.mark.parametrize("mode", ["eager", "function", "functional"])
@pytest.mark.parametrize("downstream", DOWNSTREAM)
def test_the_mask_reaches_the_layer_downstream(table, downstream, mode, start):
    theirs, ours = _pair(table, start, mask_zero=True)
    layer = DOWNSTREAM[downstream]()
    want = _with_downstream(theirs, layer)(MASKED_KEYS)
    call = _with_downstream(ours, layer)
    if mode == "function":
        call = tf.function(call)
    elif mode == "functional":
        keys = keras.Input((4,), dtype="int64")
        call = keras.Model(keys, call(keys))
    np.testing.assert_allclose(call(tf.constant(MASKED_KEYS)), want, **TOLERANCE)
    unmasked = _with_downstream(_pair(table, start)[1], layer)(MASKED_KEYS)
    assert np.abs(np.asarray(unmasked) - want).max() > 1e-3


@pytest.mark.parametrize("kind", ["sequential", "sequential_with_input"])
def test_the_mask_reaches_the_next_layer_of_a_sequential_model(table, kind, start):
    theirs, ours = _pair(table, start, mask_zero=True)
    lstm = keras.layers.LSTM(3)
    want = lstm(theirs(MASKED_KEYS))
    inputs = [keras.Input((4,), dtype="int64")] if kind == "sequential_with_input" else []
    model = keras.Sequential([*inputs, ours, lstm])
    np.testing.assert_allclose(model(MASKED_KEYS), want, **TOLERANCE)
    np.testing.assert_allclose(model.predict(MASKED_KEYS, verbose=0), want, **TOLERANCE)


@pytest.mark.parametrize("copy", ["json", "clone"])
def test_a_model_with_a_mask_can_be_made_again(table, copy, start):
    """As with Keras' layer, whose mask is a part of the model's graph."""
    _, ours = _pair(table, start, mask_zero=True)
    keys = keras.Input((4,), dtype="int64")
    model = keras.Model(keys, keras.layers.LSTM(3)(ours(keys)))
    again = keras.models.model_from_json(model.to_json()) if copy == "json" else keras.models.clone_model(model)
    (layer,) = (layer for layer in again.layers if isinstance(layer, tse.Embedding))
    layer.embeddings.upsert(np.arange(V), start)
    again.layers[-1].set_weights(model.layers[-1].get_weights())
    np.testing.assert_allclose(again(MASKED_KEYS), model(MASKED_KEYS), **TOLERANCE)


def test_a_layer_with_a_mask_that_is_shared_trains_as_in_keras(table, start, rng):
    x = [rng.integers(0, V, (16, 4)) for _ in range(2)]
    y = rng.normal(size=(16, 1)).astype(np.float32)
    weights = None
    layers, models = _pair(table, start, mask_zero=True), []
    for layer, optimizer in zip(layers, (keras.optimizers.SGD(0.1), tse.optimizers.SGD(0.1)), strict=True):
        inputs = [keras.Input((4,), dtype="int64") for _ in range(2)]
        dense = keras.layers.Dense(1)
        pooled = [keras.layers.GlobalAveragePooling1D()(layer(i)) for i in inputs]
        model = keras.Model(inputs, dense(keras.layers.Concatenate()(pooled)))
        weights = weights or dense.get_weights()
        dense.set_weights(weights)
        model.compile(optimizer, "mse")
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    np.testing.assert_allclose(_rows(layers[1]), _rows(layers[0]), **TOLERANCE)
    np.testing.assert_allclose(models[1].predict(x, verbose=0), models[0].predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_mean_with_mask_zero_is_keras_masked_average_where_a_row_has_a_key(table, start):
    theirs, _ = _pair(table, start, mask_zero=True)
    ours = _ours(table, mask_zero=True, combiner="mean")
    ours.build()
    ours.embeddings.upsert(np.arange(V), start)
    want = keras.layers.GlobalAveragePooling1D()(theirs(MASKED_KEYS))
    np.testing.assert_allclose(ours(MASKED_KEYS), want, **TOLERANCE)
    np.testing.assert_array_equal(ours(np.zeros((2, 4), np.int64)), np.zeros((2, D)))
    assert ours.compute_mask(MASKED_KEYS) is None
    deep = MASKED_KEYS.reshape(2, 2, 4) * np.array([1, 0])[:, None, None]
    np.testing.assert_array_equal(ours.compute_mask(deep), [[True, True], [False, False]])


# Arguments.


@pytest.mark.parametrize("form", ["matrix", "list_of_one", "nested_lists", "tensor"])
def test_weights_are_the_rows(table, form, start):
    weights = {"matrix": start, "list_of_one": [start], "nested_lists": start.tolist(), "tensor": tf.constant(start)}
    ours = _ours(table, weights=weights[form])
    theirs = keras.layers.Embedding(V, D, weights=start)
    np.testing.assert_array_equal(_rows(ours), start)
    keys = np.array([[0, V - 1], [3, 3]])
    np.testing.assert_array_equal(ours(keys), theirs(keys))
    assert int(ours.embeddings.size()) == V


def test_nested_lists_of_one_row_are_a_matrix(table):
    layer = tse.Embedding(1 if table == "index" else None, 2, weights=[[1.0, 2.0]])
    np.testing.assert_array_equal(layer(np.array([0])), [[1.0, 2.0]])


@pytest.mark.parametrize("make", ["weights", "from_pretrained", "from_pretrained_with_keys", "build"])
def test_a_layer_that_has_its_rows_can_be_the_first_of_a_sequential_model(make, start):
    """Sequential without keras.Input takes the dtype of its input from the layer; it must not be that of the rows."""
    keys = np.arange(V) + (2**60 if make == "from_pretrained_with_keys" else 0)
    if make == "weights":
        layer = tse.Embedding(V, D, weights=start)
    elif make == "build":
        layer = tse.Embedding(None, D)
        layer.build()
        layer.embeddings.upsert(keys, start)
    else:
        layer = tse.Embedding.from_pretrained(start, keys if make == "from_pretrained_with_keys" else None)
    model = keras.Sequential([layer])
    np.testing.assert_array_equal(model.predict(keys[:, None], verbose=0), start[:, None])


def test_weights_train_as_in_keras(table, start, rng):
    theirs, ours = keras.layers.Embedding(V, D, weights=start), _ours(table, weights=start)
    _run_and_compare(theirs, ours, [rng.integers(0, V, (4, 3)) for _ in range(STEPS)], rng)


@pytest.mark.parametrize("how", ["constructor", "attribute"])
def test_a_layer_that_is_not_trainable_gives_the_same_and_stays(table, how, start, rng):
    frozen = {"trainable": False} if how == "constructor" else {}
    keys, y = rng.integers(0, V, (16, 3)), rng.normal(size=(16, 1)).astype(np.float32)
    predictions = []
    for layer in _pair(table, start, **frozen):
        layer.trainable = False
        assert layer.trainable_variables == [] and len(layer.non_trainable_variables) == 1
        flatten, dense = keras.layers.Flatten(), keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((3,), dtype="int64"), layer, flatten, dense])
        optimizer = tse.optimizers.SGD(0.1) if isinstance(layer, tse.Embedding) else keras.optimizers.SGD(0.1)
        model.compile(optimizer, "mse")
        model.fit(keys, y, epochs=2, shuffle=False, verbose=0)
        predictions.append(model.predict(keys, verbose=0))
        np.testing.assert_array_equal(_rows(layer), start)
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "float64"])
def test_outputs_are_those_of_keras_under_a_dtype_policy(table, policy, start, rng):
    theirs, ours = _pair(table, start, dtype=policy)
    keys = rng.integers(0, V, (5, 4))
    want, got = theirs(keys), ours(keys)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(tf.cast(got, tf.float64), tf.cast(want, tf.float64))


def test_a_bfloat16_policy_trains_as_in_keras(table, start, rng):
    """The gradient arrives in bfloat16: Keras sums what comes for a repeated key there, so each key comes once."""
    theirs, ours = _pair(table, start, dtype="mixed_bfloat16")
    optimizers = keras.optimizers.SGD(0.05), tse.optimizers.SGD(0.05)
    for keys in _every_row_once(rng):
        coefficients = rng.normal(size=(V, D)).astype(np.float32)
        for layer, optimizer in zip((theirs, ours), optimizers, strict=True):
            _step(layer, optimizer, keys, coefficients)
        np.testing.assert_allclose(_rows(ours), _rows(theirs), rtol=1e-2, atol=1e-2)
    assert np.abs(_rows(ours) - start).max() > 0.1


@pytest.mark.parametrize("shape", [(), (None,), (7,), (None, 5), (2, None, 3), (None, None), [None, 4]], ids=str)
def test_output_shapes_and_specs_are_those_of_keras(table, shape, start):
    theirs, ours = _pair(table, start)
    assert ours.compute_output_shape(shape) == theirs.compute_output_shape(shape)
    want, got = (layer.compute_output_spec(keras.KerasTensor(shape, dtype="int64")) for layer in (theirs, ours))
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    want, got = (layer(keras.KerasTensor(shape, dtype="int32")) for layer in (theirs, ours))
    assert (got.shape, got.dtype) == (want.shape, want.dtype)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_spec_of_a_layer_that_is_not_built_has_the_dtype_of_keras(table, policy):
    keys = keras.KerasTensor((None, 3), dtype="int64")
    want = keras.layers.Embedding(V, D, dtype=policy).compute_output_spec(keys)
    got = _ours(table, dtype=policy).compute_output_spec(keys)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)


def test_positional_arguments_come_in_the_order_of_keras():
    theirs, ours = (
        [
            (name, parameter.default)
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        for cls in (keras.layers.Embedding, tse.Embedding)
    )
    assert ours[: len(theirs)] == theirs


CONFIGS = {
    "plain": {},
    "all": {
        "embeddings_initializer": initializers.GlorotUniform(seed=4),
        "embeddings_regularizer": keras.regularizers.L1L2(0.1, 0.2),
        "embeddings_constraint": keras.constraints.MaxNorm(2.0, axis=1),
        "activity_regularizer": "l2",
        "mask_zero": True,
        "name": "item",
        "trainable": False,
        "dtype": "mixed_bfloat16",
    },
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_keras_makes_the_layer(case):
    theirs = keras.layers.Embedding(V, D, **CONFIGS[case])
    ours = tse.Embedding.from_config(theirs.get_config())
    config = ours.get_config()
    assert {name: config.get(name) for name in theirs.get_config()} == theirs.get_config()
    assert (ours.input_dim, ours.output_dim, ours.storage) == (V, D, "index")
    theirs.build()
    ours.build()
    if case == "all":
        np.testing.assert_array_equal(_rows(ours), _rows(theirs))
    again = tse.Embedding.from_config(config)
    again.build()
    assert again.get_config() == config
    np.testing.assert_array_equal(_rows(again), _rows(ours))


@pytest.mark.parametrize("case", CONFIGS)
def test_the_config_of_a_layer_in_a_model_makes_the_same_model(table, case):
    kwargs = CONFIGS[case] | ({} if table == "index" else {"embeddings_initializer": "normal"})
    keys = keras.Input((3,), dtype="int64")
    model = keras.Model(keys, _ours(table, **kwargs)(keys))
    again = keras.models.model_from_json(model.to_json())
    assert again.layers[1].get_config() == model.layers[1].get_config()
    assert again.layers[1].embeddings is not model.layers[1].embeddings
    batch = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(tf.cast(again(batch), tf.float32), tf.cast(model(batch), tf.float32))


# Models.

N, LENGTH = 32, 4


def _functional(layer, dense):
    keys = keras.Input((LENGTH,), dtype="int64")
    return keras.Model(keys, dense(keras.layers.Flatten()(layer(keys))))


def _sequential(layer, dense):
    return keras.Sequential([layer, keras.layers.Flatten(), dense])


def _sequential_with_input(layer, dense):
    return keras.Sequential([keras.Input((LENGTH,), dtype="int32"), layer, keras.layers.Flatten(), dense])


class Subclassed(keras.Model):
    def __init__(self, layer, dense):
        super().__init__()
        self.layer, self.dense = layer, dense

    def call(self, keys):
        return self.dense(tf.reshape(self.layer(keys), [-1, LENGTH * D]))


MODELS = {
    "functional": _functional,
    "sequential": _sequential,
    "sequential_with_input": _sequential_with_input,
    "subclassed": Subclassed,
}
REGULARIZED = {"embeddings_regularizer": "l2", "embeddings_constraint": "non_neg"}
FITS = [
    *[(table, kind, {}, {}) for kind in MODELS for table in ("index", "dynamic")],
    *[(table, "functional", {}, REGULARIZED) for table in ("index", "dynamic")],
    ("index", "functional", {"run_eagerly": True}, {}),
    ("dynamic", "subclassed", {"run_eagerly": True}, {}),
    ("dynamic", "functional", {"steps_per_execution": 3}, {}),
    ("dynamic", "functional", {}, {"trainable": False}),
]


@pytest.mark.parametrize("table, kind, compiling, arguments", FITS, ids=str)
def test_fit_gives_the_weights_that_keras_gives(table, kind, compiling, arguments, start, rng):
    # Every batch names every row, for the regularizer and the constraint.
    batch = np.resize(np.arange(V), 8 * LENGTH)
    x = np.concatenate([rng.permutation(batch) for _ in range(N // 8)]).reshape(N, LENGTH)
    y = rng.normal(size=(N, 1)).astype(np.float32)
    layers, histories, predictions, kernels = _pair(table, start, **arguments), [], [], []
    for layer in layers:
        dense = keras.layers.Dense(1, kernel_initializer=initializers.GlorotUniform(seed=2))
        model = MODELS[kind](layer, dense)
        optimizer = tse.optimizers.SGD(0.05) if isinstance(layer, tse.Embedding) else keras.optimizers.SGD(0.05)
        model.compile(optimizer, "mse", **compiling)
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, validation_data=(x, y), verbose=0).history
        histories.append([history["loss"], history["val_loss"]])
        predictions.append(model.predict(x, verbose=0))
        kernels.append(dense.get_weights()[0])
    np.testing.assert_allclose(_rows(layers[1]), _rows(layers[0]), **TOLERANCE)
    np.testing.assert_allclose(kernels[1], kernels[0], **TOLERANCE)
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-5, atol=1e-6)
    assert (np.abs(_rows(layers[1]) - start).max() > 1e-3) == arguments.get("trainable", True)


def test_fit_on_a_dataset_of_ragged_batches_is_keras_fit_on_the_padded_ones(table, start, rng):
    """Keras pads with 0 and masks; bags of ragged keys need no padding."""
    lengths = rng.integers(1, 5, N)
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(1, V, lengths.sum()), lengths)
    y = rng.normal(size=(N, 1)).astype(np.float32)
    theirs, _ = _pair(table, start, mask_zero=True)
    ours = _ours(table, combiner="mean")
    ours.build()
    ours.embeddings.upsert(np.arange(V), start)
    dense = [keras.layers.Dense(1, kernel_initializer=initializers.GlorotUniform(seed=2)) for _ in range(2)]
    keras_model = keras.Sequential([theirs, keras.layers.GlobalAveragePooling1D(), dense[0]])
    keras_model.compile(keras.optimizers.SGD(0.05), "mse")
    keras_model.fit(ragged.to_tensor(shape=[None, 4]).numpy(), y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    model = keras.Sequential([ours, dense[1]])
    model.compile(tse.optimizers.SGD(0.05), "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((ragged, y)).batch(8), epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(_rows(ours), _rows(theirs), **TOLERANCE)
    assert np.abs(_rows(ours) - start).max() > 1e-3


def test_keys_that_keras_takes_as_they_come(table, start):
    """NumPy scalars, arrays of both int types and tensors; keras.Layer itself refuses Python's ints and lists."""
    theirs, ours = _pair(table, start)
    for keys in (np.int32(3), np.int64(3), np.array(3), np.array([1, 2], np.int32), tf.constant([[1, 2]])):
        np.testing.assert_array_equal(ours(keys), theirs(keys))
    for layer in (theirs, ours):
        for keys in (3, [1, 2], [[1, 2]]):
            with pytest.raises(ValueError, match="Only input tensors may be passed as positional arguments"):
                layer(keys)
