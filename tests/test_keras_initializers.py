"""Keras' initializers make the rows that they make for keras.layers.Embedding."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import initializers
from keras_cases import D, V, table_rows

import tf_sparse_emb as tse


@pytest.fixture(params=["index", "dynamic"])
def table(request):
    return request.param


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
    np.testing.assert_array_equal(table_rows(ours), table_rows(theirs))


@pytest.mark.parametrize("initializer", ["GlorotUniform", "HeNormal", "Orthogonal", "VarianceScaling"])
def test_the_seed_of_the_layer_is_that_of_the_initializer_by_itself(initializer):
    theirs = keras.layers.Embedding(V, D, EQUAL_INITIALIZERS[initializer]())
    theirs.build()
    config = EQUAL_INITIALIZERS[initializer]().get_config() | {"seed": None}
    unseeded = getattr(initializers, initializer).from_config(config)
    ours, other = tse.Embedding(V, D, unseeded, seed=5), tse.Embedding(V, D, unseeded, seed=6)
    ours.build()
    other.build()
    np.testing.assert_array_equal(table_rows(ours), table_rows(theirs))
    assert (table_rows(other) != table_rows(ours)).any()


@pytest.mark.parametrize(
    "initializer", [initializers.GlorotUniform, initializers.RandomUniform, initializers.RandomNormal]
)
def test_a_seed_that_is_given_to_the_layer_goes_before_the_initializers_own(initializer):
    rows = []
    for own, given in ((3, 7), (7, None), (3, None)):
        layer = tse.Embedding(V, D, initializer(seed=own), seed=given)
        layer.build()
        rows.append(table_rows(layer))
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
