"""Properties of the ops and of tables, on batches that hypothesis thinks up.

Examples are derandomized: a run tries what the run before tried, and a failure comes again. Letters: N keys, U unique
keys, D dim, B bags.
"""

import hypothesis
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import strategies as st
from test_resharding import on_servers

import tf_sparse_emb as tse
from tf_sparse_emb.ops.embedding_partition import partition_keys, partition_rows, stitch

SERVERS = (1, 2, 3, 5)
RULES = sorted(reference.RULE_TWINS)
DIM = 3


def examples(count):
    """So many examples, the same in every run."""
    return hypothesis.settings(max_examples=count, derandomize=True, database=None, deadline=None, print_blob=True)


# Few keys that come often, the ends of int64, and any.
KEYS = st.one_of(
    st.integers(-4, 4),
    st.sampled_from(reference.EXTREME_KEYS.tolist()),
    st.integers(reference.INT64_MIN, reference.INT64_MAX),
)
BATCHES = st.lists(KEYS, max_size=60).map(lambda keys: np.array(keys, np.int64))
DISTINCT = st.lists(KEYS, max_size=40, unique=True).map(lambda keys: np.array(keys, np.int64))
SEEDS = st.integers(0, 2**32 - 1)


def rows_of_keys(keys):
    """float32 [N, 4] that tell all bits of the keys."""
    pieces = np.ascontiguousarray(keys, np.int64)[:, None].view(np.uint16).reshape(-1, 4)
    return pieces.astype(np.float32)


def floats(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def whole_numbers(seed, *shape):
    """Whose sums and products are exact."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)


# Dedup, duplicate, grad-reduce.


@examples(50)
@hypothesis.given(BATCHES)
def test_dedup_then_duplicate_is_the_identity(keys):
    unique_keys, inverse, counts = (x.numpy() for x in tse.ops.embedding_key_dedup(keys))
    assert np.unique(unique_keys).size == unique_keys.size and counts.sum() == keys.size
    np.testing.assert_array_equal(unique_keys[inverse], keys)
    values = tse.ops.embedding_duplicate(rows_of_keys(unique_keys), inverse)
    np.testing.assert_array_equal(values, rows_of_keys(keys))


@st.composite
def bags(draw):
    """inverse [N], U, row_splits [B + 1]."""
    lengths = draw(st.lists(st.integers(0, 6), max_size=12))
    num_unique = draw(st.integers(1, 10))
    inverse = draw(st.lists(st.integers(0, num_unique - 1), min_size=sum(lengths), max_size=sum(lengths)))
    return np.array(inverse, np.int32), num_unique, np.cumsum([0, *lengths])


@examples(20)
@hypothesis.given(bags(), st.sampled_from([1, 3, 16, 17]), SEEDS)
@pytest.mark.parametrize("combiner", [None, *reference.COMBINERS])
@pytest.mark.parametrize("weighted", [False, True])
def test_grad_reduce_is_the_transpose_of_duplicate(combiner, weighted, bag, dim, seed):
    """<duplicate(x), g> = <x, grad_reduce(g)>."""
    inverse, num_unique, row_splits = bag
    arguments = {} if combiner is None else {"combiner": combiner, "row_splits": row_splits}
    if weighted and combiner is not None:
        arguments["weights"] = np.random.default_rng(seed).integers(1, 5, inverse.size).astype(np.float32)
    x = whole_numbers(seed, num_unique, dim)
    values = tse.ops.embedding_duplicate(x, inverse, **arguments).numpy()
    g = whole_numbers(seed + 1, *values.shape)
    reduced = tse.ops.embedding_grad_reduce(g, inverse=inverse, num_unique=num_unique, **arguments).numpy()
    left, right = (np.vdot(a.astype(np.float64), b) for a, b in ((values, g), (x, reduced)))
    if combiner in (None, "sum"):
        assert left == right
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-3)


@examples(20)
@hypothesis.given(BATCHES, SEEDS)
def test_grad_reduce_by_keys_is_that_by_the_inverse(keys, seed):
    grads = floats(seed, keys.size, DIM)
    unique_keys, inverse, _ = tse.ops.embedding_key_dedup(keys)
    by_inverse = tse.ops.embedding_grad_reduce(grads, inverse=inverse, num_unique=tf.size(unique_keys))
    by_keys, same_keys = tse.ops.embedding_grad_reduce(grads, keys)
    np.testing.assert_array_equal(same_keys, unique_keys)
    np.testing.assert_array_equal(by_keys, by_inverse)


# Updates.


def table_of(storage="slab", rule=None, keys=(), servers=0, **kwargs):
    """A table with these keys. Those of "index" are taken modulo its vocabulary by `keys_of`."""
    with on_servers(servers):
        table = tse.EmbeddingVariable(
            DIM, storage=storage, input_dim=VOCABULARY if storage == "index" else None, seed=1, **kwargs
        )
    if rule is not None:
        table.bind(rule)
    table.lookup(np.asarray(keys, np.int64), insert=True)
    return table


VOCABULARY = 97


def keys_of(storage, keys):
    return np.unique(keys % VOCABULARY) if storage == "index" else keys


def update(table, keys, grads, rule, step=1):
    """An update by the rule."""
    hypers = {"learning_rate": 0.1}
    if "momentum" in rule:
        hypers["momentum"] = 0.9
    tse.ops.embedding_update(table, keys, grads, rule, step=step, **hypers)


@examples(6)
@hypothesis.given(DISTINCT, SEEDS)
@pytest.mark.parametrize("rule", RULES)
def test_an_update_by_a_permutation_of_the_batch_gives_the_same_rows(rule, keys, seed):
    grads, order = floats(seed, keys.size, DIM), np.random.default_rng(seed).permutation(keys.size)
    tables = [table_of(rule=rule, keys=keys[: keys.size // 2]) for _ in range(2)]
    for step in (1, 2):
        update(tables[0], keys, grads, rule, step)
        update(tables[1], keys[order], grads[order], rule, step)
    assert tables[0].numpy() == tables[1].numpy()
    assert int(tse.check(tables[1])) == keys.size


@examples(15)
@hypothesis.given(BATCHES, SEEDS)
def test_an_optimizers_step_on_a_permutation_of_repeated_keys_gives_the_same_rows(keys, seed):
    grads, order = whole_numbers(seed, keys.size, DIM), np.random.default_rng(seed).permutation(keys.size)
    snapshots = []
    for some in (slice(None), order):
        table = table_of(initializer="zeros")
        optimizer = tse.optimizers.SGD(1.0)
        optimizer.build([table])
        optimizer.apply_gradients([(tf.IndexedSlices(grads[some], tf.constant(keys[some], tf.int64)), table)])
        snapshots.append(table.numpy())
    assert snapshots[0] == snapshots[1]


# Servers.


@examples(20)
@hypothesis.given(BATCHES, st.sampled_from(SERVERS), SEEDS)
def test_what_is_parted_by_server_and_stitched_is_the_batch(keys, servers, seed):
    partition = partition_keys(tf.constant(keys, tf.int64), None, 1, servers)
    for s in range(servers):
        assert (reference.server_of_key(partition.keys[s].numpy(), servers) == s).all()
    rows = floats(seed, keys.size, DIM)
    parts = partition_rows(rows, partition.positions)
    np.testing.assert_array_equal(stitch(parts, partition.positions, keys.size), rows)
    np.testing.assert_array_equal(stitch(partition.keys, partition.positions, keys.size), keys)


@st.composite
def programs(draw):
    """What is done to a table: (what, keys) one after the other."""
    whats = st.sampled_from(["insert", "lookup", "update", "update", "upsert", "scatter_add", "remove"])
    return draw(st.lists(st.tuples(whats, DISTINCT), min_size=1, max_size=10))


def run(program, table, seed):
    """The rows that the program's lookups have returned."""
    seen = []
    for step, (what, keys) in enumerate(program, 1):
        values = floats(seed + step, keys.size, DIM)
        if what in ("insert", "lookup"):
            seen.append(table.lookup(keys, insert=what == "insert").numpy())
        elif what == "update":
            update(table, keys, values, "row_wise_adam", step)
        elif what == "remove":
            table.remove(keys)
        else:
            getattr(table, what)(keys, values)
    return seen


@examples(6)
@hypothesis.given(programs(), SEEDS)
def test_how_many_servers_a_table_is_spread_over_does_not_matter(program, seed):
    one = table_of(rule="row_wise_adam")
    want = run(program, one, seed)
    for servers in SERVERS:
        table = table_of(rule="row_wise_adam", servers=servers)
        for rows, expected in zip(run(program, table, seed), want, strict=True):
            np.testing.assert_array_equal(rows, expected)
        assert table.numpy() == one.numpy()
        assert int(tse.check(table)) == int(one.size())


# Saving.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


def by_table_file(table, other, folder):
    table.save(folder / "table")
    other.load(folder / "table")


def by_checkpoint(table, other, folder):
    path = tf.train.Checkpoint(table=table).write(str(folder / "checkpoint"))
    tf.train.Checkpoint(table=other).read(path)


def by_snapshot(table, other, folder):
    other.assign(table.numpy())


@examples(4)
@hypothesis.given(DISTINCT, DISTINCT, SEEDS, st.sampled_from(RULES), st.sampled_from([None, "seen", "clicked"]))
@pytest.mark.parametrize("way", [by_table_file, by_checkpoint, by_snapshot])
@pytest.mark.parametrize("storage", reference.STORAGES)
def test_save_then_load_is_the_identity(storage, way, folder, keys, removed, seed, rule, counts):
    keys, removed = keys_of(storage, keys), keys_of(storage, removed)
    table, other = (table_of(storage, rule, counts=counts) for _ in range(2))
    update(table, keys, floats(seed, keys.size, DIM), rule)
    if counts is not None:
        table.add_counts(keys, np.abs(floats(seed, keys.size, table.num_counts)))
    table.remove(np.concatenate([removed, keys[::3]]))
    other.upsert(removed, floats(seed, removed.size, DIM))  # what was there goes
    way(table, other, folder)
    assert other.numpy() == table.numpy()
    assert int(tse.check(other)) == int(table.size())
