"""Tensors of more than 2^31 elements: right, or refused by a text. `make stress` runs them.

The zeros are pages of the system that nobody has written: they take addresses, not memory.
"""

import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

MANY = 2**31 + 8


def zeros(shape, dtype):
    return tf.experimental.dlpack.from_dlpack(np.zeros(shape, dtype).__dlpack__())


def available_bytes():
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


@pytest.fixture(scope="module")
def keys():
    return zeros(MANY, np.int64)


REFUSALS = {
    "dedup": lambda keys: tse.ops.embedding_key_dedup(keys),
    "grad_reduce": lambda keys: tse.ops.embedding_grad_reduce(tf.zeros([1, 1]), keys),
    "layer": lambda keys: tse.Embedding(None, 1)(keys),
    "partition": lambda keys: library.sparse_emb_embedding_partition(keys, [], num_servers=2),
    "grad_reduce_by_key": lambda keys: library.sparse_emb_embedding_grad_reduce_by_key(
        [keys], [zeros((MANY, 1), np.float32)]
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_more_keys_than_an_int32_numbers_are_refused(case, keys):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"keys must have fewer than 2\\^31 elements, got {MANY}"):
        REFUSALS[case](keys)


def test_as_many_keys_are_looked_for():
    table = tse.EmbeddingVariable(1)
    table.upsert([0], [[1.0]])
    present = table.contains(zeros(MANY, np.int64))
    assert int(tf.size(present, tf.int64)) == MANY and bool(tf.reduce_all(present))


def test_as_many_rows_are_gathered_from():
    last = 2**31 - 1
    values = np.zeros((MANY, 1), np.float32)
    values[last] = 7.0
    rows = tf.experimental.dlpack.from_dlpack(values.__dlpack__())
    got = tse.ops.embedding_duplicate(rows, np.array([0, last], np.int32))
    np.testing.assert_array_equal(got, [[0.0], [7.0]])
    pooled = tse.ops.embedding_max_pool(rows, np.array([0, last], np.int32), np.array([0, 2]))
    np.testing.assert_array_equal(pooled, [[7.0]])


def test_a_gradient_of_as_many_elements_is_reduced():
    if available_bytes() < 12e9:
        pytest.skip("needs 12 GB of memory")
    grad = zeros((1, MANY), np.float32)
    reduced = tse.ops.embedding_grad_reduce(grad, inverse=np.array([1], np.int32), num_unique=2)
    assert reduced.shape == (2, MANY)


def test_rows_of_as_many_elements_that_no_memory_holds_are_refused():
    with pytest.raises((tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError)):
        tse.ops.embedding_duplicate(zeros((1, MANY), np.float32), np.zeros(10_000, np.int32))
