"""tse.embedding_lookup against TensorFlow's on the same rows; shapes and errors of all lookups without a layer."""

import numpy as np
import pytest
import tensorflow as tf
from functional_cases import SPARSE_FUNCTIONS, D, Twins, V

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")
STORAGES = ("index", "slab")  # an index table, and a dynamic one


@pytest.fixture(params=STORAGES)
def twins(request, make_table):
    return Twins(make_table, request.param)


@pytest.fixture
def dynamic_twins(make_table):
    """One of the two, for what lies above the storages."""
    return Twins(make_table, "slab")


# tse.embedding_lookup


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3), (2, 1, 3, 2)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_embedding_lookup_is_that_of_tensorflow(twins, shape, mode, rng):
    ids = rng.integers(0, V, shape)

    def look_up(keys):
        with tf.GradientTape() as tape:
            rows = tse.embedding_lookup(twins.table, keys)
            loss = tf.reduce_sum(rows**2)
        return rows, tape.gradient(loss, twins.table)

    got, gradient = (look_up if mode == "eager" else tf.function(look_up))(tf.constant(twins.keys[ids]))
    with tf.GradientTape() as tape:
        want = tf.nn.embedding_lookup(twins.variable, ids)
        loss = tf.reduce_sum(want**2)
    want_gradient = tf.convert_to_tensor(tape.gradient(loss, twins.variable))
    assert got.shape == (*shape, D)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(twins.dense_gradient(gradient), want_gradient, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_embedding_lookup_names_each_key_once(twins, rng):
    keys = twins.keys[rng.integers(0, V, (50, 4))]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tse.embedding_lookup(twins.table, keys))
    gradient = tape.gradient(loss, twins.table)
    np.testing.assert_array_equal(np.sort(gradient.indices), np.unique(keys))


def test_embedding_lookup_of_ragged_keys_is_ragged(twins):
    ids = tf.ragged.constant([[[1, 2], []], [], [[3], [1, 1, 4]]], dtype=tf.int64)
    got = tse.embedding_lookup(twins.table, twins.keys_of(ids))
    assert isinstance(got, tf.RaggedTensor)
    want = tf.ragged.map_flat_values(lambda i: tf.gather(twins.variable, i), ids)
    assert got.to_list() == want.to_list()


def test_embedding_lookup_of_int32_and_string_keys(make_table):
    table = make_table("slab", D)
    words = tf.constant([["a", "b"], ["b", "a"]])
    tse.embedding_lookup(table, words, training=True)
    assert int(table.size()) == 2
    np.testing.assert_array_equal(tse.embedding_lookup(table, words), table.lookup(words))
    keys = tf.constant([3, -1], tf.int32)
    np.testing.assert_array_equal(tse.embedding_lookup(table, keys), table.lookup(tf.cast(keys, tf.int64)))


def test_embedding_lookup_of_sparse_keys_is_a_value_error(twins):
    with pytest.raises(ValueError, match="combiner"):
        tse.embedding_lookup(twins.table, tf.SparseTensor([[0, 0]], tf.constant([1], tf.int64), [2, 2]))


@pytest.mark.parametrize("mode", MODES)
def test_only_training_inserts(make_table, mode):
    table = make_table("slab", D)
    sparse = tf.SparseTensor([[0, 0], [1, 1]], tf.constant([5, 6], tf.int64), [3, 2])
    calls = [
        lambda training: tse.embedding_lookup(table, tf.constant([[1, 2], [2, 1]], tf.int64), training=training),
        lambda training: tse.embedding_lookup_sparse(table, sparse, training=training),
        lambda training: tse.safe_embedding_lookup_sparse(table, sparse, default_key=7, training=training),
    ]
    for call, size in zip(calls, (2, 4, 5), strict=True):
        call = tf.function(call, reduce_retracing=True) if mode == "graph" else call
        before = int(table.size())
        read = call(False)
        assert int(table.size()) == before
        inserted = call(True)
        assert int(table.size()) == size
        np.testing.assert_array_equal(read, inserted)


def test_missing_zeros(make_table):
    table = make_table("slab", D)
    sparse = tf.SparseTensor([[0, 0], [1, 1]], tf.constant([5, 6], tf.int64), [3, 2])
    for values in (
        tse.embedding_lookup(table, [5, 6], missing="zeros"),
        tse.embedding_lookup_sparse(table, sparse, missing="zeros"),
        tse.safe_embedding_lookup_sparse(table, sparse, default_key=5, missing="zeros"),
    ):
        np.testing.assert_array_equal(values, np.zeros(values.shape))


@pytest.mark.parametrize("counts, width", [("seen", 1), ("clicked", 2)])
def test_training_counts_keys(make_table, counts, width):
    table = make_table("slab", D, counts=counts)
    sparse = tf.SparseTensor([[0, 0], [0, 1], [1, 1]], tf.constant([5, 5, 6], tf.int64), [3, 2])
    tse.embedding_lookup(table, [5, 7, 7], training=True)
    tse.embedding_lookup_sparse(table, sparse, training=True)
    tse.embedding_lookup_sparse(table, sparse)
    want = np.zeros((3, width))
    want[:, 0] = [3, 1, 2]
    np.testing.assert_array_equal(table.key_counts([5, 6, 7]), want)


# Shapes and errors of both.


@pytest.mark.parametrize("shape, expected", [([None, None], [None, D]), ([5, None], [5, D]), ([2, 3, 4], [2, 3, D])])
@pytest.mark.parametrize("default_key", [None, 1])
def test_static_shapes(dynamic_twins, shape, expected, default_key):
    seen = []

    def call(keys):
        seen.append(tse.embedding_lookup_sparse(dynamic_twins.table, keys).shape)
        seen.append(tse.safe_embedding_lookup_sparse(dynamic_twins.table, keys, default_key=default_key).shape)

    tf.function(call, input_signature=[tf.SparseTensorSpec(shape, tf.int64)]).get_concrete_function()
    assert seen[0].as_list() == expected
    # As in TensorFlow, what is pruned has rank and width, but not always its other dimensions.
    assert seen[1].rank == len(expected) and seen[1][-1] == D
    assert seen[1].is_compatible_with(expected)


UNORDERED = {"rank_2": ([[1, 0], [0, 0]], [2, 2]), "rank_3": ([[0, 1, 0], [0, 0, 1]], [1, 2, 2])}


@pytest.mark.parametrize("case", UNORDERED)
@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_sparse_indices_out_of_order_are_an_error(dynamic_twins, case, function, mode):
    cells, shape = UNORDERED[case]
    keys = tf.SparseTensor(cells, tf.constant(dynamic_twins.keys[[1, 2]]), shape)

    def call(keys):
        return function(dynamic_twins.table, keys)

    with pytest.raises(tf.errors.InvalidArgumentError, match="row-major order; see tf.sparse.reorder"):
        (call if mode == "eager" else tf.function(call))(keys)
    ordered = tf.reshape(call(tf.sparse.reorder(keys)), [-1, D])
    np.testing.assert_array_equal(ordered, tf.gather(dynamic_twins.variable, [2, 1]))


CELLS = [[0, 0], [0, 1], [2, 0]]
BAD_WEIGHTS = {
    "other_indices": tf.SparseTensor([[0, 0], [1, 1], [2, 0]], [1.0, 2.0, 3.0], [3, 2]),
    "another_column": tf.SparseTensor([[0, 0], [0, 1], [2, 1]], [1.0, 2.0, 3.0], [3, 2]),
    "too_few": tf.SparseTensor(CELLS[:2], [1.0, 2.0], [3, 2]),
    "too_many": tf.SparseTensor([*CELLS, [2, 1]], [1.0, 2.0, 3.0, 4.0], [3, 2]),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@pytest.mark.parametrize("pooled", ["sum", "mean"])
@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_weights_with_other_indices_than_the_keys_are_an_error(dynamic_twins, pooled, case, function, mode):
    keys = tf.SparseTensor(CELLS, tf.constant(dynamic_twins.keys[[1, 2, 3]]), [3, 2])

    def call(keys, weights):
        return function(dynamic_twins.table, keys, weights, combiner=pooled)

    if mode == "graph":
        specs = [tf.SparseTensorSpec([None, None], dtype) for dtype in (tf.int64, tf.float32)]
        call = tf.function(call, input_signature=specs)
    with pytest.raises(BAD_ARGUMENT):
        call(keys, BAD_WEIGHTS[case])


@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
@pytest.mark.parametrize("pooled", ["sum", "mean"])
@pytest.mark.parametrize("lengths", [[1, 2], [2, 0, 1], [3, 1]], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_weights_with_other_row_splits_than_the_keys_are_an_error(dynamic_twins, pooled, function, lengths, mode):
    keys = tf.RaggedTensor.from_row_lengths(tf.constant(dynamic_twins.keys[[1, 2, 3]]), [2, 1])
    weights = tf.RaggedTensor.from_row_lengths(tf.range(1, sum(lengths) + 1, dtype=tf.float32), lengths)

    def call(keys, weights):
        return function(dynamic_twins.table, keys, weights, combiner=pooled)

    if mode == "graph":
        specs = [tf.RaggedTensorSpec([None, None], dtype) for dtype in (tf.int64, tf.float32)]
        call = tf.function(call, input_signature=specs)
    with pytest.raises(BAD_ARGUMENT):
        call(keys, weights)


@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_arguments_of_other_types_are_errors_that_name_them(dynamic_twins, function):
    sparse = tf.SparseTensor(CELLS, tf.constant(dynamic_twins.keys[[1, 2, 3]]), [3, 2])
    ragged = tf.RaggedTensor.from_row_lengths(sparse.values, [2, 0, 1])
    floats = sparse.with_values([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="(?s)sp_keys.*SparseTensor.*RaggedTensor"):
        function(dynamic_twins.table, tf.constant([[1, 2]], tf.int64))
    with pytest.raises(TypeError, match="EmbeddingVariable.*ResourceVariable"):
        function(dynamic_twins.variable, sparse)
    with pytest.raises(TypeError, match="weights.* must be a tf.SparseTensor"):
        function(dynamic_twins.table, sparse, tf.ones([3]))
    with pytest.raises(TypeError, match="weights.* must be a tf.SparseTensor"):
        function(dynamic_twins.table, sparse, ragged.with_flat_values(floats.values))
    with pytest.raises(TypeError, match="weights.* must be a tf.(Ragged|Sparse)Tensor"):
        function(dynamic_twins.table, ragged, tf.ones([3]))
    with pytest.raises(TypeError, match="weights.* must be floats, got int64"):
        function(dynamic_twins.table, sparse, sparse, combiner="sum")
    with pytest.raises(TypeError, match="must be int32, int64 or string, got float32"):
        function(dynamic_twins.table, floats)
    with pytest.raises(ValueError, match="(?s)combiner.*sum.*mean.*sqrtn.*max.*median"):
        function(dynamic_twins.table, sparse, combiner="median")
    with pytest.raises(ValueError, match="combiner"):
        function(dynamic_twins.table, sparse, combiner=None)
    with pytest.raises(ValueError, match="(?s)weights.* need a combiner.*max"):
        function(dynamic_twins.table, sparse, floats, combiner="max")
    with pytest.raises(ValueError, match="(?s)missing.*initial.*zeros"):
        function(dynamic_twins.table, sparse, missing="nan")


@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_a_key_out_of_range_is_an_error_with_its_value(make_table, function):
    table = make_table("index", D, rows=V)
    keys = tf.SparseTensor(CELLS, tf.constant([1, 2, V], tf.int64), [3, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"keys must be in \[0, {V}\).*= {V}"):
        function(table, keys)
