"""tse.EmbeddingCollection: what it takes, what it gives and what it refuses."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from collection_cases import (
    ALL_COMBINERS,
    BATCH,
    MODES,
    V,
    build_collection,
    dense_gradient,
    random_keys,
    table_config,
    table_rows,
    train_step,
)

import tf_sparse_emb as tse

# Forms of output.


@pytest.mark.parametrize("mode", MODES)
def test_concat_puts_the_features_side_by_side_in_their_order(mode, rng):
    tables = [table_config("wide", 4), table_config("narrow", 2, V)]
    features = [
        tse.FeatureConfig("b", "narrow", None),
        tse.FeatureConfig("a", "wide", "max"),
        tse.FeatureConfig("d", "narrow", "sum", max_length=2),
        tse.FeatureConfig("c", "wide"),
    ]
    inputs = {
        "a": random_keys(rng, "sparse"),
        "b": random_keys(rng, "single"),
        "c": random_keys(rng, "ragged"),
        "d": random_keys(rng, "dense"),
    }
    layer, joint = build_collection(tables, features), build_collection(tables, features, concat=True)
    output = (joint if mode == "eager" else tf.function(joint))(inputs)
    assert output.shape == (BATCH, 2 + 4 + 2 + 4)
    np.testing.assert_array_equal(output, tf.concat([layer(inputs)[name] for name in "badc"], -1))


ALIKE = {
    # form of the keys, combiner, whether they have weights
    "single": ("single", None, False),
    "dense": ("dense", "mean", False),
    "ragged": ("ragged", "sum", False),
    "weighted": ("dense", "sqrtn", True),
    "max": ("dense", "max", False),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alike", ALIKE)
def test_concat_of_features_that_are_alike_in_width_and_combiner(alike, mode, rng):
    form, combiner, weighted = ALIKE[alike]
    tables = [table_config("first", 4), table_config("second", 4, V)]
    names = [("a", "first"), ("b", "second"), ("c", "first")]
    features = [tse.FeatureConfig(name, table, combiner) for name, table in names]
    inputs = {name: random_keys(rng, form) for name, _ in names}
    weights = {name: rng.uniform(1, 2, inputs[name].shape).astype("float32") for name in inputs} if weighted else None
    layer, joint = build_collection(tables, features), build_collection(tables, features, concat=True)

    def call(layer):
        with tf.GradientTape() as tape:
            output = layer(inputs, weights=weights, training=True)
            output = output if layer is joint else tf.concat([output[name] for name, _ in names], -1)
            loss = tf.reduce_sum(output * tf.range(1.0, output.shape[-1] + 1.0))
        return output, tape.gradient(loss, list(layer.tables.values()))

    run = call if mode == "eager" else tf.function(call)
    (want, want_gradients), (got, gradients) = run(layer), run(joint)
    assert got.shape == (BATCH, 12)
    np.testing.assert_array_equal(got, want)
    for one, other in zip(gradients, want_gradients, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("combiner", [None, "sum", "max"])
def test_concat_of_batches_of_unlike_size_is_refused_before_a_table_changes(combiner, mode):
    features = [tse.FeatureConfig(name, "t", combiner) for name in "ab"]
    layer = build_collection([table_config("t")], features, concat=True)
    call = layer if mode == "eager" else tf.function(layer)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as error:
        call({"a": np.arange(6), "b": np.arange(4)}, training=True)
    if combiner != "max":
        assert "as many bags, got 6 (keys of feature 'a') and 4 (keys of feature 'b')" in str(error.value)
        assert layer.tables["t"].size() == 0


@pytest.mark.parametrize("keys", [np.ones((2, 3), int), tf.ragged.constant([[1], [2, 3]])], ids=["dense", "ragged"])
def test_concat_of_a_feature_with_a_row_for_each_key_is_a_value_error(keys):
    layer = build_collection(
        [table_config("t")], [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t", None)], concat=True
    )
    with pytest.raises(ValueError, match="(?s)concat=True needs.*'b'.*combiner"):
        layer({"a": np.ones(2, int), "b": keys})


PADDED = {
    # keys, max_length, the keys of the rows of the output; -1 is zeros
    "dense": (np.array([[1, 2, 3], [4, 5, 6]]), 2, [[1, 2], [4, 5]]),
    "dense_shorter_than_that": (np.array([[1, 2], [4, 5]]), 4, [[1, 2, -1, -1], [4, 5, -1, -1]]),
    "ragged": (tf.ragged.constant([[1, 2, 3], [], [4]]), 2, [[1, 2], [-1, -1], [4, -1]]),
    "ragged_shorter_than_that": (tf.ragged.constant([[1], [], [4, 5]]), 3, [[1, -1, -1], [-1, -1, -1], [4, 5, -1]]),
    "ragged_without_keys": (tf.RaggedTensor.from_row_lengths(np.zeros(0, int), [0, 0]), 2, [[-1, -1], [-1, -1]]),
    "dense_without_keys": (np.zeros((2, 0), int), 2, [[-1, -1], [-1, -1]]),
    "without_rows": (np.zeros((0, 3), int), 2, np.zeros((0, 2), int)),
    "ragged_without_rows": (tf.RaggedTensor.from_row_lengths(np.zeros(0, int), np.zeros(0, int)), 2, np.zeros((0, 2))),
}


@pytest.mark.parametrize("case", PADDED)
@pytest.mark.parametrize("mode", MODES)
def test_max_length_without_a_combiner_pads_with_zeros(case, mode):
    keys, max_length, want = PADDED[case]
    layer = build_collection([table_config("t")], [tse.FeatureConfig("f", "t", None, max_length=max_length)])
    call = layer if mode == "eager" else tf.function(layer)
    output = call({"f": keys}, training=True)["f"]
    assert isinstance(output, tf.Tensor)
    want = np.array(want, np.int64)
    rows = np.where(want[..., None] < 0, 0.0, layer.tables["t"].lookup(want))
    np.testing.assert_array_equal(output, rows)
    # What is cut off is not looked up.
    assert int(layer.tables["t"].size()) == len(np.unique(want[want >= 0]))


@pytest.mark.parametrize("form", ["dense", "ragged", "sparse"])
@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_only_the_first_max_length_keys_of_a_bag_count(form, pooled):
    bags = tf.ragged.constant([[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]], dtype=tf.int64)
    keys = {"dense": bags.to_tensor(), "ragged": bags, "sparse": bags.to_sparse()}[form]
    layer = build_collection(
        [table_config("t")], [tse.FeatureConfig("f", "t", pooled, max_length=2), tse.FeatureConfig("g", "t", pooled)]
    )
    outputs = layer({"f": keys, "g": keys.to_tensor()[:, :2] if form == "ragged" else bags.to_tensor()[:, :2]})
    np.testing.assert_array_equal(outputs["f"], outputs["g"])


def test_the_greatest_max_length_is_none():
    keys = {"f": np.arange(6).reshape(2, 3)}
    outputs = [
        build_collection([table_config("t")], [tse.FeatureConfig("f", "t", max_length=length)])(keys)["f"]
        for length in (None, 2**31, 2**63 - 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_without_a_combiner_every_key_has_a_row():
    layer = build_collection([table_config("t")], [tse.FeatureConfig("f", "t", None)])
    table = layer.tables["t"]
    np.testing.assert_array_equal(layer({"f": np.array([1, 2])})["f"], table.lookup([1, 2]))
    np.testing.assert_array_equal(layer({"f": np.array([[1, 2]])})["f"], table.lookup([[1, 2]]))
    ragged = layer({"f": tf.ragged.constant([[1, 2], [], [3]])})["f"]
    assert isinstance(ragged, tf.RaggedTensor)
    np.testing.assert_array_equal(ragged.row_splits, [0, 2, 2, 3])
    np.testing.assert_array_equal(ragged.flat_values, table.lookup([1, 2, 3]))


@pytest.mark.parametrize("pooled", ALL_COMBINERS)
def test_keys_of_rank_1_are_bags_of_one(pooled):
    layer = build_collection(
        [table_config("t", padding_idx=5)],
        [tse.FeatureConfig("f", "t", pooled), tse.FeatureConfig("masked", "t", pooled, mask_zero=True)],
    )
    keys = np.array([0, 5, 3])
    outputs = layer({"f": keys, "masked": keys})
    rows = layer.tables["t"].lookup(keys).numpy()
    rows[1] = 0
    np.testing.assert_array_equal(outputs["f"], rows)
    rows[0] = 0
    np.testing.assert_array_equal(outputs["masked"], rows)


def test_a_combiner_may_be_a_numpy_string():
    """It is equal to Python's, and so are its features pooled together with those of Python's."""
    features = [tse.FeatureConfig(f"f{f}", "t", kind("sum")) for f, kind in enumerate([str, np.str_, str, np.str_])]
    features += [tse.FeatureConfig("max", "t", "max"), tse.FeatureConfig("each", "t", None)]
    inputs = {feature.name: np.array([[f, f + 1]]) for f, feature in enumerate(features)}
    assert features[0].combiner == features[1].combiner
    layer = build_collection([table_config("t")], features)
    rows = table_rows(layer.tables["t"])
    outputs = layer(inputs)
    for f in range(4):
        np.testing.assert_allclose(outputs[f"f{f}"], [rows[f] + rows[f + 1]], rtol=1e-5, atol=1e-6)


def test_keys_of_int32_int64_and_strings_in_one_call():
    features = [tse.FeatureConfig(name, "t", "sum") for name in ("int32", "int64", "string")]
    layer = build_collection([table_config("t")], features)
    words = tf.constant([["a", "b"], ["b", "c"]])
    inputs = {"int32": np.array([[1, 2], [2, 3]], np.int32), "int64": np.array([[1, 2**40], [2, 3]]), "string": words}
    outputs = layer(inputs, training=True)
    table = layer.tables["t"]
    assert int(table.size()) == 4 + 3
    for name, keys in inputs.items():
        np.testing.assert_allclose(outputs[name], tf.reduce_sum(table.lookup(keys), 1), rtol=1e-5, atol=1e-6)


def test_features_of_unequal_batches_and_empty_ones():
    layer = build_collection([table_config("t")], [tse.FeatureConfig(name, "t") for name in "abc"])
    inputs = {"a": np.zeros(0, int), "b": np.array([[1, 2]]), "c": tf.ragged.constant([[1], [], [2]])}
    outputs = layer(inputs, training=True)
    assert [outputs[name].shape[0] for name in "abc"] == [0, 1, 3]
    empty = {"a": np.zeros(0, int), "b": np.zeros((0, 4), int), "c": inputs["c"][:0]}
    outputs = layer(empty, training=True)
    assert [outputs[name].shape for name in "abc"] == [(0, 3)] * 3
    train_step(layer, empty, tse.optimizers.RowWiseAdam(0.1))


# Skipped keys, weights, labels.


@pytest.mark.parametrize("mode", MODES)
def test_the_padding_key_is_zero_and_never_learns(mode):
    layer = build_collection(
        [table_config("t", input_dim=V, padding_idx=-1)],
        [tse.FeatureConfig("each", "t", None), tse.FeatureConfig("bags", "t", "sum")],
    )
    padding = V - 1
    assert layer.table_configs[0].padding_idx == padding
    inputs = {"each": np.array([[1, padding]]), "bags": np.array([[padding, 2, padding]])}
    optimizer = tse.optimizers.SGD(0.5)
    optimizer.build(layer.trainable_variables)

    def step():
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs["each"]) + tf.reduce_sum(outputs["bags"])
        slices = tape.gradient(loss, layer.tables["t"])
        optimizer.apply_gradients([(slices, layer.tables["t"])])
        return outputs, slices

    before = table_rows(layer.tables["t"])
    outputs, slices = (step if mode == "eager" else tf.function(step))()
    np.testing.assert_array_equal(outputs["each"][0, 1], np.zeros(3))
    np.testing.assert_array_equal(outputs["bags"], before[[2]])
    want = np.zeros((V, 3))
    want[[1, 2]] = 1
    np.testing.assert_array_equal(dense_gradient(slices), want)
    np.testing.assert_allclose(table_rows(layer.tables["t"]), before - 0.5 * want, rtol=1e-6)


def test_mask_zero_is_of_a_feature_and_not_of_its_table():
    layer = build_collection(
        [table_config("t")],
        [tse.FeatureConfig("masked", "t", "sum", mask_zero=True), tse.FeatureConfig("other", "t", "sum")],
    )
    keys = np.array([[0, 3], [0, 0]])
    outputs = layer({"masked": keys, "other": keys})
    rows = table_rows(layer.tables["t"])
    np.testing.assert_allclose(outputs["masked"], [rows[3], np.zeros(3)], rtol=1e-6)
    np.testing.assert_allclose(outputs["other"], [rows[0] + rows[3], 2 * rows[0]], rtol=1e-6)


def test_weights_of_some_features():
    layer = build_collection([table_config("t")], [tse.FeatureConfig(name, "t", "sum") for name in "abc"])
    keys = np.array([[1, 2], [3, 4]])
    weights = {"b": tf.constant([[0.5, 2.0], [0.0, -1.0]])}
    with tf.GradientTape() as tape:
        tape.watch(weights["b"])
        outputs = layer({"a": keys, "b": keys, "c": keys}, weights=weights)
        loss = tf.reduce_sum(outputs["b"])
    rows = table_rows(layer.tables["t"])
    for name in "ac":
        np.testing.assert_allclose(outputs[name], rows[keys].sum(1), rtol=1e-6)
    np.testing.assert_allclose(outputs["b"], [0.5 * rows[1] + 2 * rows[2], -rows[4]], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tape.gradient(loss, weights["b"]), rows[keys].sum(-1), rtol=1e-5, atol=1e-7)


def test_the_weights_of_keys_of_rank_1():
    layer = build_collection([table_config("t")], [tse.FeatureConfig(name, "t", name) for name in reference.COMBINERS])
    keys, weights = np.array([1, 2]), np.array([2.0, 0.5], np.float32)
    outputs = layer(dict.fromkeys(reference.COMBINERS, keys), weights=dict.fromkeys(reference.COMBINERS, weights))
    rows = table_rows(layer.tables["t"], keys)
    np.testing.assert_allclose(outputs["sum"], rows * weights[:, None], rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], rows, rtol=1e-6)
    np.testing.assert_allclose(outputs["sqrtn"], rows, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_labels_are_added_to_the_counts_of_all_keys_of_tables_that_count_them(mode):
    layer = build_collection(
        [
            table_config("clicked", counts="clicked"),
            table_config("seen", counts="seen"),
            table_config("plain"),
            table_config("narrow", 2, V, counts="clicked"),
        ],
        [
            tse.FeatureConfig("single", "clicked"),
            tse.FeatureConfig("ragged", "clicked", "sum", max_length=2),
            tse.FeatureConfig("each", "clicked", None, max_length=1),
            tse.FeatureConfig("masked", "narrow", "max", mask_zero=True),
            tse.FeatureConfig("sparse", "seen"),
            tse.FeatureConfig("plain", "plain"),
        ],
    )
    ragged = tf.ragged.constant([[1, 2, 3], [], [2]], dtype=tf.int64)
    inputs = {
        "single": np.array([1, 9, 1]),
        "ragged": ragged,
        "each": np.array([[7, 1], [8, 1], [7, 1]]),
        "masked": np.array([[0, 4], [4, 0], [5, 5]]),
        "sparse": ragged.to_sparse(),
        "plain": np.array([1, 2, 3]),
    }
    labels = np.array([1.0, 0.5, 0.0])

    def call():
        return layer(inputs, labels=labels, training=True)

    (call if mode == "eager" else tf.function(call))()
    layer(inputs, labels=labels)
    counts = {name: table.key_counts(np.arange(10)).numpy() for name, table in layer.tables.items() if table.counts}
    want = np.zeros((10, 2))
    want[1] += [2, 1]  # single: of rows 0 and 2
    want[9] += [1, 0.5]
    want[1] += [1, 1]  # ragged: key 3 is beyond max_length
    want[2] += [2, 1]
    want[7] += [2, 1]  # each: the second column is beyond max_length
    want[8] += [1, 0.5]
    np.testing.assert_array_equal(counts["clicked"], want)
    np.testing.assert_array_equal(counts["seen"][:, 0], [0, 1, 2, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(counts["narrow"][4:6], [[2, 1.5], [2, 0]])
    assert counts["narrow"].sum() == 5.5 and "plain" not in counts


def test_counts_of_shared_tables_decay_at_every_step():
    layer = build_collection(
        [table_config("t", counts="seen", count_decay=0.5), table_config("u", counts="seen", count_decay=0.25)],
        [tse.FeatureConfig("a", "t"), tse.FeatureConfig("b", "t"), tse.FeatureConfig("c", "u")],
    )
    optimizer = tse.optimizers.SGD(0.1)
    for _ in range(3):
        train_step(layer, {"a": np.array([1]), "b": np.array([1]), "c": np.array([1])}, optimizer)
    np.testing.assert_array_equal(layer.tables["t"].key_counts([1]), [[2 * (0.5 + 0.25 + 0.125)]])
    np.testing.assert_array_equal(layer.tables["u"].key_counts([1]), [[0.25 + 0.0625 + 0.015625]])


# What is refused.

T, F = table_config("t"), tse.FeatureConfig("f", "t")
BAD = {
    "no_tables": ("tables", ([], [F]), {}),
    "no_features": ("features", ([T], []), {}),
    "no_list": ("features", ([T], F), {}),
    "a_dict_for_a_table": ("(?s)tables.*TableConfig.*dict", ([{"name": "t"}], [F]), {}),
    "a_table_for_a_feature": ("(?s)features.*FeatureConfig.*TableConfig", ([T], [T]), {}),
    "equal_names_of_tables": ("(?s)tables.*'t' twice", ([T, table_config("t", 2)], [F]), {}),
    "equal_names_of_features": ("(?s)features.*'f' twice", ([T], [F, F]), {}),
    "an_unknown_table": ("(?s)table of feature 'g'.*t.*'x'", ([T], [F, tse.FeatureConfig("g", "x")]), {}),
    "missing": ("(?s)missing.*initial.*zeros", ([T], [F]), {"missing": "x"}),
    "an_unknown_argument": ("no_such", ([T], [F]), {"no_such": 1}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_an_error_that_names_it(case):
    match, arguments, keywords = BAD[case]
    with pytest.raises((ValueError, TypeError), match=match):
        tse.EmbeddingCollection(*arguments, **keywords)


BAD_CONFIGS = {
    "feature_combiner": ("(?s)combiner.*sum.*mean.*sqrtn.*max.*median", tse.FeatureConfig, ("f", "t", "median"), {}),
    "feature_max_length": ("max_length", tse.FeatureConfig, ("f", "t"), {"max_length": 0}),
    "feature_max_length_float": ("max_length", tse.FeatureConfig, ("f", "t"), {"max_length": 2.5}),
    "table_output_dim": ("output_dim", tse.TableConfig, ("t", None, 0), {}),
    "table_input_dim": ("input_dim", tse.TableConfig, ("t", -1, 2), {}),
    "table_padding_idx": ("padding_idx", tse.TableConfig, ("t", 5, 2), {"padding_idx": 5}),
    "table_max_norm": ("max_norm", tse.TableConfig, ("t", 5, 2), {"max_norm": 0.0}),
    "table_counts": ("(?s)counts.*seen.*clicked", tse.TableConfig, ("t", 5, 2), {"counts": "x"}),
    "table_count_decay": ("count_decay", tse.TableConfig, ("t", 5, 2), {"count_decay": 1.5}),
    "table_storage": ("storage", tse.TableConfig, ("t", 5, 2), {"storage": "btree"}),
    "table_index_without_input_dim": ("input_dim", tse.TableConfig, ("t", None, 2), {"storage": "index"}),
    "table_max_rows": ("max_rows", tse.TableConfig, ("t", None, 2), {"max_rows": 0}),
    "table_unknown": ("no_such", tse.TableConfig, ("t", None, 2), {"no_such": 1}),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_argument_of_a_config_is_an_error_that_names_it(case):
    match, kind, arguments, keywords = BAD_CONFIGS[case]
    with pytest.raises((ValueError, TypeError), match=match):
        kind(*arguments, **keywords)


def test_inputs_that_are_not_of_the_features_are_errors_that_name_them():
    layer = build_collection([table_config("t")], [tse.FeatureConfig(name, "t") for name in ("a", "b", "c")])
    with pytest.raises(ValueError, match="keys of every feature, got none of b, c"):
        layer({"a": np.array([1])})
    with pytest.raises(TypeError, match="(?s)dict of feature name.*got"):
        layer(np.array([1]))
    keys = {name: np.array([[1]]) for name in "abc"}
    with pytest.raises(ValueError, match="weights must be of features of the layer, got x"):
        layer(keys, weights={"x": np.ones((1, 1), np.float32)})
    with pytest.raises(TypeError, match="(?s)feature 'b'.*int32, int64 or string, got float32"):
        layer(keys | {"b": tf.constant([[1.0]])})
    outputs = layer(keys | {"other": np.array(["no feature"])})
    assert list(outputs) == ["a", "b", "c"]


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_key_out_of_range_names_feature_position_and_value_and_no_table_changes(mode, width):
    """Whether the tables share their ops or not."""
    layer = build_collection(
        [table_config("hash", 3), table_config("index", width, V)],
        [tse.FeatureConfig("first", "hash"), tse.FeatureConfig("country", "index", "sum")],
    )
    inputs = {"first": np.array([1, 2]), "country": np.array([[1, 2], [3, V]])}
    call = layer if mode == "eager" else tf.function(layer)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"got keys\[1, 1\] = {V} .*'country'"):
        call(inputs, training=True)
    assert int(layer.tables["hash"].size()) == 0


def test_weights_for_a_feature_that_takes_none_are_a_value_error():
    features = [tse.FeatureConfig("max", "t", "max"), tse.FeatureConfig("none", "t", None)]
    layer = build_collection([table_config("t")], features)
    keys = dict.fromkeys(("max", "none"), np.array([[1, 2]]))
    for name in keys:
        with pytest.raises(ValueError, match="(?s)weights.* need a combiner.*sum.*mean.*sqrtn"):
            layer(keys, weights={name: np.ones((1, 2), np.float32)})


@pytest.mark.parametrize("max_length", [None, 2])
def test_sparse_keys_without_a_combiner_are_a_value_error(max_length):
    layer = build_collection([table_config("t")], [tse.FeatureConfig("f", "t", None, max_length=max_length)])
    with pytest.raises(ValueError, match="(?s)'f'.*sparse keys need a combiner"):
        layer({"f": tf.sparse.from_dense([[1, 2]])})
    with pytest.raises(ValueError, match="(?s)'f'.*sparse keys need a combiner"):
        layer({"f": keras.Input((None,), dtype="int64", sparse=True)})


@pytest.mark.parametrize("keys", [np.ones((2, 3, 4), int), tf.ragged.constant([[[1], [2]]])], ids=["dense", "ragged"])
def test_max_length_without_a_combiner_needs_keys_of_rank_1_or_2(keys):
    layer = build_collection([table_config("t")], [tse.FeatureConfig("f", "t", None, max_length=2)])
    with pytest.raises(ValueError, match="'f'"):
        layer({"f": keys})
