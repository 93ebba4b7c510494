"""What the layers and their configs refuse: by an error that names the argument, what is required and what came."""

import itertools
import re

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

D = 4
NAN = float("nan")
ERRORS = (ValueError, TypeError, tf.errors.InvalidArgumentError)

# Arguments of a table, for tse.Embedding and tse.TableConfig: what is given instead of input_dim=None, output_dim=4,
# and what the message says.
POSITIVE_INT = "{} must be a positive int, got {}"
POSITIVE_INT_OR_NONE = "{} must be a positive int or None, got {}"
STORAGES = "storage must be None or one of unordered_map, open_addressing, chained, slab, index, got {}"
TABLE_ARGUMENTS = {
    **{
        f"output_dim_{value!r}": ({"output_dim": value}, POSITIVE_INT.format("output_dim", repr(value)))
        for value in (0, -4, 2.5, 4.0, True, "4", None)
    },
    **{
        f"{name}_{value!r}": ({name: value}, POSITIVE_INT_OR_NONE.format(name, repr(value)))
        for name in ("input_dim", "max_rows")
        for value in (0, -1, 2.0, True, "10")
    },
    "padding_idx_V": ({"input_dim": 10, "padding_idx": 10}, "padding_idx must be in [-10, 10), got 10"),
    "padding_idx_-11": ({"input_dim": 10, "padding_idx": -11}, "padding_idx must be in [-10, 10), got -11"),
    "padding_idx_beyond_int64": ({"padding_idx": 2**63}, f"padding_idx must be in [{-(2**63)}, {2**63}), got {2**63}"),
    **{
        f"padding_idx_{value!r}_of_{input_dim}": (
            {"input_dim": input_dim, "padding_idx": value},
            f"padding_idx must be an int or None, got {value!r}",
        )
        for value in (1.0, -1.0, True, "0")
        for input_dim in (10, None)
    },
    **{
        f"max_norm_{value}": ({"max_norm": value}, f"max_norm must be positive or None, got {value}")
        for value in (0, -1, -0.5, NAN)
    },
    **{
        f"norm_type_{value}": ({"max_norm": 1.0, "norm_type": value}, f"norm_type must be positive .* got {value}")
        for value in (0.0, -1.0, NAN, -float("inf"))
    },
    **{
        f"count_decay_{value}": (
            {"counts": "seen", "count_decay": value},
            f"count_decay must be in (0, 1], got {value}",
        )
        for value in (0, -0.5, 1.5, NAN)
    },
    **{
        f"counts_{value!r}": ({"counts": value}, f"counts must be None or one of seen, clicked, got {value!r}")
        for value in ("all", True, 1)
    },
    **{f"storage_{value!r}": ({"storage": value}, STORAGES.format(repr(value))) for value in ("btree", 0)},
    "index_without_input_dim": ({"storage": "index"}, "storage 'index' is an array .* needs input_dim, got None"),
    **{
        f"seed_{value!r}": ({"seed": value}, f"seed must be an int or None, got {value!r}")
        for value in (1.5, "7", True)
    },
    "seed_beyond_int64": ({"seed": 2**63}, f"seed must fit in 64 bits, got {2**63}"),
    "initializer": ({"embeddings_initializer": "no_such"}, "initializer identifier: no_such"),
    "regularizer": ({"embeddings_regularizer": "no_such"}, "regularizer identifier: no_such"),
    "constraint": ({"embeddings_constraint": "no_such"}, "constraint identifier: no_such"),
    # Not numbers at all.
    "max_norm_str": ({"max_norm": "1"}, "max_norm .*1"),
    "norm_type_None": ({"max_norm": 1.0, "norm_type": None}, "norm_type .*None"),
    "norm_type_str": ({"max_norm": 1.0, "norm_type": "two"}, "norm_type .*two"),
    "count_decay_None": ({"counts": "seen", "count_decay": None}, "count_decay .*None"),
}


def _pattern(text):
    """A regular expression of a text in which only ` .* ` and ` .*` are none."""
    return ".*".join(re.escape(part) for part in text.split(".*"))


def _matches(text):
    return "(?s)" + _pattern(text)


def _make_embedding(input_dim=None, output_dim=D, **kwargs):
    return tse.Embedding(input_dim, output_dim, **kwargs)


def _make_table(input_dim=None, output_dim=D, **kwargs):
    return tse.TableConfig("item", input_dim, output_dim, **kwargs)


@pytest.mark.parametrize("make", [_make_embedding, _make_table], ids=["Embedding", "TableConfig"])
@pytest.mark.parametrize("case", TABLE_ARGUMENTS)
def test_a_bad_argument_of_a_table_is_named_when_it_is_given(make, case):
    arguments, message = TABLE_ARGUMENTS[case]
    with pytest.raises((ValueError, TypeError), match=_matches(message)):
        make(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_dim": 10, "padding_idx": -1},
        {"input_dim": 10, "padding_idx": -10},
        {"input_dim": 10, "padding_idx": 9},
        {"padding_idx": -2},
        {"padding_idx": -(2**63)},
        {"padding_idx": np.int64(3)},
        {"max_norm": 1, "norm_type": 1},
        {"max_norm": 0.5, "norm_type": float("inf")},
        {"counts": "clicked", "count_decay": 1},
        {"seed": -(2**63)},
        {"input_dim": np.int64(10), "output_dim": np.int32(4)},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [_make_embedding, _make_table], ids=["Embedding", "TableConfig"])
def test_what_is_just_within_its_range_is_taken(make, arguments):
    made = make(**arguments)
    for name, value in arguments.items():
        want = value + 10 if name == "padding_idx" and arguments.get("input_dim") == 10 and value < 0 else value
        assert getattr(made, name) == want


def test_max_rows_below_the_vocabulary_of_an_index_table_is_an_error():
    with pytest.raises(ValueError, match="max_rows must be at least input_dim = 10 .* got 5"):
        tse.Embedding(10, D, max_rows=5).build()


LAYER_ARGUMENTS = {
    **{
        f"combiner_{value!r}": (
            {"combiner": value},
            f"combiner must be None or one of sum, mean, sqrtn, max, got {value!r}",
        )
        for value in ("median", "Sum", "", 0, True, ["sum"])
    },
    **{
        f"missing_{value!r}": ({"missing": value}, f"missing must be 'initial' or 'zeros', got {value!r}")
        for value in ("x", None, 0)
    },
    **{
        f"{name}_{value!r}": ({name: value}, f"does not support {name}, got {value!r}")
        for name, value in (("lora_rank", 4), ("lora_alpha", 8), ("quantization_config", "int8"), ("lora_rank", 0))
    },
    "unknown": ({"embedding_initializer": "zeros"}, "embedding_initializer"),
}


@pytest.mark.parametrize("case", LAYER_ARGUMENTS)
def test_a_bad_argument_of_the_layer_is_named_when_it_is_given(case):
    arguments, message = LAYER_ARGUMENTS[case]
    with pytest.raises(ValueError, match=_matches(message)):
        _make_embedding(**arguments)


def test_a_keras_config_with_lora_is_refused():
    config = keras.layers.Embedding(10, D, lora_rank=2).get_config()
    with pytest.raises((ValueError, TypeError), match="does not support lora_rank, got 2"):
        tse.Embedding.from_config(config)


def test_lora_and_quantization_are_refused_by_name():
    layer = tse.Embedding(10, D)
    layer.build()
    before = layer.get_weights()
    with pytest.raises(NotImplementedError, match="does not support LoRA .enable_lora"):
        layer.enable_lora(2)
    with pytest.raises(NotImplementedError, match="does not support quantization .quantize"):
        layer.quantize("int8")
    assert layer.get_weights() == before
    assert [type(variable) for variable in layer.variables] == [tse.EmbeddingVariable]


# Rows that are given.

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def _with(value):
    matrix = MATRIX.copy()
    matrix[1, 2] = value
    return matrix


WEIGHTS = {
    "wider": (np.ones((3, 5)), "weights must be of shape [V, 4], got (3, 5)"),
    "narrower": (np.ones((3, 3)), "weights must be of shape [V, 4], got (3, 3)"),
    "rank_1": (np.ones(4), "weights must be of shape [V, 4], got (4,)"),
    "rank_3": (np.ones((1, 3, 4)), "weights must be of shape [V, 4], got (1, 3, 4)"),
    "scalar": (1.0, "weights must be of shape [V, 4], got ()"),
    "two_matrices": ([MATRIX, MATRIX], "weights must be of shape [V, 4], got (2, 3, 4)"),
    "nan": (_with(NAN), "weights must be finite, got weights[1, 2] = nan"),
    "inf": (_with(np.inf), "weights must be finite, got weights[1, 2] = inf"),
    "minus_inf_in_a_list": ([_with(-np.inf)], "weights must be finite, got weights[1, 2] = -inf"),
    "strings": ("abc", "weights .*abc"),
    "ragged_lists": ([[1.0, 2.0, 3.0, 4.0], [1.0]], "weights"),
}


@pytest.mark.parametrize("input_dim", [3, None], ids=["index", "dynamic"])
@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_no_rows_of_the_table_are_refused(input_dim, case):
    weights, message = WEIGHTS[case]
    with pytest.raises(ValueError, match=_matches(message)):
        tse.Embedding(input_dim, D, weights=weights)


@pytest.mark.parametrize("count", [2, 4])
def test_weights_of_another_number_of_rows_than_the_vocabulary_are_refused(count):
    with pytest.raises(ValueError, match=f"weights must have one row for each of 3 keys, got {count}"):
        tse.Embedding(3, D, weights=np.ones((count, D)))


PRETRAINED = {
    "rank_1": ((np.ones(3),), {}, "weights must be of shape [V, D], got (3,)"),
    "rank_3": ((np.ones((1, 2, 3)),), {}, "weights must be of shape [V, D], got (1, 2, 3)"),
    "scalar": ((1.0,), {}, "weights must be of shape [V, D], got ()"),
    "nan": ((_with(NAN),), {}, "weights must be finite, got weights[1, 2] = nan"),
    "inf": ((_with(-np.inf),), {}, "weights must be finite, got weights[1, 2] = -inf"),
    "another_width": ((MATRIX,), {"output_dim": 5}, "weights must be of shape [V, 5], got (3, 4)"),
    "no_width": ((np.ones((2, 0)),), {}, "output_dim must be a positive int, got 0"),
    "input_dim": ((MATRIX,), {"input_dim": 3}, "from_pretrained sets input_dim by itself, got input_dim=3"),
    "trainable": ((MATRIX,), {"trainable": True}, "from_pretrained sets trainable by itself, got trainable=True"),
    "weights_twice": ((MATRIX,), {"weights": MATRIX}, "weights"),
    "too_few_keys": ((MATRIX, [1, 2]), {}, "keys must be one for each of 3 rows of weights, got shape (2,)"),
    "too_many_keys": ((MATRIX, [1, 2, 3, 4]), {}, "keys must be one for each of 3 rows of weights, got shape (4,)"),
    "keys_of_rank_2": (
        (MATRIX, [[1], [2], [3]]),
        {},
        "keys must be one for each of 3 rows of weights, got shape (3, 1)",
    ),
    "one_key": ((MATRIX, 7), {}, "keys must be one for each of 3 rows of weights, got shape ()"),
    "repeated_keys": ((MATRIX, [7, 5, 7]), {}, "keys must differ, got key 7 more than once"),
    "repeated_big_keys": ((MATRIX, [2**60, 2**60, 1]), {}, f"keys must differ, got key {2**60} more than once"),
    "float_keys": ((MATRIX, [1.0, 2.0, 3.0]), {}, "keys must be int32, int64 or string, got float"),
    "float_array_keys": ((MATRIX, np.arange(3.0)), {}, "keys must be int32, int64 or string, got float64"),
    "bool_keys": ((MATRIX, [True, False, True]), {}, "keys must be int32, int64 or string, got bool"),
    "index_storage_with_keys": (
        (MATRIX, [1, 2, 3]),
        {"storage": "index"},
        "storage 'index' .* needs input_dim, got None",
    ),
    "padding_idx_V": ((MATRIX,), {"padding_idx": 3}, "padding_idx must be in [-3, 3), got 3"),
    "combiner": (
        (MATRIX,),
        {"combiner": "median"},
        "combiner must be None or one of sum, mean, sqrtn, max, got 'median'",
    ),
    "lora_rank": ((MATRIX,), {"lora_rank": 2}, "does not support lora_rank, got 2"),
    "unknown": ((MATRIX,), {"no_such": 2}, "no_such"),
}


@pytest.mark.parametrize("case", PRETRAINED)
def test_from_pretrained_refuses_what_makes_no_table(case):
    arguments, keywords, message = PRETRAINED[case]
    with pytest.raises((ValueError, TypeError), match=_matches(message)):
        tse.Embedding.from_pretrained(*arguments, **keywords)


# Calls, in eager mode, in a tf.function, and when a model is made.

MODES = ("eager", "function", "symbolic")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture(params=MODES[:2])
def running(request):
    """The modes in which there are values."""
    return request.param


def _input_like(value):
    """A keras.Input for batches like `value`."""
    kinds = {"sparse": isinstance(value, tf.SparseTensor), "ragged": isinstance(value, tf.RaggedTensor)}
    if not any(kinds.values()):
        value = tf.convert_to_tensor(value)
    return keras.Input(tuple(value.shape)[1:], dtype=value.dtype.name, **{k: True for k, v in kinds.items() if v})


def _call(mode, layer, keys, training=None, **arguments):
    """layer(keys, ...); dicts of keys or weights are for a collection."""
    if mode == "symbolic":
        keys, arguments = tf.nest.map_structure(_input_like, (keys, arguments))
    if mode != "function":
        return layer(keys, training=training, **arguments)
    layer.build()

    @tf.function
    def call(given):
        given = dict(given)
        return layer(given.pop("keys"), training=training, **given)

    def as_tensor(value):
        return value if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) else tf.convert_to_tensor(value)

    return call(tf.nest.map_structure(as_tensor, {"keys": keys, **arguments}))


DENSE = np.array([[1, 2], [3, 1]])
RAGGED = tf.ragged.constant([[1, 2], [3]], dtype=tf.int64)
SPARSE = tf.SparseTensor([[0, 0], [0, 1], [1, 1]], tf.constant([1, 2, 3], tf.int64), [2, 2])
FORMS = {"dense": DENSE, "ragged": RAGGED, "sparse": SPARSE}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bool", "uint8", "int8", "uint32", "uint64"])
def test_keys_of_another_dtype_are_refused_in_every_mode(mode, dtype):
    with pytest.raises(TypeError, match=f"keys of layer 'item' must be int32, int64 or string, got {dtype}"):
        _call(mode, tse.Embedding(10, D, name="item"), tf.cast(DENSE, dtype))


@pytest.mark.parametrize("form", ["ragged", "sparse"])
def test_float_keys_are_refused_in_every_form(mode, form):
    with pytest.raises(TypeError, match="keys of layer 'item' must be int32, int64 or string, got float32"):
        _call(mode, tse.Embedding(None, D, combiner="sum", name="item"), tf.cast(FORMS[form], tf.float32))


def test_float_keys_are_refused_with_a_hint_to_keras_input():
    with pytest.raises(TypeError, match=r"keras.Input\(shape, dtype='int64'\)"):
        keras.Sequential([keras.Input((2,)), tse.Embedding(10, D)])


def test_sparse_keys_need_a_combiner(mode):
    with pytest.raises(ValueError, match=r"sparse keys need a combiner \(sum, mean, sqrtn, max\)"):
        _call(mode, tse.Embedding(None, D), SPARSE)


def _position(message):
    (position,) = re.findall(r"got keys\[([\d, ]+)\] = ", message)
    return [int(number) for number in position.split(",")]


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
        _call(running, layer, keys, training=training)
    assert f"= {value}" in str(caught.value) and "layer 'item'" in str(caught.value)
    assert _position(str(caught.value)) == position
    assert layer.get_weights() == before


def test_a_sparse_key_out_of_range_is_named(running):
    keys = tf.SparseTensor([[0, 0], [2, 1]], tf.constant([1, 51], tf.int64), [3, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\), got keys\[.*\] = 51"):
        _call(running, tse.Embedding(50, D, combiner="sum"), keys)


@pytest.mark.parametrize("counts", [None, "seen"])
def test_a_key_out_of_range_leaves_a_bounded_table_without_the_other_keys_of_the_batch(hash_storage, running, counts):
    layer = tse.Embedding(50, D, storage=hash_storage, counts=counts, max_norm=0.01)
    layer(np.arange(5), training=True)
    before = layer.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"keys must be in \[0, 50\)"):
        _call(running, layer, np.array([[3, 7], [9, 50]]), training=True)
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
        _call(running, layer, np.array([4, 5, 6]), training=True)
    assert layer.get_weights() == before


# Weights of keys.


def _ones(keys, dtype=tf.float32):
    """Weights of the form of keys."""
    if isinstance(keys, tf.RaggedTensor):
        return keys.with_values(tf.ones_like(keys.values, dtype))
    if isinstance(keys, tf.SparseTensor):
        return tf.SparseTensor(keys.indices, tf.ones_like(keys.values, dtype), keys.dense_shape)
    return np.ones(keys.shape, tf.as_dtype(dtype).as_numpy_dtype)


@pytest.mark.parametrize("combiner", [None, "max"])
@pytest.mark.parametrize("form", ["dense", "ragged"])
def test_weights_need_a_combiner_that_takes_them(mode, form, combiner):
    keys = FORMS[form]
    with pytest.raises(ValueError, match=rf"weights need a combiner \(sum, mean, sqrtn\), got combiner {combiner!r}"):
        _call(mode, tse.Embedding(None, D, combiner=combiner), keys, weights=_ones(keys))


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.bool], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("form", FORMS)
def test_weights_must_be_floats(running, form, dtype):
    keys = FORMS[form]
    with pytest.raises(TypeError, match=f"weights must be floats, got {dtype.name}"):
        _call(running, tse.Embedding(None, D, combiner="sum"), keys, weights=_ones(keys, dtype))


def test_weights_must_be_floats_when_a_model_is_made():
    with pytest.raises(TypeError, match="weights must be floats, got int64"):
        _call("symbolic", tse.Embedding(None, D, combiner="sum"), DENSE, weights=_ones(DENSE, tf.int64))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 2, 1), (), (1, 2)], ids=str)
def test_weights_of_another_shape_are_refused(running, shape):
    message = rf"weights must have the shape of the keys, \(2, 2\), got {re.escape(str(tf.TensorShape(shape)))}"
    with pytest.raises(ValueError, match=message):
        _call(running, tse.Embedding(None, D, combiner="sum"), DENSE, weights=np.ones(shape, np.float32))


def test_weights_of_another_shape_are_refused_when_a_model_is_made():
    with pytest.raises(ValueError, match="weights must have the shape of the keys"):
        _call("symbolic", tse.Embedding(None, D, combiner="sum"), DENSE, weights=np.ones((2, 3), np.float32))


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
        _call(running, tse.Embedding(None, D, combiner="sum"), FORMS[form], weights=_ones(FORMS[given]))


def test_ragged_weights_of_other_row_splits_are_refused(running):
    layer = tse.Embedding(None, D, combiner="sum")
    for weights in ([[1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0], []], [[1.0, 1.0], [1.0, 1.0]]):
        with pytest.raises(ERRORS, match="weights must have the row_splits of the keys"):
            _call(running, layer, RAGGED, weights=tf.ragged.constant(weights))
    with pytest.raises(ERRORS, match="weights must have the row_splits of the keys"):
        _call(running, layer, RAGGED, weights=tf.ragged.constant([[[1.0, 1.0], [1.0]]]))


def test_sparse_weights_of_other_indices_are_refused(running):
    for indices in ([[0, 0], [0, 1], [1, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 1], [1, 0], [1, 1]]):
        weights = tf.SparseTensor(indices, tf.ones(len(indices)), [2, 2])
        with pytest.raises(ERRORS, match="weights must have the indices of the keys"):
            _call(running, tse.Embedding(None, D, combiner="sum"), SPARSE, weights=weights)


def test_sparse_keys_out_of_order_are_refused(running):
    keys = tf.SparseTensor([[1, 0], [0, 0]], tf.constant([1, 2], tf.int64), [2, 2])
    with pytest.raises(ERRORS, match="indices of sparse keys must be in row-major order"):
        _call(running, tse.Embedding(None, D, combiner="sum"), keys)


# Labels.


@pytest.mark.parametrize("counts", [None, "seen"])
@pytest.mark.parametrize("training", [False, True])
def test_labels_need_clicked_counts(mode, counts, training):
    with pytest.raises(ValueError, match=f"labels need counts='clicked', got counts={counts!r}"):
        _call(mode, tse.Embedding(None, D, counts=counts), DENSE, training=training, labels=np.ones(2, np.float32))


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
        _call(running, layer, FORMS[form], training=True, labels=labels)
    assert layer.get_weights() == before


# Collections.


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
    with pytest.raises((ValueError, TypeError), match=_matches(message)):
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
    with pytest.raises(ValueError, match=_matches(message)):
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
        _call(mode, _collection(), {"item": KEYS["item"]})


@pytest.mark.parametrize("inputs", [KEYS["item"], [KEYS["item"], KEYS["city"]]], ids=["tensor", "list"])
def test_inputs_that_are_no_dict_are_refused(mode, inputs):
    with pytest.raises(TypeError, match="inputs must be a dict of feature name -> keys, got"):
        _call(mode, _collection(), inputs)


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint64"])
def test_the_feature_whose_keys_are_of_another_dtype_is_named(mode, dtype):
    with pytest.raises(TypeError, match=f"keys of feature 'city' must be int32, int64 or string, got {dtype}"):
        _call(mode, _collection(), KEYS | {"city": tf.cast(KEYS["city"], dtype)})


@pytest.mark.parametrize("max_length", [None, 2])
def test_sparse_keys_of_an_unpooled_feature_are_refused(mode, max_length):
    with pytest.raises(ValueError, match="keys of feature 'item': sparse keys need a combiner"):
        _call(mode, _collection(combiner=None, max_length=max_length), KEYS | {"item": SPARSE})


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
        _call(running, layer, KEYS | {"city": keys}, training=True)
    assert "feature 'city'" in str(caught.value)
    assert _position(str(caught.value)) == position
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
        _call(mode, _collection(combiner=None, concat=True), KEYS | CONCAT[case])


def test_concat_refuses_a_feature_cut_to_max_length(mode):
    with pytest.raises(ValueError, match=r"concat=True needs \[batch, D\] of every feature, but feature 'item' gives"):
        _call(mode, _collection(combiner=None, max_length=3, concat=True), KEYS)


@pytest.mark.parametrize("combiner", [None, "max"])
def test_weights_of_a_feature_need_a_combiner_that_takes_them(mode, combiner):
    with pytest.raises(ValueError, match=rf"weights need a combiner \(sum, mean, sqrtn\), got combiner {combiner!r}"):
        _call(mode, _collection(combiner=combiner), KEYS, weights={"item": _ones(KEYS["item"])})


def test_weights_of_an_unknown_feature_are_refused(mode):
    with pytest.raises(ValueError, match="weights must be of features of the layer, got user"):
        _call(mode, _collection(), KEYS, weights={"user": _ones(KEYS["item"])})


def test_weights_that_are_no_dict_are_refused(running):
    with pytest.raises((TypeError, ValueError), match="weights must be a dict"):
        _call(running, _collection(), KEYS, weights=_ones(KEYS["item"]))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (1, 2)], ids=str)
def test_weights_of_a_feature_of_another_shape_are_refused(running, shape):
    with pytest.raises(ValueError, match=r"weights must have the shape of the keys, \(2, 2\), got"):
        _call(running, _collection(), KEYS, weights={"item": np.ones(shape, np.float32)})


def test_labels_that_no_table_counts_are_refused(running):
    with pytest.raises(ValueError, match="labels need .*clicked"):
        _call(running, _collection(), KEYS, labels=np.ones(2, np.float32), training=True)


@pytest.mark.parametrize("count", [1, 3])
def test_labels_of_a_collection_of_another_length_are_refused(running, count):
    layer = _collection(table={"counts": "clicked"})
    layer(KEYS, labels=np.ones(2, np.float32), training=True)
    before = layer.get_weights()
    with pytest.raises(ERRORS, match="labels must"):
        _call(running, layer, KEYS, labels=np.ones(count, np.float32), training=True)
    assert layer.get_weights() == before


def test_every_storage_is_named_by_the_error_that_lists_them():
    with pytest.raises(ValueError) as caught:
        tse.Embedding(None, D, storage="btree")
    assert all(storage in str(caught.value) for storage in reference.STORAGES)
