"""The lookups of sparse and ragged ids without a layer, against TensorFlow's functions of the same names."""

import numpy as np
import pytest
import tensorflow as tf
from functional_cases import SPARSE_FUNCTIONS, D, Twins, V

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")
STORAGES = ("index", "slab")  # an index table, and a dynamic one
# Sums of these are exact, so that those that are zero are zero on both sides.
WEIGHTS = np.array([-1.5, -0.5, 0.5, 1.0, 2.0], np.float32)


@pytest.fixture(params=STORAGES)
def twins(request, make_table):
    return Twins(make_table, request.param)


@pytest.fixture
def dynamic_twins(make_table):
    """One of the two, for what lies above the storages."""
    return Twins(make_table, "slab")


def _random_sparse(rng, rank=2, weights=WEIGHTS, least_id=0):
    """Ids and weights, in some rows none, with the last row or more often empty."""
    shape = rng.integers(1, [7, 5][: rank - 1] + [6], rank)
    cells = np.argwhere(rng.random(shape) < rng.choice([0.2, 0.5, 0.9]))
    cells = cells[cells[:, 0] < rng.integers(1, shape[0] + 1)]
    ids = rng.integers(least_id, V, len(cells))
    values = rng.choice(weights, len(cells)).astype(np.float32)
    return tf.SparseTensor(cells, ids, shape), tf.SparseTensor(cells, values, shape)


def _random_ragged(rng):
    lengths = rng.integers(0, 5, rng.integers(1, 8))
    ids = rng.integers(0, V, lengths.sum())
    weights = rng.choice(WEIGHTS, lengths.sum())
    return tf.RaggedTensor.from_row_lengths(ids, lengths), tf.RaggedTensor.from_row_lengths(weights, lengths)


def _values_and_gradients(look_up, parameters, ids, weights=None):
    """look_up(parameters, ids, weights), and the gradients of a sum that weighs each of its elements differently."""
    ragged = isinstance(ids, tf.RaggedTensor)
    with tf.GradientTape() as tape:
        flat = tf.zeros([0])
        if weights is not None:
            flat = tf.identity(weights.flat_values if ragged else weights.values)
            tape.watch(flat)
            weights = weights.with_flat_values(flat) if ragged else weights.with_values(flat)
        values = look_up(parameters, ids, weights)
        elements = tf.reshape(values, [-1])
        loss = tf.reduce_sum(elements * tf.sin(1.0 + tf.range(tf.size(elements), dtype=tf.float32)))
    gradients = tape.gradient(loss, [parameters, flat], unconnected_gradients="zero" if weights is None else "none")
    return values, gradients[0], tf.convert_to_tensor(gradients[1])


def _traced(look_up, parameters, ids, weights):
    """`_values_and_gradients` in a graph that knows only the rank of ids and weights, to serve all of a test."""
    specs = [
        tf.SparseTensorSpec([None] * len(x.shape), x.dtype)
        if isinstance(x, tf.SparseTensor)
        else tf.RaggedTensorSpec([None, None], x.dtype, 1)
        for x in (ids, weights)
        if x is not None
    ]
    function = tf.function(lambda *inputs: _values_and_gradients(look_up, parameters, *inputs), input_signature=specs)
    return lambda look_up, parameters, *inputs: function(*(x for x in inputs if x is not None))


def _assert_equal(twins, ours, theirs, inputs, mode="eager", tolerance=1e-5):
    """Values and gradients of both agree; TensorFlow leaves out the empty rows at the end."""
    evaluate = _values_and_gradients if mode == "eager" else _traced(ours, twins.table, *inputs[0])
    for ids, weights in inputs:
        got, got_rows, got_weights = evaluate(ours, twins.table, twins.keys_of(ids), weights)
        want, want_rows, want_weights = _values_and_gradients(theirs, twins.variable, ids, weights)
        shape = ids.dense_shape.numpy().tolist() if isinstance(ids, tf.SparseTensor) else [ids.nrows(), None]
        assert got.shape == (*shape[:-1], D)
        got, want = got.numpy(), want.numpy()
        np.testing.assert_allclose(got[: len(want)], want, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(got[len(want) :], 0)
        want_rows = tf.convert_to_tensor(want_rows)
        np.testing.assert_allclose(twins.dense_gradient(got_rows), want_rows, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(got_weights, want_weights, rtol=10 * tolerance, atol=10 * tolerance)


def _inputs(draw, count, weighted, **kwargs):
    """`count` random pairs of ids and weights (None unless weighted)."""
    drawn = [draw(np.random.default_rng(seed), **kwargs) for seed in range(count)]
    return [(ids, weights if weighted else None) for ids, weights in drawn]


# tse.embedding_lookup_sparse


def _sparse_pair(combiner):
    """Ours and TensorFlow's."""
    return (
        lambda table, keys, weights=None: tse.embedding_lookup_sparse(table, keys, weights, combiner=combiner),
        lambda variable, ids, weights: tf.nn.embedding_lookup_sparse(variable, ids, weights, combiner=combiner),
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_sparse_ids_are_pooled_as_tensorflow_does(twins, combiner, weighted, mode):
    ours, theirs = _sparse_pair(combiner)
    _assert_equal(twins, ours, theirs, _inputs(_random_sparse, 6, weighted), mode)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_ragged_ids_are_pooled_as_tensorflow_does(twins, combiner, weighted, mode):
    ours, theirs = _sparse_pair(combiner)
    _assert_equal(twins, ours, theirs, _inputs(_random_ragged, 6, weighted), mode)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_sparse_ids_of_rank_3_are_pooled_along_the_last_axis(twins, combiner, weighted, mode):
    """As TensorFlow does for rank 2: it has no function for more axes that leaves them there."""
    ours, theirs = _sparse_pair(combiner)

    def flat(sparse):
        rows, last = tf.reduce_prod(sparse.dense_shape[:2]), sparse.dense_shape[2]
        return tf.sparse.reshape(sparse, [rows, last])

    def flatly(variable, ids, weights):
        values = theirs(variable, flat(ids), None if weights is None else flat(weights))
        rows = tf.reduce_prod(ids.dense_shape[:2])
        values = tf.pad(values, [[0, rows - tf.shape(values, tf.int64)[0]], [0, 0]])
        return tf.reshape(values, tf.concat([ids.dense_shape[:2], [D]], 0))

    _assert_equal(twins, ours, flatly, _inputs(_random_sparse, 6, weighted, rank=3), mode)


@pytest.mark.parametrize("zeros", ["sum_to_zero", "all_zero"])
def test_weights_that_sum_to_zero_give_what_tensorflow_gives(twins, combiner, zeros):
    weights = {"sum_to_zero": [1.0, -1.5, 0.5, 2.0], "all_zero": [0.0, 0.0, 0.0, 0.0]}[zeros]
    cells = [[0, 0], [0, 1], [0, 2], [1, 0]]
    ids = tf.SparseTensor(cells, tf.constant([1, 2, 3, 4], tf.int64), [2, 3])
    weights = tf.SparseTensor(cells, tf.constant(weights), [2, 3])
    ours, theirs = _sparse_pair(combiner)
    got, got_rows, got_weights = _values_and_gradients(ours, twins.table, twins.keys_of(ids), weights)
    want, want_rows, _ = _values_and_gradients(theirs, twins.variable, ids, weights)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(twins.dense_gradient(got_rows), tf.convert_to_tensor(want_rows), rtol=1e-5, atol=1e-6)
    assert np.isfinite(got_weights).all()  # TensorFlow's are NaN where sqrtn divides by zero


@pytest.mark.parametrize("rank", [2, 3])
def test_there_is_a_row_for_each_of_dense_shape(twins, combiner, rank):
    cells = [[0, 0, 1], [0, 2, 0]] if rank == 3 else [[0, 0], [2, 1]]
    shape = [5, 4, 3][:1] + [5, 4, 3][4 - rank :]
    keys = tf.SparseTensor(cells, tf.constant(twins.keys[[1, 2]]), shape)
    for function in SPARSE_FUNCTIONS:
        pooled = function(twins.table, keys, combiner=combiner)
        assert pooled.shape == (*shape[:-1], D)
        flat = pooled.numpy().reshape(-1, D)
        np.testing.assert_array_equal(flat[[0, 2]], tf.gather(twins.variable, [1, 2]))
        np.testing.assert_array_equal(np.delete(flat, [0, 2], 0), 0)


@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_max_is_the_greatest_of_a_row(twins, function):
    keys = tf.SparseTensor([[0, 0], [0, 1], [2, 0]], tf.constant(twins.keys[[1, 2, 3]]), [4, 2])
    rows = twins.variable.numpy()
    want = [rows[[1, 2]].max(0), np.zeros(D), rows[3], np.zeros(D)]
    np.testing.assert_array_equal(function(twins.table, keys, combiner="max"), want)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4), (3, 0), (0, 2, 3), (2, 0, 3), (2, 3, 4), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_sparse_ids_without_any_key(dynamic_twins, shape, function, mode):
    keys = tf.SparseTensor(np.zeros((0, len(shape)), np.int64), np.zeros(0, np.int64), shape)

    def call(keys):
        return function(dynamic_twins.table, keys, keys.with_values(tf.zeros([0])))

    if mode == "graph":
        call = tf.function(call, input_signature=[tf.SparseTensorSpec([None] * len(shape), tf.int64)])
    np.testing.assert_array_equal(call(keys), np.zeros((*shape[:-1], D)))


def test_the_last_axis_may_be_of_any_size(twins):
    keys = tf.SparseTensor([[0, 5], [1, 2**61]], tf.constant(twins.keys[[1, 2]]), [3, 2**62])
    for function in SPARSE_FUNCTIONS:
        np.testing.assert_array_equal(function(twins.table, keys)[:2], tf.gather(twins.variable, [1, 2]))


@pytest.mark.parametrize("dtype", [tf.int32, tf.string])
@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_sparse_keys_of_other_dtypes(make_table, dtype, function):
    table = make_table("slab", D)
    values = tf.constant(["a", "b", "a"]) if dtype == tf.string else tf.constant([5, -6, 5], dtype)
    keys = tf.SparseTensor([[0, 0], [0, 1], [1, 0]], values, [2, 2])
    rows = table.lookup(values).numpy()
    np.testing.assert_allclose(function(table, keys, combiner="sum"), [rows[0] + rows[1], rows[2]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float16, tf.bfloat16])
@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_weights_of_other_floats(dynamic_twins, dtype, function):
    cells = [[0, 0], [0, 1], [1, 0]]
    keys = tf.SparseTensor(cells, tf.constant(dynamic_twins.keys[[1, 2, 3]]), [2, 2])
    with tf.GradientTape(persistent=True) as tape:
        values = tf.constant([0.5, 2.0, 1.0], dtype)
        tape.watch(values)
        pooled = function(dynamic_twins.table, keys, tf.SparseTensor(cells, values, [2, 2]), combiner="sum")
    rows = dynamic_twins.variable.numpy()
    np.testing.assert_allclose(pooled, [0.5 * rows[1] + 2 * rows[2], rows[3]], rtol=1e-6)
    gradient = tape.gradient(pooled, values)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(tf.cast(gradient, tf.float32), rows[[1, 2, 3]].sum(1), rtol=1e-2)


@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_the_padding_key_is_left_out(make_table, combiner, function):
    table = make_table("slab", D, padding_key=7)
    keys = tf.SparseTensor([[0, 0], [0, 1], [1, 0]], tf.constant([7, 5, 7], tf.int64), [2, 2])
    with tf.GradientTape() as tape:
        pooled = function(table, keys, combiner=combiner, training=True)
    np.testing.assert_array_equal(pooled, [table.lookup([5]).numpy()[0], np.zeros(D)])
    np.testing.assert_array_equal(tape.gradient(pooled, table).indices, [5])
    assert int(table.size()) == 1


@pytest.mark.parametrize("function", SPARSE_FUNCTIONS)
def test_names_are_taken(dynamic_twins, function):
    keys = tf.SparseTensor([[0, 0]], tf.constant(dynamic_twins.keys[:1]), [1, 1])
    call = tf.function(lambda: function(dynamic_twins.table, keys, name="of_the_user")).get_concrete_function()
    assert any(op.name.startswith("of_the_user/") for op in call.graph.get_operations())


@pytest.mark.parametrize("how", ["embedding_lookup", *(f.__name__ for f in SPARSE_FUNCTIONS)])
def test_a_tape_around_a_traced_lookup_gives_its_gradient(twins, how):
    """The forward pass in a tf.function, the gradient asked for outside of it."""
    keys = tf.constant(twins.keys[[1, 2, 1]])
    if how != "embedding_lookup":
        keys = tf.SparseTensor([[0, 0], [0, 1], [2, 0]], keys, [4, 2])
    look_up = tf.function(lambda k: getattr(tse, how)(twins.table, k))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(look_up(keys))
    want = np.zeros((V, D))
    want[[1, 2]] = [[2.0], [1.0]] if how == "embedding_lookup" else [[1.5], [0.5]]
    np.testing.assert_allclose(twins.dense_gradient(tape.gradient(loss, twins.table)), want)


# tse.safe_embedding_lookup_sparse


def _safe_pair(combiner, default_id=None, default_key=None):
    return (
        lambda table, keys, weights=None: tse.safe_embedding_lookup_sparse(
            table, keys, weights, combiner, default_key=default_key
        ),
        lambda variable, ids, weights: tf.nn.safe_embedding_lookup_sparse(variable, ids, weights, combiner, default_id),
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("default_id", [None, 4])
@pytest.mark.parametrize("rank, mode", [(2, "eager"), (3, "eager"), (3, "graph")])
def test_the_safe_lookup_is_that_of_tensorflow(twins, combiner, weighted, default_id, rank, mode):
    """Negative ids, weights that are negative or zero, empty rows anywhere."""
    ours, theirs = _safe_pair(combiner, default_id, None if default_id is None else int(twins.keys[default_id]))
    # On a dynamic table negative keys are keys, which TensorFlow does not have.
    least_id = -3 if twins.table.input_dim else 0
    inputs = _inputs(_random_sparse, 4, weighted, rank=rank, weights=[*WEIGHTS, 0.0], least_id=least_id)
    _assert_equal(twins, ours, theirs, inputs, mode)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("default_id", [None, 4])
def test_the_safe_lookup_of_ragged_ids_is_that_of_tensorflow(twins, combiner, weighted, default_id):
    ours, theirs = _safe_pair(combiner, default_id, None if default_id is None else int(twins.keys[default_id]))
    _assert_equal(twins, ours, theirs, _inputs(_random_ragged, 3, weighted))


@pytest.mark.parametrize("mode", MODES)
def test_negative_keys_of_a_dynamic_table_are_keys(make_table, mode):
    table = make_table("slab", D)
    keys = tf.SparseTensor([[0, 0], [1, 0]], tf.constant([-5, -(2**63)], tf.int64), [3, 1])

    def call():
        return tse.safe_embedding_lookup_sparse(table, keys, default_key=-7, training=True)

    got = (tf.function(call) if mode == "graph" else call)()
    np.testing.assert_array_equal(got, table.lookup([-5, -(2**63), -7]))
    assert int(table.size()) == 3


def test_negative_keys_of_a_hash_table_with_input_dim_are_left_out(hash_storage):
    table = tse.EmbeddingVariable(D, input_dim=V, storage=hash_storage, seed=1)
    keys = tf.SparseTensor([[0, 0], [0, 1], [1, 0]], tf.constant([-5, 3, -1], tf.int64), [2, 2])
    got = tse.safe_embedding_lookup_sparse(table, keys)
    np.testing.assert_array_equal(got, [table.lookup([3]).numpy()[0], np.zeros(D)])


def test_keys_that_are_pruned_are_neither_inserted_nor_counted(make_table):
    table = make_table("slab", D, counts="seen")
    cells = [[0, 0], [0, 1], [1, 0]]
    keys = tf.SparseTensor(cells, tf.constant([5, 6, 6], tf.int64), [2, 2])
    weights = tf.SparseTensor(cells, tf.constant([1.0, 0.0, -1.0]), [2, 2])
    tse.safe_embedding_lookup_sparse(table, keys, weights, training=True)
    np.testing.assert_array_equal(table.contains([5, 6]), [True, False])
    tse.safe_embedding_lookup_sparse(table, keys, weights, combiner="sum", training=True)
    np.testing.assert_array_equal(table.key_counts([5, 6]), [[2], [2]])


def test_the_default_key_of_string_keys_is_a_string(make_table):
    table = make_table("slab", D)
    keys = tf.SparseTensor([[0, 0]], tf.constant(["a"]), [2, 1])
    got = tse.safe_embedding_lookup_sparse(table, keys, default_key="none")
    np.testing.assert_array_equal(got, table.lookup(tf.constant(["a", "none"])))


@pytest.mark.parametrize("default_key", [0, V - 1])
def test_any_key_is_a_default_key(twins, default_key):
    keys = tf.SparseTensor([[1, 0]], tf.constant(twins.keys[[3]]), [3, 2])
    got = tse.safe_embedding_lookup_sparse(twins.table, keys, default_key=int(twins.keys[default_key]))
    np.testing.assert_array_equal(got, tf.gather(twins.variable, [default_key, 3, default_key]))


@pytest.mark.parametrize("bad", [V, -1])
def test_a_default_key_out_of_range_is_an_error(make_table, bad):
    table = make_table("index", D, rows=V)
    keys = tf.SparseTensor([[1, 0]], tf.constant([3], tf.int64), [3, 2])
    with pytest.raises(BAD_ARGUMENT, match=f"{bad}"):
        tse.safe_embedding_lookup_sparse(table, keys, default_key=bad)
