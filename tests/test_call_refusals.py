"""What a call of tse.Embedding refuses: keys, weights and labels, in eager mode, in a tf.function and in a model."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from refusal_cases import DENSE, ERRORS, FORMS, MODES, RAGGED, SPARSE, D, call_in_mode, ones_like_keys, position_pattern

import tf_sparse_emb as tse


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture(params=MODES[:2])
def running(request):
    """The modes in which there are values."""
    return request.param


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bool", "uint8", "int8", "uint32", "uint64"])
def test_keys_of_another_dtype_are_refused_in_every_mode(mode, dtype):
    with pytest.raises(TypeError, match=f"keys of layer 'item' must be int32, int64 or string, got {dtype}"):
        call_in_mode(mode, tse.Embedding(10, D, name="item"), tf.cast(DENSE, dtype))


@pytest.mark.parametrize("form", ["ragged", "sparse"])
def test_float_keys_are_refused_in_every_form(mode, form):
    with pytest.raises(TypeError, match="keys of layer 'item' must be int32, int64 or string, got float32"):
        call_in_mode(mode, tse.Embedding(None, D, combiner="sum", name="item"), tf.cast(FORMS[form], tf.float32))


def test_float_keys_are_refused_with_a_hint_to_keras_input():
    with pytest.raises(TypeError, match=r"keras.Input\(shape, dtype='int64'\)"):
        keras.Sequential([keras.Input((2,)), tse.Embedding(10, D)])


def test_sparse_keys_need_a_combiner(mode):
    with pytest.raises(ValueError, match=r"sparse keys need a combiner \(sum, mean, sqrtn, max\)"):
        call_in_mode(mode, tse.Embedding(None, D), SPARSE)


BAD_KEYS = {
    "rank_1": (np.array([3, 50, 2]), [1], 50),
    "dense": (np.array([[1, 2, 3], [4, -1, 5], [60, 0, 0]]), [1, 1], -1),
    "rank_3": (np.array([[[1, 2], [3, 4]], [[5, 6], [2**62, 0]]]), [1, 1, 0], 2**62),
    "ragged": (tf.ragged.constant([[1, 2], [], [3, 4, 50, 60]], dtype=tf.int64), [2, 2], 50),
    "ragged_first": (tf.ragged.constant([[], [-7]], dtype=tf.int64), [1, 0], -7),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("combiner", [None, "mean"])
@pytest.mark.parametrize("case", BAD_KEYS)
def test_a_key_out_of_range_is_named_with_its_position(running, case, combiner, training):
    keys, position, value = BAD_KEYS[case]
    if combiner is not None and case == "rank_1":
        keys, position = keys[None], [0, *position]
    layer = tse.Embedding(50, D, combiner=combiner, name="item", seed=1)
    layer.build()
    before = layer.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\), got keys\[") as caught:
        call_in_mode(running, layer, keys, training=training)
    assert f"= {value}" in str(caught.value) and "layer 'item'" in str(caught.value)
    assert position_pattern(str(caught.value)) == position
    assert layer.get_weights() == before


def test_a_sparse_key_out_of_range_is_named(running):
    keys = tf.SparseTensor([[0, 0], [2, 1]], tf.constant([1, 51], tf.int64), [3, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\), got keys\[.*\] = 51"):
        call_in_mode(running, tse.Embedding(50, D, combiner="sum"), keys)


@pytest.mark.parametrize("counts", [None, "seen"])
def test_a_key_out_of_range_leaves_a_bounded_table_without_the_other_keys_of_the_batch(hash_storage, running, counts):
    layer = tse.Embedding(50, D, storage=hash_storage, counts=counts, max_norm=0.01)
    layer(np.arange(5), training=True)
    before = layer.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\)"):
        call_in_mode(running, layer, np.array([[3, 7], [9, 50]]), training=True)
    assert layer.get_weights() == before


def test_a_key_out_of_range_stops_fit_and_leaves_the_table_as_it_was():
    layer = tse.Embedding(50, D, combiner="sum")
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    model.compile(tse.optimizers.RowWiseAdagrad(0.1), "mse")
    model.fit(np.arange(48).reshape(-1, 4), np.ones((12, 1)), verbose=0)
    before = layer.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\), got keys\[1, 3\] = 50"):
        model.fit(np.array([[1, 2, 3, 4], [5, 6, 7, 50]]), np.ones((2, 1)), shuffle=False, verbose=0)
    assert layer.get_weights() == before


def test_more_rows_than_max_rows_are_refused_and_none_is_inserted(hash_storage, running):
    layer = tse.Embedding(None, D, storage=hash_storage, max_rows=6, counts="seen")
    layer(np.arange(5), training=True)
    before = layer.get_weights()
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows = 6"):
        call_in_mode(running, layer, np.array([4, 5, 6]), training=True)
    assert layer.get_weights() == before


# Weights of keys.


@pytest.mark.parametrize("combiner", [None, "max"])
@pytest.mark.parametrize("form", ["dense", "ragged"])
def test_weights_need_a_combiner_that_takes_them(mode, form, combiner):
    keys = FORMS[form]
    with pytest.raises(ValueError, match=rf"weights need a combiner \(sum, mean, sqrtn\), got combiner {combiner!r}"):
        call_in_mode(mode, tse.Embedding(None, D, combiner=combiner), keys, weights=ones_like_keys(keys))


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.bool], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("form", FORMS)
def test_weights_must_be_floats(running, form, dtype):
    keys = FORMS[form]
    with pytest.raises(TypeError, match=f"weights must be floats, got {dtype.name}"):
        call_in_mode(running, tse.Embedding(None, D, combiner="sum"), keys, weights=ones_like_keys(keys, dtype))


def test_weights_must_be_floats_when_a_model_is_made():
    with pytest.raises(TypeError, match="weights must be floats, got int64"):
        call_in_mode("symbolic", tse.Embedding(None, D, combiner="sum"), DENSE, weights=ones_like_keys(DENSE, tf.int64))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 2, 1), (), (1, 2)], ids=str)
def test_weights_of_another_shape_are_refused(running, shape):
    message = rf"weights must have the shape of the keys, \(2, 2\), got {re.escape(str(tf.TensorShape(shape)))}"
    with pytest.raises(ValueError, match=message):
        call_in_mode(running, tse.Embedding(None, D, combiner="sum"), DENSE, weights=np.ones(shape, np.float32))


def test_weights_of_another_shape_are_refused_when_a_model_is_made():
    with pytest.raises(ValueError, match="weights must have the shape of the keys"):
        call_in_mode("symbolic", tse.Embedding(None, D, combiner="sum"), DENSE, weights=np.ones((2, 3), np.float32))


def test_weights_of_another_shape_are_refused_where_it_is_known_only_at_run_time():
    layer = tse.Embedding(None, D, combiner="sum")
    layer.build()
    call = tf.function(
        lambda keys, weights: layer(keys, weights=weights),
        input_signature=[tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None, None])],
        autograph=False,
    )
    np.testing.assert_array_equal(call(DENSE, np.ones((2, 2), np.float32)), layer(DENSE))
    for shape in ((2, 3), (1, 2), (3, 2), (4, 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="weights must have the shape of the keys"):
            call(DENSE, np.ones(shape, np.float32))


FORM_NAMES = {"dense": "[Tt]ensor", "ragged": "tf.RaggedTensor", "sparse": "tf.SparseTensor"}


@pytest.mark.parametrize("form, given", list(itertools.permutations(FORMS, 2)))
def test_weights_of_another_form_are_refused(running, form, given):
    with pytest.raises(ERRORS, match=f"weights must be a .*{FORM_NAMES[form]} as the keys are, got .*Tensor"):
        call_in_mode(running, tse.Embedding(None, D, combiner="sum"), FORMS[form], weights=ones_like_keys(FORMS[given]))


def test_ragged_weights_of_other_row_splits_are_refused(running):
    layer = tse.Embedding(None, D, combiner="sum")
    for weights in ([[1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0], []], [[1.0, 1.0], [1.0, 1.0]]):
        with pytest.raises(ERRORS, match="weights must have the row_splits of the keys"):
            call_in_mode(running, layer, RAGGED, weights=tf.ragged.constant(weights))
    with pytest.raises(ERRORS, match="weights must have the row_splits of the keys"):
        call_in_mode(running, layer, RAGGED, weights=tf.ragged.constant([[[1.0, 1.0], [1.0]]]))


def test_sparse_weights_of_other_indices_are_refused(running):
    for indices in ([[0, 0], [0, 1], [1, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 1], [1, 0], [1, 1]]):
        weights = tf.SparseTensor(indices, tf.ones(len(indices)), [2, 2])
        with pytest.raises(ERRORS, match="weights must have the indices of the keys"):
            call_in_mode(running, tse.Embedding(None, D, combiner="sum"), SPARSE, weights=weights)


def test_sparse_keys_out_of_order_are_refused(running):
    keys = tf.SparseTensor([[1, 0], [0, 0]], tf.constant([1, 2], tf.int64), [2, 2])
    with pytest.raises(ERRORS, match="indices of sparse keys must be in row-major order"):
        call_in_mode(running, tse.Embedding(None, D, combiner="sum"), keys)


# Labels.


@pytest.mark.parametrize("counts", [None, "seen"])
@pytest.mark.parametrize("training", [False, True])
def test_labels_need_clicked_counts(mode, counts, training):
    with pytest.raises(ValueError, match=f"labels need counts='clicked', got counts={counts!r}"):
        call_in_mode(
            mode, tse.Embedding(None, D, counts=counts), DENSE, training=training, labels=np.ones(2, np.float32)
        )


BAD_LABELS = {
    "dense_longer": ("dense", np.ones(3, np.float32)),
    "dense_shorter": ("dense", np.ones(1, np.float32)),
    "dense_scalar": ("dense", np.float32(1.0)),
    "dense_wider": ("dense", np.ones((2, 3), np.float32)),
    "dense_rank_3": ("dense", np.ones((2, 2, 1), np.float32)),
    "ragged_longer": ("ragged", np.ones(3, np.float32)),
    "ragged_shorter": ("ragged", np.ones(1, np.float32)),
    "ragged_splits": ("ragged", tf.ragged.constant([[1.0], [1.0, 1.0]])),
    "sparse_longer": ("sparse", np.ones(3, np.float32)),
    "sparse_shorter": ("sparse", np.ones(1, np.float32)),
    "sparse_indices": ("sparse", tf.SparseTensor([[0, 0], [0, 1], [1, 0]], tf.ones(3), [2, 2])),
    "strings": ("dense", np.array(["a", "b"])),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_of_another_form_are_refused_and_nothing_is_counted(running, case):
    form, labels = BAD_LABELS[case]
    layer = tse.Embedding(None, D, counts="clicked", combiner="sum")
    layer(FORMS[form], training=True)
    before = layer.get_weights()
    with pytest.raises(ERRORS, match="labels must"):
        call_in_mode(running, layer, FORMS[form], training=True, labels=labels)
    assert layer.get_weights() == before
