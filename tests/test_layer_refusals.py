"""What the layers and their configs refuse: by an error that names the argument, what is required and what came."""

import keras
import numpy as np
import pytest
import reference
from refusal_cases import NAN, D, raises_matching

import tf_sparse_emb as tse

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


def _make_embedding(input_dim=None, output_dim=D, **kwargs):
    return tse.Embedding(input_dim, output_dim, **kwargs)


def _make_table(input_dim=None, output_dim=D, **kwargs):
    return tse.TableConfig("item", input_dim, output_dim, **kwargs)


@pytest.mark.parametrize("make", [_make_embedding, _make_table], ids=["Embedding", "TableConfig"])
@pytest.mark.parametrize("case", TABLE_ARGUMENTS)
def test_a_bad_argument_of_a_table_is_named_when_it_is_given(make, case):
    arguments, message = TABLE_ARGUMENTS[case]
    with pytest.raises((ValueError, TypeError), match=raises_matching(message)):
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
    with pytest.raises(ValueError, match=raises_matching(message)):
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
    with pytest.raises(ValueError, match=raises_matching(message)):
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
    with pytest.raises((ValueError, TypeError), match=raises_matching(message)):
        tse.Embedding.from_pretrained(*arguments, **keywords)


def test_every_storage_is_named_by_the_error_that_lists_them():
    with pytest.raises(ValueError) as caught:
        tse.Embedding(None, D, storage="btree")
    assert all(storage in str(caught.value) for storage in reference.STORAGES)
