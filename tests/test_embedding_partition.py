"""EmbeddingPartition: keys and rows server by server, and back."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.ops.embedding_partition import partition_keys, partition_rows, stitch

SERVERS = [1, 2, 3, 5, 40]
KEYS = {
    "none": np.zeros([0], np.int64),
    "one": np.array([7], np.int64),
    "repeated": np.array([5, 5, -5, 5], np.int64),
    "extreme": np.array([-(2**63), 2**63 - 1, 0, -1], np.int64),
    "many": np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 50_000),
}


@pytest.mark.parametrize("num_servers", SERVERS)
@pytest.mark.parametrize("name", KEYS)
def test_each_key_goes_to_the_server_of_its_hash_in_order(name, num_servers):
    keys = KEYS[name]
    partition = partition_keys(keys, None, 1, num_servers)
    servers = reference.server_of_key(keys, num_servers)
    for s in range(num_servers):
        positions = np.flatnonzero(servers == s)
        np.testing.assert_array_equal(partition.positions[s], positions)
        np.testing.assert_array_equal(partition.keys[s], keys[positions])
        np.testing.assert_array_equal(partition.table_splits[s], [0, len(positions)])


@pytest.mark.parametrize("num_servers", SERVERS)
def test_keys_of_several_tables_stay_table_by_table(num_servers):
    keys, splits = KEYS["many"][:1000], [0, 0, 300, 301, 1000]
    partition = partition_keys(keys, splits, 4, num_servers)
    servers = reference.server_of_key(keys, num_servers)
    for s in range(num_servers):
        own = np.flatnonzero(servers == s)
        np.testing.assert_array_equal(partition.positions[s], own)
        np.testing.assert_array_equal(partition.table_splits[s], np.searchsorted(own, splits))


@pytest.mark.parametrize("num_servers", SERVERS)
@pytest.mark.parametrize("name", KEYS)
def test_rows_that_were_parted_are_stitched_as_they_were(name, num_servers):
    keys = KEYS[name]
    rows = np.random.default_rng(2).normal(size=[len(keys), 3]).astype(np.float32)
    partition = partition_keys(keys, None, 1, num_servers)
    parts = partition_rows(rows, partition.positions)
    for part, positions in zip(parts, partition.positions, strict=True):
        np.testing.assert_array_equal(part, rows[positions])
    anchor = tf.zeros([0, 3])
    stitched = library.sparse_emb_embedding_stitch_rows(parts, partition.positions, keys, [], [anchor])
    np.testing.assert_array_equal(stitched, rows)
    np.testing.assert_array_equal(stitch(parts, partition.positions, len(keys)), rows)
    present = rows[:, 0] > 0
    parts = [tf.constant(present[positions]) for positions in partition.positions]
    np.testing.assert_array_equal(stitch(parts, partition.positions, len(keys)), present)


def test_the_gradient_of_stitched_rows_goes_to_the_anchors_by_key():
    keys, splits = np.array([4, 9, 4, -2], np.int64), [0, 2, 4]
    partition = partition_keys(keys, splits, 2, 2)
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    anchors = [tf.Variable(tf.zeros([0, 2])), tf.Variable(tf.zeros([0, 2]))]
    with tf.GradientTape() as tape:
        stitched = library.sparse_emb_embedding_stitch_rows(
            partition_rows(rows, partition.positions), partition.positions, keys, [splits], anchors
        )
        loss = tf.reduce_sum(stitched * rows)
    first, second = tape.gradient(loss, anchors)
    np.testing.assert_array_equal(first.indices, [4, 9])
    np.testing.assert_array_equal(first.values, rows[:2])
    np.testing.assert_array_equal(second.indices, [4, -2])
    np.testing.assert_array_equal(second.values, rows[2:])


@pytest.mark.parametrize(
    "positions",
    [[[0, 1], [1]], [[0, 1], [3]], [[0, -1], [2]], [[0], [1]], [[0, 1, 2], [2]]],
    ids=["twice", "beyond", "negative", "missing", "too many"],
)
def test_positions_that_are_not_each_once_are_refused(positions):
    positions = [tf.constant(part, tf.int32) for part in positions]
    rows = np.ones([3, 2], np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"positions must be each of \[0, 3\) once, got"):
        partition_rows(rows, positions)
    parts = [tf.ones([len(part), 2]) for part in positions]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"positions must be each of \[0, 3\) once, got"):
        library.sparse_emb_embedding_stitch_rows(parts, positions, tf.zeros([3], tf.int64), [], [tf.zeros([0, 2])])
