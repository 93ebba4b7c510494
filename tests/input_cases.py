"""What the tests of the inputs of tse.Embedding share: keys of every form, and a twin that pools them in Python."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
MODES = ("eager", "graph")
ALL_COMBINERS = (*reference.COMBINERS, "max")
V, D = 30, 3


def make_layer(storage="slab", **kwargs):
    kwargs = {"embeddings_initializer": keras.initializers.RandomNormal(), "seed": 3} | kwargs
    return tse.Embedding(V if storage == "index" else None, D, storage=storage, **kwargs)


# The forms of keys, each as a function of random numbers; `nested_lists` makes Python lists of any of them.


def _ragged(rng, *lengths, inner=()):
    """Rows of 0 to 3 values, axis by axis: ragged_rank is the number of `lengths` (of upper bounds)."""
    splits, rows = [], rng.integers(2, 6)
    for bound in lengths:
        lengths_of_rows = rng.integers(0, bound, rows)
        splits.append(np.concatenate([[0], np.cumsum(lengths_of_rows)]))
        rows = splits[-1][-1]
    return tf.RaggedTensor.from_nested_row_splits(rng.integers(0, V, (rows, *inner)), splits)


def _sparse(rng, rank):
    shape = rng.integers(2, 5, rank)
    cells = np.argwhere(rng.random(shape) < 0.5)
    return tf.SparseTensor(cells, rng.integers(0, V, len(cells)), shape)


FORMS = {
    "dense_2": lambda rng: tf.constant(rng.integers(0, V, (5, 4))),
    "dense_3": lambda rng: tf.constant(rng.integers(0, V, (2, 3, 4))),
    "dense_4": lambda rng: tf.constant(rng.integers(0, V, (2, 1, 3, 2))),
    "ragged_1": lambda rng: _ragged(rng, 5),
    "ragged_2": lambda rng: _ragged(rng, 4, 4),
    "ragged_3": lambda rng: _ragged(rng, 3, 3, 4),
    "ragged_1_of_uniform_inner": lambda rng: _ragged(rng, 4, inner=(3,)),
    "ragged_2_of_uniform_inner": lambda rng: _ragged(rng, 3, 4, inner=(2,)),
    "ragged_1_of_two_uniform_inner": lambda rng: _ragged(rng, 4, inner=(2, 3)),
    "uniform_rows_of_ragged": lambda rng: tf.RaggedTensor.from_uniform_row_length(
        tf.RaggedTensor.from_row_lengths(rng.integers(0, V, 9), [2, 0, 3, 1, 0, 3]), 2
    ),
    "sparse_2": lambda rng: _sparse(rng, 2),
    "sparse_3": lambda rng: _sparse(rng, 3),
    "sparse_4": lambda rng: _sparse(rng, 4),
}
SOME_FORMS = ["dense_2", "dense_3", "ragged_1", "ragged_2", "ragged_1_of_uniform_inner", "sparse_2", "sparse_3"]
FORMS_AND_MODES = [*((form, "eager") for form in FORMS), *((form, "graph") for form in SOME_FORMS)]


def forms_and_combiners(forms, combiners):
    """Their product, but that sparse keys need a combiner."""
    return [(f, c) for f in forms for c in combiners if c is not None or not f.startswith("sparse")]


def nested_lists(values):
    """Python lists of the values; of sparse ones those that are there, the last axis ragged."""
    if isinstance(values, tf.RaggedTensor):
        return values.to_list()
    if not isinstance(values, tf.SparseTensor):
        return values.numpy().tolist()
    bags = np.empty(values.shape[:-1], object)
    for cell in np.ndindex(bags.shape):
        bags[cell] = []
    for cell, value in zip(values.indices.numpy(), values.values.numpy().tolist(), strict=True):
        bags[tuple(cell[:-1])].append(value)
    return bags.tolist()


def rank_of(keys):
    return len(keys.shape)


def _pool(rows, weights, combiner):
    """The pooled row of one bag [n, D], in float64."""
    if combiner == "max":
        return rows.max(0) if len(rows) else np.zeros(rows.shape[1])
    c = reference.bag_coefficients([0, len(rows)], weights, combiner)
    return c @ rows if len(rows) else np.zeros(rows.shape[1])


def _twin(keys, weights, rank, rows_of, combiner):
    """The layer's output as nested lists: of nested lists of keys, their axes down to the last in lists."""
    if rank > 1:
        weights = [None] * len(keys) if weights is None else weights
        return [_twin(k, w, rank - 1, rows_of, combiner) for k, w in zip(keys, weights, strict=True)]
    rows = rows_of(keys)
    if combiner is None:
        return rows.tolist()
    return _pool(rows, np.ones(len(keys)) if weights is None else weights, combiner).tolist()


def _assert_nested(got, want):
    """Nested lists of equal shape and of nearly equal numbers."""
    if not isinstance(want, list):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-6)
        return
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        _assert_nested(g, w)


def table_rows_of(layer):
    table = layer.embeddings.lookup(np.arange(V)).numpy().astype(np.float64)
    return lambda keys: table[np.array(keys, np.int64)].reshape(-1, D)


def assert_output(layer, keys, weights=None, mode="eager"):
    layer.build()
    call = layer if mode == "eager" else tf.function(layer)
    output = call(keys) if weights is None else call(keys, weights=weights)
    want = _twin(
        nested_lists(keys),
        None if weights is None else nested_lists(weights),
        rank_of(keys),
        table_rows_of(layer),
        layer.combiner,
    )
    _assert_nested(nested_lists(output), want)
    return output


def flat_values(values):
    if isinstance(values, tf.RaggedTensor):
        return values.flat_values
    return values.values if isinstance(values, tf.SparseTensor) else values


def with_flat_values(like, values):
    if isinstance(like, tf.RaggedTensor):
        return like.with_flat_values(values)
    return like.with_values(values) if isinstance(like, tf.SparseTensor) else values


def plain_pool(rows, weights, bag_ids, num_bags, combiner):
    """rows [n, D] pooled by TensorFlow's plain ops."""
    sums = tf.math.unsorted_segment_sum(rows * weights[:, tf.newaxis], bag_ids, num_bags)
    if combiner == "sum":
        return sums
    squares = weights if combiner == "mean" else weights**2
    divisor = tf.math.unsorted_segment_sum(squares, bag_ids, num_bags)[:, tf.newaxis]
    divisor = tf.where(divisor == 0, 1.0, divisor)
    return sums / (divisor if combiner == "mean" else tf.sqrt(divisor))


TARGETS = np.sin(np.arange(16.0)).astype(np.float32)[:, None]
