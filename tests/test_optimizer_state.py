"""The optimizer's state of a table's rows, for every rule: how large it is, what changes it, when it begins anew."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from optimizer_cases import (
    CASES,
    V,
    case_of,
    filled_table,
    make_plain,
    make_slices,
    make_twin,
    optimizer_of,
    random_steps,
)

from tf_sparse_emb.update_rules import get_rule

DIM = 3
CLOSE = {"rtol": 3e-5, "atol": 3e-5}
# Floats of state of a row of width 8: those of the docstrings.
STATE_FLOATS = {
    "sgd": 0,
    "momentum": 8,
    "adagrad": 8,
    "row_wise_adagrad": 1,
    "adagrad_decay": 9,
    "adam": 16,
    "adam_amsgrad": 24,
    "row_wise_adam": 9,
    "ftrl": 16,
    "rmsprop": 8,
    "rmsprop_momentum": 16,
    "rmsprop_centered": 16,
    "rmsprop_centered_momentum": 24,
}


@pytest.fixture(params=CASES)
def name(request):
    return request.param


def _row_with_state(table, keys):
    return table.read_rows(keys, with_state=True).numpy()


def _assert_follows(table, keys, twin):
    rows = _row_with_state(table, keys)
    np.testing.assert_allclose(rows[:, :DIM], twin.rows, **CLOSE)
    np.testing.assert_allclose(rows[:, DIM:], twin.state, **CLOSE)


def test_the_cases_are_all_rules():
    assert {rule for _, rule, _ in CASES.values()} == STATE_FLOATS.keys()
    with pytest.raises(ValueError) as error:
        get_rule("none of them")
    assert all(f"{rule}," in str(error.value) for rule in STATE_FLOATS)


def test_a_row_has_the_bytes_of_state_that_the_docstring_says(make_table, storage, name):
    table = make_table(storage, 8, rows=1000)
    table.lookup(np.arange(1000), insert=True)
    before = int(table.memory_bytes())
    optimizer_of(name).build([table])
    state = 4 * STATE_FLOATS[CASES[name][1]]
    assert int(table.statistics()["state_bytes"]) == 1000 * state
    grown = int(table.memory_bytes()) - before
    if storage == "unordered_map":  # each row is an allocation of its own
        assert grown == 1000 * state
    elif storage == "index":  # an array of input_dim rows a shard, which begins and ends at a cache line
        assert abs(grown - 1000 * state) <= 64 * 64
    else:  # rows have spare ones beside them
        assert 1000 * state <= grown <= 3000 * state


def test_rows_that_are_not_named_keep_every_bit_for_1000_steps(make_table, sorted_export, name, rng):
    """Rows and state of tables of all storages, of a plain row-wise variable and of another, with weight decay."""
    filled = [filled_table(make_table, storage, DIM, rng, name=storage) for storage in reference.STORAGES]
    tables, keys_of, _ = (list(column) for column in zip(*filled, strict=True))
    plain = [make_plain(rng.normal(size=(V, DIM)), path) for path in ("embeddings", "kernel")]
    variables, keys_of = [*tables, *plain], [*keys_of, np.arange(V), np.arange(V)]
    optimizer = optimizer_of(name, weight_decay=0.1)
    optimizer.build(variables)

    def apply(positions, grads):
        gradients = [tf.IndexedSlices(grads, tf.gather(keys, positions)) for keys in keys_of]
        optimizer.apply(gradients, variables)

    @tf.function
    def thousand_steps(positions, grads):
        for step in tf.range(1000):
            apply(positions[step], grads[step])

    def contents():
        """For every variable and slot of one: what belongs to the named rows, and to the others."""
        for table, keys in zip(tables, keys_of, strict=False):
            exported, rows = sorted_export(table)
            named = np.isin(exported, keys[: V // 2])
            yield rows[named], rows[~named]
        for variable in plain:
            slots = [optimizer.get_slot(variable, slot) for slot in optimizer.get_slot_names()]
            for array in (variable.numpy(), *[slot.numpy() for slot in slots]):
                yield array[: V // 2], array[V // 2 :]

    apply(np.arange(V), tf.constant(rng.normal(size=(V, DIM)), tf.float32))  # gives every row a state
    before = list(contents())
    thousand_steps(
        tf.constant(rng.integers(0, V // 2, (1000, 8))), tf.constant(rng.normal(size=(1000, 8, DIM)), tf.float32)
    )
    assert int(optimizer.iterations) == 1001
    for (named, others), (named_after, others_after) in zip(before, contents(), strict=True):
        assert others.tobytes() == others_after.tobytes()
        assert (named != named_after).reshape(V // 2, -1).any(1).all()


def test_state_grows_with_the_table_and_is_kept_when_rows_are_read(make_table, storage, name, rng):
    """Each step names new keys, and lookups read and insert others; the table grows from none to 1500 rows."""
    make, rule, hyperparameters = case_of(name)
    rows = 1500
    keys = reference.key_universe(storage, rows)
    table = make_table(storage, DIM, rows=rows, initializer="ones")
    optimizer = make(**hyperparameters)
    optimizer.build([table])
    twin = make_twin(np.ones((rows, DIM)), rule)
    initial = twin.state[-1:].copy()
    for step, (positions, grads) in enumerate(random_steps(rng, DIM, steps=6, batch=300, rows=200)):
        positions = positions + 200 * step  # of which the last step names some again
        positions[:50] = rng.integers(0, 200, 50)
        optimizer.apply([make_slices(grads, keys[positions])], [table])
        twin.apply(positions, grads, **hyperparameters)
        table.lookup(keys[: 200 * (step + 1)])
        table.lookup(keys[200 * step : 200 * step + 500], insert=True)
    assert int(table.size()) == rows
    _assert_follows(table, keys, twin)
    never_named = _row_with_state(table, keys[1200:])
    np.testing.assert_array_equal(never_named[:, :DIM], 1.0)
    np.testing.assert_array_equal(never_named[:, DIM:], np.repeat(initial.astype(np.float32), 300, 0))


def test_a_key_that_was_removed_begins_anew(make_table, storage, name, rng):
    make, rule, hyperparameters = case_of(name)
    keys = reference.key_universe(storage, V)
    table = make_table(storage, DIM, rows=V, initializer="ones")
    optimizer = make(**hyperparameters)
    optimizer.build([table])
    twin = make_twin(np.ones((V, DIM)), rule)
    initial = twin.state.copy()
    for _ in range(2):
        for positions, grads in random_steps(rng, DIM, steps=4, batch=100):
            optimizer.apply([make_slices(grads, keys[positions])], [table])
            twin.apply(positions, grads, **hyperparameters)
        _assert_follows(table, keys, twin)
        table.remove(keys[:20])
        twin.rows[:20], twin.state[:20] = 1.0, initial[:20]
        table.lookup(keys[:10], insert=True)  # half of them come back by a lookup, half by an update
        _assert_follows(table, keys, twin)


def test_a_new_optimizer_starts_from_fresh_state(make_table, storage, name, rng):
    make, rule, hyperparameters = case_of(name)
    table, keys, start = filled_table(make_table, storage, DIM, rng)
    first, second = make(**hyperparameters), make(**hyperparameters)
    for positions, grads in random_steps(rng, DIM, steps=4):
        first.apply([make_slices(grads, keys[positions])], [table])
    trained = table.lookup(keys).numpy()
    assert (trained != start).any()
    second.build([table])
    twin = make_twin(trained, rule)
    bound = _row_with_state(table, keys)
    np.testing.assert_array_equal(bound[:, :DIM], trained)
    np.testing.assert_array_equal(bound[:, DIM:], twin.state.astype(np.float32))
    for positions, grads in random_steps(rng, DIM, steps=4):
        second.apply([make_slices(grads, keys[positions])], [table])
        twin.apply(positions, grads, **hyperparameters)
    assert int(second.iterations) == 4
    _assert_follows(table, keys, twin)


@pytest.mark.parametrize("newer", ["the same rule", "another rule"])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_newest_binding_wins_and_an_update_by_an_older_one_is_an_error(make_table, name, newer, mode, rng):
    table, keys, _ = filled_table(make_table, "slab", DIM, rng)
    older = optimizer_of(name)
    newest = optimizer_of(name) if newer == "the same rule" else optimizer_of("Adam" if name != "Adam" else "SGD")
    slices = make_slices(np.ones((1, DIM)), keys[:1])
    step = tf.function(lambda: older.apply([slices], [table])) if mode == "graph" else older.apply
    arguments = () if mode == "graph" else ([slices], [table])
    older.build([table])
    step(*arguments)
    newest.build([table])
    before = _row_with_state(table, keys)
    with pytest.raises(tf.errors.FailedPreconditionError, match="bound"):
        step(*arguments)
    np.testing.assert_array_equal(_row_with_state(table, keys), before)
    newest.apply([slices], [table])
    after = _row_with_state(table, keys)
    assert (after[0] != before[0]).any()
    np.testing.assert_array_equal(after[1:], before[1:])
