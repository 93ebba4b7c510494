"""What tse.EmbeddingCollection refuses: configs that do not fit, and inputs by the name of their feature."""

import numpy as np
import pytest
import tensorflow as tf
from refusal_cases import (
    ERRORS,
    MODES,
    RAGGED,
    SPARSE,
    D,
    call_in_mode,
    ones_like_keys,
    position_pattern,
    raises_matching,
)

import tf_sparse_emb as tse


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture(params=MODES[:2])
def running(request):
    """The modes in which there are values."""
    return request.param


def _collection(combiner="sum", concat=False, table=(), city_dim=D, **feature):
    return tse.EmbeddingCollection(
        [tse.TableConfig("item", None, D, seed=1, **dict(table)), tse.TableConfig("city", 10, city_dim, seed=2)],
        [tse.FeatureConfig("item", "item", combiner, **feature), tse.FeatureConfig("city", "city")],
        concat=concat,
    )


ITEM = tse.TableConfig("item", None, D)
CLICKED = tse.FeatureConfig("clicked", "item")
COLLECTIONS = {
    "unknown_table": (
        [ITEM, tse.TableConfig("city", 9, 2)],
        [tse.FeatureConfig("clicked", "user")],
        "the table of feature 'clicked' must be one of city, item, got 'user'",
    ),
    "repeated_table": (
        [ITEM, tse.TableConfig("item", 9, 2)],
        [CLICKED],
        "names of tables must differ, got 'item' twice",
    ),
    "repeated_feature": ([ITEM], [CLICKED, CLICKED], "names of features must differ, got 'clicked' twice"),
    "no_tables": ([], [CLICKED], "tables must be a list of tse.TableConfig, got []"),
    "no_features": ([ITEM], [], "features must be a list of tse.FeatureConfig, got []"),
    "one_table": (ITEM, [CLICKED], "tables must be a list of tse.TableConfig, got TableConfig('item'"),
    "one_feature": ([ITEM], CLICKED, "features must be a list of tse.FeatureConfig, got FeatureConfig('clicked'"),
    "tables_by_name": ({"item": ITEM}, [CLICKED], "tables must be a list of tse.TableConfig, got {'item'"),
    "names_for_tables": (["item"], [CLICKED], "tables must be tse.TableConfig, got str"),
    "names_for_features": ([ITEM], ["clicked"], "features must be tse.FeatureConfig, got str"),
    "swapped": ([CLICKED], [ITEM], "tables must be tse.TableConfig, got FeatureConfig"),
}


@pytest.mark.parametrize("case", COLLECTIONS)
def test_a_collection_of_configs_that_do_not_fit_is_refused(case):
    tables, features, message = COLLECTIONS[case]
    with pytest.raises((ValueError, TypeError), match=raises_matching(message)):
        tse.EmbeddingCollection(tables, features)


def test_a_collection_refuses_an_unknown_word_for_missing():
    with pytest.raises(ValueError, match="missing must be 'initial' or 'zeros', got 'x'"):
        tse.EmbeddingCollection([ITEM], [CLICKED], missing="x")


FEATURES = {
    **{
        f"combiner_{value!r}": (
            {"combiner": value},
            f"combiner must be None or one of sum, mean, sqrtn, max, got {value!r}",
        )
        for value in ("median", 0, True)
    },
    **{
        f"max_length_{value!r}": ({"max_length": value}, f"max_length must be a positive int or None, got {value!r}")
        for value in (0, -1, 2.0, True, "3")
    },
}


@pytest.mark.parametrize("case", FEATURES)
def test_a_bad_argument_of_a_feature_is_named_when_it_is_given(case):
    arguments, message = FEATURES[case]
    with pytest.raises(ValueError, match=raises_matching(message)):
        tse.FeatureConfig("clicked", "item", **arguments)


@pytest.mark.parametrize("name", [None, 3, ""])
@pytest.mark.parametrize(
    "make",
    [lambda name: tse.TableConfig(name, None, D), lambda name: tse.FeatureConfig(name, "item")],
    ids=["TableConfig", "FeatureConfig"],
)
def test_a_name_must_be_a_string(make, name):
    with pytest.raises((ValueError, TypeError), match="name must be"):
        make(name)


def test_a_name_that_keras_cannot_give_a_variable_is_refused():
    with pytest.raises(ValueError, match="name.*a/b"):
        tse.EmbeddingCollection([tse.TableConfig("a/b", None, D)], [tse.FeatureConfig("x", "a/b")]).build()


KEYS = {"item": np.array([[1, 2], [3, 4]]), "city": np.array([5, 6])}


def test_a_missing_feature_is_named(mode):
    with pytest.raises(ValueError, match="inputs must have keys of every feature, got none of city"):
        call_in_mode(mode, _collection(), {"item": KEYS["item"]})


@pytest.mark.parametrize("inputs", [KEYS["item"], [KEYS["item"], KEYS["city"]]], ids=["tensor", "list"])
def test_inputs_that_are_no_dict_are_refused(mode, inputs):
    with pytest.raises(TypeError, match="inputs must be a dict of feature name -> keys, got"):
        call_in_mode(mode, _collection(), inputs)


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint64"])
def test_the_feature_whose_keys_are_of_another_dtype_is_named(mode, dtype):
    with pytest.raises(TypeError, match=f"keys of feature 'city' must be int32, int64 or string, got {dtype}"):
        call_in_mode(mode, _collection(), KEYS | {"city": tf.cast(KEYS["city"], dtype)})


@pytest.mark.parametrize("max_length", [None, 2])
def test_sparse_keys_of_an_unpooled_feature_are_refused(mode, max_length):
    with pytest.raises(ValueError, match="keys of feature 'item': sparse keys need a combiner"):
        call_in_mode(mode, _collection(combiner=None, max_length=max_length), KEYS | {"item": SPARSE})


BAD_CITIES = {
    "rank_1": (np.array([5, 10]), [1], 10),
    "dense": (np.array([[1, 2], [3, -1]]), [1, 1], -1),
    "ragged": (tf.ragged.constant([[], [1, 2, 11]], dtype=tf.int64), [1, 2], 11),
}


@pytest.mark.parametrize("case", BAD_CITIES)
def test_the_feature_with_a_key_out_of_range_is_named_and_no_table_changes(running, case):
    keys, position, value = BAD_CITIES[case]
    layer = _collection()
    layer.build()
    before = layer.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"keys must be in \[0, 10\), got .* = {value}") as caught:
        call_in_mode(running, layer, KEYS | {"city": keys}, training=True)
    assert "feature 'city'" in str(caught.value)
    assert position_pattern(str(caught.value)) == position
    assert layer.get_weights() == before


def test_a_key_out_of_range_changes_no_table_of_another_width_either():
    layer = _collection(city_dim=D + 1)
    layer.build()
    before = layer.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 10\), got keys\[1\] = 10"):
        layer(KEYS | {"city": np.array([5, 10])}, training=True)
    assert layer.get_weights() == before


CONCAT = {"dense": {"item": KEYS["item"]}, "ragged": {"item": RAGGED}}


@pytest.mark.parametrize("case", CONCAT)
def test_concat_refuses_an_unpooled_feature_by_name(mode, case):
    with pytest.raises(ValueError, match=r"concat=True needs \[batch, D\] of every feature, but feature 'item' gives"):
        call_in_mode(mode, _collection(combiner=None, concat=True), KEYS | CONCAT[case])


def test_concat_refuses_a_feature_cut_to_max_length(mode):
    with pytest.raises(ValueError, match=r"concat=True needs \[batch, D\] of every feature, but feature 'item' gives"):
        call_in_mode(mode, _collection(combiner=None, max_length=3, concat=True), KEYS)


@pytest.mark.parametrize("combiner", [None, "max"])
def test_weights_of_a_feature_need_a_combiner_that_takes_them(mode, combiner):
    with pytest.raises(ValueError, match=rf"weights need a combiner \(sum, mean, sqrtn\), got combiner {combiner!r}"):
        call_in_mode(mode, _collection(combiner=combiner), KEYS, weights={"item": ones_like_keys(KEYS["item"])})


def test_weights_of_an_unknown_feature_are_refused(mode):
    with pytest.raises(ValueError, match="weights must be of features of the layer, got user"):
        call_in_mode(mode, _collection(), KEYS, weights={"user": ones_like_keys(KEYS["item"])})


def test_weights_that_are_no_dict_are_refused(running):
    with pytest.raises((TypeError, ValueError), match="weights must be a dict"):
        call_in_mode(running, _collection(), KEYS, weights=ones_like_keys(KEYS["item"]))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (1, 2)], ids=str)
def test_weights_of_a_feature_of_another_shape_are_refused(running, shape):
    with pytest.raises(ValueError, match=r"weights must have the shape of the keys, \(2, 2\), got"):
        call_in_mode(running, _collection(), KEYS, weights={"item": np.ones(shape, np.float32)})


def test_labels_that_no_table_counts_are_refused(running):
    with pytest.raises(ValueError, match="labels need .*clicked"):
        call_in_mode(running, _collection(), KEYS, labels=np.ones(2, np.float32), training=True)


@pytest.mark.parametrize("count", [1, 3])
def test_labels_of_a_collection_of_another_length_are_refused(running, count):
    layer = _collection(table={"counts": "clicked"})
    layer(KEYS, labels=np.ones(2, np.float32), training=True)
    before = layer.get_weights()
    with pytest.raises(ERRORS, match="labels must"):
        call_in_mode(running, layer, KEYS, labels=np.ones(count, np.float32), training=True)
    assert layer.get_weights() == before
