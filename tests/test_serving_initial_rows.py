"""Initial rows and norms by TensorFlow's own ops are those of the table."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.initializers import row_initializer
from tf_sparse_emb.serving.initial_rows import InitialRows, bound_norms

INITIALIZERS = {
    "zeros": keras.initializers.Zeros(),
    "ones": keras.initializers.Ones(),
    "constant": keras.initializers.Constant(-0.3),
    "uniform": keras.initializers.RandomUniform(-0.05, 0.05),
    "uniform_around_another_middle": keras.initializers.RandomUniform(0.1, 0.7),
    "uniform_of_no_width": keras.initializers.RandomUniform(0.3, 0.3),
    "unit_scaling": tse.initializers.UniformUnitScaling(0.013, 12345),
    "normal": keras.initializers.RandomNormal(0.1, 0.3),
    "truncated_normal": keras.initializers.TruncatedNormal(-0.1, 0.05),
}
MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_initial_rows_are_those_of_the_table(name, mode, dim):
    initializer, keys = INITIALIZERS[name], tf.constant(reference.key_universe("slab", 2000))
    for seed in (0, -(2**63), 2**63 - 1, 12345):
        table = tse.EmbeddingVariable(dim, initializer=initializer, seed=seed)
        rows = InitialRows(row_initializer(initializer), seed, dim)
        got, want = MODES[mode](rows.of)(keys), table.lookup(keys).numpy()
        assert rows.are_zeros == (name == "zeros")
        if "normal" in name:
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("norm_type", [0.5, 1.0, 2.0, 3.0, np.inf])
def test_norms_are_bounded_as_by_the_table(norm_type, dim, rng):
    rows = (rng.normal(size=(200, dim)) * 10.0 ** rng.integers(-6, 4, (200, 1))).astype(np.float32)
    rows[0] = 0.0
    table = tse.EmbeddingVariable(dim, max_norm=0.7, norm_type=norm_type)
    table.upsert(np.arange(200), rows)
    want = table.lookup(np.arange(200)).numpy()
    got = bound_norms(tf.constant(rows), 0.7, norm_type).numpy()
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7)
    assert 20 < (want != rows).any(1).sum() < 190
    np.testing.assert_array_equal(bound_norms(tf.constant(rows), None, norm_type), rows)
