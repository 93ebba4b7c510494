"""tse.Embedding as a layer: outputs, shapes, dtypes, when it inserts, its config, what it refuses."""

import re

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse


def _layer(storage="slab", output_dim=3, **kwargs):
    input_dim = kwargs.pop("input_dim", 1000 if storage == "index" else None)
    return tse.Embedding(input_dim, output_dim, storage=storage, **{"seed": 3} | kwargs)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 0), (0,), (2, 1, 3)], ids=str)
def test_the_output_is_one_row_per_key(storage, shape, rng):
    layer = _layer(storage)
    keys = rng.integers(0, 1000, shape)
    output = layer(keys)
    assert output.shape == (*shape, 3)
    np.testing.assert_array_equal(output, layer.embeddings.lookup(keys))


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4), (2, 0), (0, 4)], ids=str)
def test_a_combiner_pools_over_the_last_axis(storage, combiner, shape, rng):
    layer = _layer(storage, combiner=combiner, embeddings_initializer="normal")
    keys = rng.integers(0, 30, shape)
    output = layer(keys)
    assert output.shape == (*shape[:-1], 3)
    rows = layer.embeddings.lookup(keys).numpy().astype(np.float64)
    count = max(shape[-1], 1)
    want = rows.sum(-2) / {"sum": 1, "mean": count, "sqrtn": np.sqrt(count)}[combiner]
    np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-7)


def test_int32_int64_and_numpy_keys_read_the_same_rows(storage):
    layer = _layer(storage)
    keys = np.array([[1, 2], [3, 999]])
    want = layer(tf.constant(keys, tf.int64))
    np.testing.assert_array_equal(layer(tf.constant(keys, tf.int32)), want)
    np.testing.assert_array_equal(layer(keys), want)


def test_string_keys_are_their_fingerprints(hash_storage):
    layer = _layer(hash_storage)
    words = tf.constant(["a", "b", "a"])
    layer(words, training=True)
    assert int(layer.embeddings.size()) == 2
    np.testing.assert_array_equal(layer(words), layer(tf.bitcast(tf.fingerprint(words), tf.int64)))


def test_extreme_keys_keep_all_their_bits(hash_storage):
    layer = _layer(hash_storage)
    keys = np.concatenate([reference.EXTREME_KEYS, [2**62 + 1, 2**62, 2**53 + 1, 2**53]])
    layer(keys, training=True)
    np.testing.assert_array_equal(np.sort(layer.embeddings.export()[0]), np.sort(keys))


@pytest.mark.parametrize("training, inserted", [(True, 3), (False, 0), (None, 0), ("absent", 0)])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_only_training_true_inserts(hash_storage, training, inserted, mode):
    layer = _layer(hash_storage)
    arguments = {} if training == "absent" else {"training": training}
    layer.build((None,))

    def call(keys):
        return layer(keys, **arguments)

    keys = tf.constant([7, -7, 2**62, 7], tf.int64)
    output = (call if mode == "eager" else tf.function(call))(keys)
    assert int(layer.embeddings.size()) == inserted
    np.testing.assert_array_equal(output, layer.embeddings.lookup(keys))


def test_a_frozen_layer_inserts_nothing(hash_storage):
    layer = _layer(hash_storage)
    layer.trainable = False
    layer(np.arange(10), training=True)
    assert int(layer.embeddings.size()) == 0
    assert layer.trainable_variables == []


def test_missing_zeros_reads_unknown_keys_as_zeros_unless_it_trains(hash_storage):
    layer = _layer(hash_storage, missing="zeros")
    np.testing.assert_array_equal(layer(np.arange(4)), np.zeros((4, 3)))
    trained = layer(np.arange(2), training=True).numpy()
    assert np.abs(trained).min() > 0
    np.testing.assert_array_equal(layer(np.arange(4)), np.concatenate([trained, np.zeros((2, 3))]))


def test_the_table_is_the_one_trainable_variable(storage):
    layer = _layer(storage)
    layer.build((None,))
    assert isinstance(layer.embeddings, tse.EmbeddingVariable)
    for variables in (layer.variables, layer.weights, layer.trainable_variables, layer.trainable_weights):
        assert [id(v) for v in variables] == [id(layer.embeddings)]
    assert layer.non_trainable_variables == []
    assert (layer.embeddings.dim, layer.embeddings.seed, layer.embeddings.storage) == (3, 3, storage)


def test_building_twice_keeps_the_table(storage):
    layer = _layer(storage)
    layer.build((None,))
    table = layer.embeddings
    layer.build((None, 4))
    assert layer.embeddings is table
    assert len(layer.variables) == 1


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "float16"])
@pytest.mark.parametrize("pooled", [None, "mean"])
def test_the_output_dtype_is_the_compute_dtype(storage, policy, pooled):
    layer = _layer(storage, dtype=policy, combiner=pooled)
    output = layer(np.array([[1, 2], [3, 4]]))
    assert output.dtype == layer.compute_dtype
    exact = layer.embeddings.lookup(np.array([[1, 2], [3, 4]]))
    assert exact.dtype == tf.float32
    want = exact if pooled is None else tf.reduce_mean(exact, -2)
    np.testing.assert_allclose(tf.cast(output, tf.float32), want, rtol=1e-2, atol=1e-3)


def test_symbolic_shapes(storage):
    keys = keras.Input((5,), dtype="int64")
    assert _layer(storage)(keys).shape == (None, 5, 3)
    assert _layer(storage, combiner="sum")(keys).shape == (None, 3)
    assert _layer(storage)(keras.Input((None,), dtype="int32")).shape == (None, None, 3)
    assert _layer(storage, dtype="mixed_bfloat16")(keys).dtype == "bfloat16"
    assert tuple(_layer(storage).compute_output_shape((None, 5))) == (None, 5, 3)
    assert tuple(_layer(storage, combiner="mean").compute_output_shape((None, 5))) == (None, 3)


def test_config_round_trip_makes_the_same_layer(storage):
    layer = tse.Embedding(
        100 if storage == "index" else None,
        6,
        embeddings_initializer=keras.initializers.RandomUniform(-2.0, 2.0),
        combiner="sqrtn",
        storage=storage,
        seed=9,
        max_rows=100,
        missing="zeros",
        name="item",
        trainable=False,
    )
    config = layer.get_config()
    want = {
        "input_dim": 100 if storage == "index" else None,
        "output_dim": 6,
        "combiner": "sqrtn",
        "storage": storage,
        "seed": 9,
        "max_rows": 100,
        "missing": "zeros",
        "name": "item",
        "trainable": False,
    }
    assert {name: config[name] for name in want} == want
    again = tse.Embedding.from_config(config)
    assert again.get_config() == config
    keys = np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(again(keys), layer(keys))


def test_the_same_config_gives_the_same_rows_even_when_the_seed_was_drawn(hash_storage):
    layer = tse.Embedding(None, 4, storage=hash_storage)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(again, tse.Embedding)
    keys = np.arange(20)
    np.testing.assert_array_equal(again(keys), layer(keys))
    assert int(again.embeddings.size()) == 0


@pytest.mark.parametrize("initializer", ["truncated_normal", tse.initializers.UniformUnitScaling(2.0, input_size=300)])
def test_the_initializer_survives_the_config(hash_storage, initializer):
    layer = _layer(hash_storage, embeddings_initializer=initializer)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    np.testing.assert_array_equal(again(np.arange(50)), layer(np.arange(50)))


def test_storage_none_is_index_with_input_dim_else_slab():
    for input_dim, storage in [(10, "index"), (None, "slab")]:
        layer = tse.Embedding(input_dim, 2)
        layer.build((None,))
        assert layer.embeddings.storage == storage


SUPPORTED_STORAGES = "(?s)(?=.*unordered_map)(?=.*open_addressing)(?=.*chained)(?=.*slab)(?=.*index).*btree"
BAD = {
    "output_dim_zero": ("output_dim", (None, 0), {}),
    "output_dim_negative": ("output_dim", (None, -4), {}),
    "output_dim_float": ("output_dim", (None, 2.5), {}),
    "output_dim_none": ("output_dim", (None, None), {}),
    "input_dim_zero": ("input_dim", (0, 4), {}),
    "input_dim_negative": ("input_dim", (-1, 4), {}),
    "unknown_storage": (SUPPORTED_STORAGES, (None, 4), {"storage": "btree"}),
    "index_without_input_dim": ("input_dim", (None, 4), {"storage": "index"}),
    "unknown_combiner": ("(?s)combiner.*sum.*mean.*sqrtn.*median", (None, 4), {"combiner": "median"}),
    "unknown_missing": ("(?s)missing.*initial.*zeros.*'?x'?", (None, 4), {"missing": "x"}),
    "max_rows_negative": ("max_rows", (None, 4), {"max_rows": -1}),
    "unknown_initializer": ("no_such", (None, 4), {"embeddings_initializer": "no_such"}),
    "unknown_argument": ("no_such", (None, 4), {"no_such": 1}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_an_error_that_names_it_when_the_layer_is_made(case):
    match, arguments, keywords = BAD[case]
    with pytest.raises((ValueError, TypeError), match=match):
        tse.Embedding(*arguments, **keywords)


def test_an_initializer_that_a_dynamic_table_cannot_have_is_a_value_error_that_lists_the_others(hash_storage):
    with pytest.raises(ValueError, match="(?is)(?=.*constant)(?=.*uniform)(?=.*truncated)(?=.*UniformUnitScaling)"):
        _layer(hash_storage, embeddings_initializer="glorot_uniform").build((None,))
    assert tse.Embedding(20, 4, embeddings_initializer="glorot_uniform")(np.arange(20)).shape == (20, 4)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_keys_of_another_dtype_are_a_type_error_that_names_it(storage, dtype):
    with pytest.raises(TypeError, match=f"must be int32, int64 or string, got {dtype}"):
        _layer(storage)(tf.cast([[1, 0]], dtype))


def test_a_symbolic_input_of_floats_is_refused(storage):
    with pytest.raises(TypeError, match="must be int32, int64 or string, got float"):
        _layer(storage)(keras.Input((3,), dtype="float32"))


@pytest.mark.parametrize("bad", [-1, 50, 2**62])
def test_a_key_out_of_range_is_an_error_and_the_table_unchanged(bad):
    for storage in reference.STORAGES:
        layer = _layer(storage, input_dim=50)
        before = layer(np.arange(50)).numpy()
        size = int(layer.embeddings.size())
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{bad}"):
            layer(np.array([[3, bad]]), training=True)
        assert int(layer.embeddings.size()) == size
        np.testing.assert_array_equal(layer(np.arange(50)), before)


def test_a_pooled_scalar_key_is_an_error(combiner):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="(?i)rank|combiner|axis"):
        _layer(combiner=combiner)(tf.constant(3, tf.int64))


def test_the_summary_names_the_rows_and_bytes_of_the_table(hash_storage):
    model = keras.Sequential([keras.Input([2], dtype="int64"), _layer(hash_storage), keras.layers.Dense(5)])
    model(np.arange(2000).reshape(1000, 2), training=True)
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    text = re.sub(r"[^\w,.()]+", " ", "\n".join(lines))  # the cell is of two lines
    assert re.search(r"6,000 \(2,000 rows, \d+ KB\)", text), text
    assert model.layers[0].count_params() == 6000


def test_a_layer_made_of_a_keras_config_is_the_same_layer():
    theirs = keras.layers.Embedding(9, 4, "normal", "l2", "non_neg", mask_zero=True, name="word")
    ours = tse.Embedding.from_config(theirs.get_config())
    config = ours.get_config()
    assert {name: config[name] for name in ("input_dim", "output_dim", "mask_zero", "name")} == {
        "input_dim": 9,
        "output_dim": 4,
        "mask_zero": True,
        "name": "word",
    }
    assert isinstance(ours.embeddings_regularizer, keras.regularizers.L2)
    assert isinstance(ours.embeddings_constraint, keras.constraints.NonNeg)


def test_the_deprecated_input_length_is_a_warning():
    with pytest.warns(UserWarning, match="input_length"):
        tse.Embedding(9, 4, input_length=3)
