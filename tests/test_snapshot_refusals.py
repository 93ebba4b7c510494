"""What set_weights refuses: snapshots, matrices and lists that are no content of the table."""

import numpy as np
import pytest
import tensorflow as tf
from snapshot_cases import VOCABULARY, D, changed_snapshot, make_layer, make_model, trained_layer

import tf_sparse_emb as tse


def _with(array, value):
    array = np.array(array)
    array[-1, -1] = value
    return array


BAD_SNAPSHOTS = {
    "rows_of_another_width": (lambda s: changed_snapshot(s, rows=s.rows[:, :-1]), f"shape .*{D}.*got .*{D - 1}"),
    "wider_rows": (lambda s: changed_snapshot(s, rows=np.repeat(s.rows, 2, 1)), f"shape .*{D}.*got .*{2 * D}"),
    "rows_of_rank_1": (lambda s: changed_snapshot(s, rows=s.rows[:, 0]), "shape"),
    "a_row_too_few": (lambda s: changed_snapshot(s, rows=s.rows[1:]), "one row for each"),
    "nan_row": (lambda s: changed_snapshot(s, rows=_with(s.rows, np.nan)), "finite.*nan"),
    "infinite_row": (lambda s: changed_snapshot(s, rows=_with(s.rows, -np.inf)), "finite.*-inf"),
    "nan_state": (lambda s: changed_snapshot(s, state=_with(s.state, np.nan)), "state.*finite|finite.*state"),
    "state_of_another_width": (lambda s: changed_snapshot(s, state=np.repeat(s.state, 3, 1)), "state"),
    "a_state_too_few": (lambda s: changed_snapshot(s, state=s.state[1:]), "state"),
    "a_count_too_few": (lambda s: changed_snapshot(s, counts=s.counts[1:]), "counts"),
    "nan_counts": (lambda s: changed_snapshot(s, counts=_with(s.counts, np.nan)), "counts.*finite|finite.*counts"),
    "repeated_keys": (
        lambda s: changed_snapshot(s, keys=np.concatenate([s.keys[1:], s.keys[-1:]])),
        "keys must differ",
    ),
}


@pytest.mark.parametrize("case", BAD_SNAPSHOTS)
def test_a_bad_snapshot_is_an_error_and_the_table_unchanged(storage, case):
    make, match = BAD_SNAPSHOTS[case]
    layer, _, _ = trained_layer(storage, "row_wise_adagrad", counts="seen")
    (before,) = layer.get_weights()
    bad = make(before)
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError), match=match):
        layer.set_weights([bad])
    assert layer.get_weights() == [before]


OTHER_KINDS = {
    "array": np.zeros((VOCABULARY, D), np.float32),
    "array_of_the_keras_shape": np.zeros((0, D), np.float32),
    "tensor": tf.zeros((VOCABULARY, D)),
    "none": None,
    "string": "rows",
    "number": 0.0,
    "vector": np.zeros(D, np.float32),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_is_no_snapshot_is_a_type_error_on_a_dynamic_table_which_is_unchanged(hash_storage, kind):
    layer, _, _ = trained_layer(hash_storage, "row_wise_adam")
    before = layer.get_weights()
    with pytest.raises(TypeError, match="is an embedding table; it can be assigned a tse.TableSnapshot, got"):
        layer.set_weights([OTHER_KINDS[kind]])
    assert layer.get_weights() == before


BAD_MATRICES = {
    "a_row_too_few": (np.zeros((VOCABULARY - 1, D)), f"one row for each of {VOCABULARY}.*got {VOCABULARY - 1}"),
    "a_row_too_many": (np.zeros((VOCABULARY + 1, D)), f"one row for each of {VOCABULARY}.*got {VOCABULARY + 1}"),
    "another_width": (np.zeros((VOCABULARY, D + 1)), rf"must be of shape \[V, {D}\], got \({VOCABULARY}, {D + 1}\)"),
    "nan": (np.full((VOCABULARY, D), np.nan), "finite.*nan"),
    "inf": (np.full((VOCABULARY, D), np.inf), "finite.*inf"),
    "vector": (np.zeros(D), rf"tse.TableSnapshot or an array \[{VOCABULARY}, {D}\], got"),
    "rank_3": (np.zeros((1, VOCABULARY, D)), rf"tse.TableSnapshot or an array \[{VOCABULARY}, {D}\], got"),
    "none": (None, rf"tse.TableSnapshot or an array \[{VOCABULARY}, {D}\], got"),
}


@pytest.mark.parametrize("case", BAD_MATRICES)
def test_a_bad_matrix_is_an_error_and_the_table_unchanged(case):
    value, match = BAD_MATRICES[case]
    layer, _, _ = trained_layer("index", "row_wise_adagrad")
    before = layer.get_weights()
    with pytest.raises((ValueError, TypeError), match=match):
        layer.set_weights([value])
    assert layer.get_weights() == before


@pytest.mark.parametrize("bad", [-1, VOCABULARY, 2**62])
def test_a_snapshot_with_a_key_beyond_the_vocabulary_is_an_error(storage, bad):
    layer = tse.Embedding(VOCABULARY, D, storage=storage)
    layer(np.arange(9), training=True)
    (before,) = layer.get_weights()
    keys = np.array(before.keys)
    keys[2] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"keys must be in \[0, {VOCABULARY}\), got .*{bad}"):
        layer.set_weights([changed_snapshot(before, keys=keys)])
    assert layer.get_weights() == [before]


def test_a_snapshot_of_more_than_max_rows_is_an_error(hash_storage):
    layer = make_layer(hash_storage, max_rows=10)
    layer(np.arange(10), training=True)
    before = layer.get_weights()
    more = make_layer(hash_storage)
    more(np.arange(11), training=True)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows = 10 .* 11 rows"):
        layer.set_weights(more.get_weights())
    assert layer.get_weights() == before
    # Ten others are no more than ten.
    other = make_layer(hash_storage)
    other(np.arange(100, 110), training=True)
    layer.set_weights(other.get_weights())
    np.testing.assert_array_equal(np.sort(layer.embeddings.export()[0]), np.arange(100, 110))


def test_a_wrong_number_of_weights_is_a_value_error(storage):
    layer, _, _ = trained_layer(storage, "sgd")
    before = layer.get_weights()
    for weights in ([], before * 2):
        with pytest.raises(ValueError, match=f"weights must be a list of 1.* got {len(weights)}"):
            layer.set_weights(weights)
    model = make_model(layer)
    model(np.zeros((1, 3), np.int64))
    with pytest.raises(ValueError, match="weight"):
        model.set_weights(before)
    assert layer.get_weights() == before


def test_weights_that_are_not_in_a_list_are_an_error_that_says_so(storage):
    layer, _, _ = trained_layer(storage, "sgd")
    (before,) = layer.get_weights()
    with pytest.raises((TypeError, ValueError), match="weights must be a list of 1"):
        layer.set_weights(before)
    assert layer.get_weights() == [before]


def test_a_layer_that_is_not_built_has_no_weights():
    layer = make_layer("slab")
    assert layer.get_weights() == []
    with pytest.raises(ValueError, match="has no weights before it is built"):
        layer.set_weights([tse.EmbeddingVariable(D).numpy()])


@pytest.mark.parametrize("what", ["width", "dense_shape"])
def test_a_model_refuses_weights_of_another_shape(storage, what):
    layer, _, _ = trained_layer(storage, "sgd")
    model = make_model(layer)
    model(np.zeros((1, 3), np.int64))
    taken = model.get_weights()
    (before,) = layer.get_weights()
    wider = tse.EmbeddingVariable(D + 1).numpy()
    bad = [wider, *taken[1:]] if what == "width" else [np.zeros((VOCABULARY, D)), *taken[1:]]
    with pytest.raises(ValueError, match="shape"):
        model.set_weights(bad)
    assert layer.get_weights() == [before]
