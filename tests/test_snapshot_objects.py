"""tse.TableSnapshot as an object: copied, compared and printed."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from snapshot_cases import assert_same, changed_snapshot, make_layer, table_content, trained_layer

import tf_sparse_emb as tse


def test_a_snapshot_can_be_pickled_and_copied(storage, rule):
    layer, _, _ = trained_layer(storage, rule, counts="clicked")
    (snapshot,) = layer.get_weights()
    for again in (pickle.loads(pickle.dumps(snapshot)), copy.copy(snapshot), copy.deepcopy(snapshot)):
        assert isinstance(again, tse.TableSnapshot) and again is not snapshot
        assert again == snapshot and (again != snapshot) is False
    other = make_layer(storage, counts="clicked")
    other.build()
    other.embeddings.bind(rule)
    other.set_weights([pickle.loads(pickle.dumps(snapshot))])
    assert_same(table_content(other.embeddings), table_content(layer.embeddings))


def test_snapshots_are_equal_when_they_hold_the_same_in_whatever_order(storage):
    layer, _, _ = trained_layer(storage, "row_wise_adam", counts="seen")
    (snapshot,) = layer.get_weights()
    order = np.random.default_rng(3).permutation(len(snapshot.keys))
    arrays = {name: getattr(snapshot, name)[order] for name in ("keys", "rows", "state", "counts")}
    assert changed_snapshot(snapshot, **arrays) == snapshot
    assert changed_snapshot(snapshot, **arrays | {"keys": snapshot.keys}) != snapshot


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("part", ["keys", "rows", "state", "counts", "rule", "fewer"])
def test_snapshots_differ_when_a_part_does(storage, part):
    layer, _, _ = trained_layer(storage, "row_wise_adagrad", counts="seen")
    (snapshot,) = layer.get_weights()
    if part == "rule":
        other = changed_snapshot(snapshot, rule="sgd")
    elif part == "fewer":
        arrays = {name: getattr(snapshot, name)[1:] for name in ("keys", "rows", "state", "counts")}
        other = changed_snapshot(snapshot, **arrays)
    else:
        array = np.array(getattr(snapshot, part))
        array[(0,) * array.ndim] += 100
        other = changed_snapshot(snapshot, **{part: array})
    assert other != snapshot and (other == snapshot) is False


def test_a_snapshot_equals_nothing_else_and_is_no_key(storage):
    layer, _, _ = trained_layer(storage, "sgd")
    (snapshot,) = layer.get_weights()
    for other in (None, 0, "x", [], {}):
        assert snapshot != other and (snapshot == other) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(snapshot)


AS_ARRAYS = {
    "np.asarray": np.asarray,
    "np.array": np.array,
    "np.array_float": lambda snapshot: np.array(snapshot, np.float32),
    "np.stack": lambda snapshot: np.stack([snapshot, snapshot]),
    "np.mean": np.mean,
    "tf.convert_to_tensor": tf.convert_to_tensor,
    "tf.reduce_sum": tf.reduce_sum,
    "keras.ops": keras.ops.convert_to_tensor,
    "plus": lambda snapshot: snapshot + np.ones(1),
}


@pytest.mark.parametrize("storage", ["slab", "index"])
@pytest.mark.parametrize("use", AS_ARRAYS)
def test_a_snapshot_does_not_become_an_array(storage, use):
    layer, _, _ = trained_layer(storage, "sgd")
    (snapshot,) = layer.get_weights()
    with pytest.raises(TypeError, match="TableSnapshot"):
        AS_ARRAYS[use](snapshot)


def test_its_repr_names_its_size():
    table = tse.EmbeddingVariable(3)
    table.lookup([5, 6], insert=True)
    assert repr(table.numpy()) == "<TableSnapshot of 2 rows of width 3>"


@pytest.mark.parametrize("keys", [[1.5, 2], [1.0, 2.0], [True, False], ["1", "2"], [1 + 0j, 2], [2**64, 1], [None, 1]])
def test_keys_that_are_no_int64_are_an_error(keys):
    with pytest.raises(ValueError, match="keys of a snapshot must be int64, got list"):
        tse.TableSnapshot(keys, np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("rows", [[["1"]], [[1j]], [[None]], [[True]]])
def test_rows_that_are_no_numbers_are_an_error(rows):
    with pytest.raises(ValueError, match="rows of a snapshot must be float32, got list"):
        tse.TableSnapshot([1], rows)
