"""EmbeddingUpdate: an update rule applied to the named rows in place, and nothing else."""

import numpy as np
import pytest
import reference
import tensorflow as tf

import tf_sparse_emb as tse

BAD_ARGUMENT = (ValueError, tf.errors.InvalidArgumentError)
HYPERPARAMETERS = {
    "sgd": {"learning_rate": 0.1},
    "row_wise_adagrad": {"learning_rate": 0.1, "epsilon": 1e-3},
    "row_wise_adam": {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
}


def _state_width(rule, dim):
    return {"sgd": 0, "row_wise_adagrad": 1, "row_wise_adam": dim + 1}[rule]


def _by_key(sorted_keys, rows, keys):
    return rows[np.searchsorted(sorted_keys, keys)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_rows_and_state_follow_the_formula(make_table, sorted_export, storage, dim, rule, weight_decay, rng):
    keys = reference.key_universe(storage, 40)
    table = make_table(storage, dim, rows=40)
    table.bind(rule)
    start = rng.normal(size=(keys.size, dim)).astype(np.float32)
    table.upsert(keys, start)
    twin = reference.TableTwin(start, rule)
    hyperparameters = HYPERPARAMETERS[rule] | {"weight_decay": weight_decay}
    for step in range(1, 6):
        positions = rng.permutation(keys.size)[:15]
        grads = rng.normal(size=(15, dim)).astype(np.float32)
        tse.ops.embedding_update(table, keys[positions], grads, rule, step=step, **hyperparameters)
        twin.apply(positions, grads, **hyperparameters)
    exported_keys, exported = sorted_export(table)
    assert exported.shape == (keys.size, dim + _state_width(rule, dim))
    got = _by_key(exported_keys, exported, keys)
    np.testing.assert_allclose(got[:, :dim], twin.rows, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[:, dim:], twin.state, rtol=1e-5, atol=1e-6)


def test_defaults_are_those_of_the_formula(make_table, hash_storage, rule):
    table = make_table(hash_storage, 3, initializer="zeros")
    table.bind(rule)
    twin = reference.TableTwin(np.zeros((2, 3)), rule)
    for step in range(1, 4):
        grads = np.array([[1.0, -2.0, 0.5], [0.1, 0.0, -0.2]], np.float32) * step
        tse.ops.embedding_update(table, [5, -5], grads, rule, step=step, learning_rate=0.01)
        twin.apply([0, 1], grads, learning_rate=0.01)
    np.testing.assert_allclose(table.lookup([5, -5]), twin.rows, rtol=1e-5, atol=1e-7)


def test_a_missing_key_is_created_from_its_initial_row_then_updated(make_table, hash_storage, dim):
    table = make_table(hash_storage, dim)
    table.bind("sgd")
    initial = table.lookup(reference.EXTREME_KEYS)
    grads = np.full((4, dim), 2.0, np.float32)
    tse.ops.embedding_update(table, reference.EXTREME_KEYS, grads, "sgd", learning_rate=0.5)
    assert int(table.size()) == 4
    np.testing.assert_allclose(table.lookup(reference.EXTREME_KEYS, missing="zeros"), initial - 1.0, rtol=1e-6)


def test_rows_that_are_not_named_do_not_change_in_any_bit(make_table, sorted_export, storage, rule, rng):
    keys = reference.key_universe(storage, 500)
    table = make_table(storage, 5, rows=500)
    table.bind(rule)
    table.lookup(keys, insert=True)
    for step in (1, 2):  # the state of all rows is no longer the initial one
        grads = rng.normal(size=(500, 5)).astype(np.float32)
        tse.ops.embedding_update(table, keys, grads, rule, step=step, **HYPERPARAMETERS[rule])
    _, before = sorted_export(table)
    named = keys[:100]
    grads = np.ones((100, 5), np.float32)
    tse.ops.embedding_update(table, named, grads, rule, step=3, weight_decay=0.5, **HYPERPARAMETERS[rule])
    exported_keys, after = sorted_export(table)
    is_named = np.isin(exported_keys, named)
    assert before[~is_named].tobytes() == after[~is_named].tobytes()
    assert (before[is_named, :5] != after[is_named, :5]).all()


def test_an_empty_batch_changes_nothing(make_table, sorted_export, storage, rule):
    table = make_table(storage, 3, rows=20)
    table.bind(rule)
    table.lookup(np.arange(10), insert=True)
    _, before = sorted_export(table)
    tse.ops.embedding_update(table, np.zeros(0, np.int64), np.zeros((0, 3), np.float32), rule, **HYPERPARAMETERS[rule])
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_it_runs_in_a_graph_in_program_order(make_table, storage):
    table = make_table(storage, 2, rows=10, initializer="zeros")
    table.bind("sgd")

    @tf.function
    def three_steps(grads):
        for i in range(3):
            tse.ops.embedding_update(table, tf.constant([1, 3], tf.int64), grads, "sgd", learning_rate=10.0**i)
        return table.lookup(tf.constant([1, 2, 3], tf.int64))

    rows = three_steps(tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(rows, [[-111, -222], [0, 0], [-333, -444]])


def test_hyperparameters_may_be_tensors(make_table, storage):
    table = make_table(storage, 2, rows=10, initializer="zeros")
    table.bind("row_wise_adam")
    twin = reference.TableTwin(np.zeros((1, 2)), "row_wise_adam")
    step = tf.Variable(0, dtype=tf.int64)
    rate = tf.Variable(0.0)
    grads = np.array([[1.0, -3.0]], np.float32)

    @tf.function
    def update():
        tse.ops.embedding_update(
            table, tf.constant([4], tf.int64), grads, "row_wise_adam", step=step, learning_rate=rate
        )

    for t, lr in enumerate([0.1, 0.02, 0.5], start=1):
        step.assign(t)
        rate.assign(lr)
        update()
        twin.apply([0], grads, learning_rate=lr)
    np.testing.assert_allclose(table.lookup([4]), twin.rows, rtol=1e-5)


def test_a_batch_large_enough_to_be_sharded(make_table, storage, rule, rng):
    keys = reference.key_universe(storage, 60_000)
    table = make_table(storage, 17, rows=keys.size, initializer="zeros")
    table.bind(rule)
    twin = reference.TableTwin(np.zeros((keys.size, 17)), rule)
    for step in (1, 2):
        grads = rng.normal(size=(keys.size, 17)).astype(np.float32)
        tse.ops.embedding_update(table, keys, grads, rule, step=step, **HYPERPARAMETERS[rule])
        twin.apply(np.arange(keys.size), grads, **HYPERPARAMETERS[rule])
    np.testing.assert_allclose(table.lookup(keys), twin.rows, rtol=1e-4, atol=1e-6)


def _bound_and_filled(make_table, storage, rule, **kwargs):
    table = make_table(storage, 3, rows=60, name="item", **kwargs)
    table.bind(rule)
    table.lookup(np.arange(50), insert=True)
    return table


@pytest.mark.parametrize("bad, word", [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_gradient_that_is_not_finite_is_refused(make_table, sorted_export, storage, rule, bad, word, mode):
    table = _bound_and_filled(make_table, storage, rule)
    _, before = sorted_export(table)
    grads = np.ones((5, 3), np.float32)
    grads[3, 2] = bad
    grads[4, 0] = np.nan

    def update():
        tse.ops.embedding_update(table, [7, 55, 1, 42, 3], grads, rule, **HYPERPARAMETERS[rule])

    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"grads\[3, 2\] is {word} \(key 42 of table 'item'\)"):
        (update if mode == "eager" else tf.function(update))()
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_check_finite_false_lets_them_through(make_table, storage, rule):
    table = _bound_and_filled(make_table, storage, rule)
    grads = np.full((1, 3), np.nan, np.float32)
    tse.ops.embedding_update(table, [42], grads, rule, check_finite=False, **HYPERPARAMETERS[rule])
    assert np.isnan(table.lookup([42])).all()
    assert np.isfinite(table.lookup([41, 43])).all()


def test_a_repeated_key_is_refused(make_table, sorted_export, storage, rule):
    table = _bound_and_filled(make_table, storage, rule)
    _, before = sorted_export(table)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)key.*\b17\b"):
        tse.ops.embedding_update(table, [1, 17, 2, 17], np.ones((4, 3), np.float32), rule, **HYPERPARAMETERS[rule])
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_a_broken_word_that_keys_differ_leaves_the_table_whole(make_table, storage, rule, rng):
    """What a repeated key's row becomes then is not defined; keys, index and the other rows are as ever."""
    names = reference.key_universe(storage, 30_000)
    table, honest = (make_table(storage, 3, rows=30_000) for _ in range(2))
    for bound in (table, honest):
        bound.bind(rule)
    grads = rng.normal(size=(60_000, 3)).astype(np.float32)
    keys, half = np.concatenate([names, names[:15_000], names[:15_000]]), slice(15_000, 30_000)
    options = HYPERPARAMETERS[rule]
    tse.ops.embedding_update(table, keys, grads, rule, keys_differ=True, **options)
    tse.ops.embedding_update(honest, names[half], grads[half], rule, keys_differ=True, **options)
    tse.check(table)
    assert int(table.size()) == 30_000
    np.testing.assert_array_equal(table.lookup(names[half]), honest.lookup(names[half]))


@pytest.mark.parametrize("bound_to", [None, "sgd", "row_wise_adam"])
def test_a_table_that_is_not_bound_to_the_rule_is_refused(make_table, sorted_export, storage, bound_to):
    table = make_table(storage, 3, rows=10)
    if bound_to:
        table.bind(bound_to)
    table.lookup(np.arange(5), insert=True)
    _, before = sorted_export(table)
    with pytest.raises(tf.errors.FailedPreconditionError, match="(?s)bound|bind"):
        tse.ops.embedding_update(table, [1], np.ones((1, 3), np.float32), "row_wise_adagrad", learning_rate=0.1)
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_an_update_beyond_max_rows_changes_nothing(make_table, sorted_export, hash_storage, rule):
    table = _bound_and_filled(make_table, hash_storage, rule, max_rows=51)
    _, before = sorted_export(table)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="max_rows|51"):
        tse.ops.embedding_update(table, [1, 100, 2, 101], np.ones((4, 3), np.float32), rule, **HYPERPARAMETERS[rule])
    np.testing.assert_array_equal(sorted_export(table)[1], before)


@pytest.mark.parametrize("storage_name", reference.STORAGES)
@pytest.mark.parametrize("bad", [-1, 60, 2**40])
def test_a_key_out_of_range_changes_nothing(sorted_export, storage_name, bad):
    table = tse.EmbeddingVariable(3, input_dim=60, storage=storage_name, seed=2)
    table.bind("sgd")
    table.lookup(np.arange(60), insert=True)
    _, before = sorted_export(table)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s)keys.*1.*{bad}"):
        tse.ops.embedding_update(table, [0, bad, 2], np.ones((3, 3), np.float32), "sgd", learning_rate=1.0)
    np.testing.assert_array_equal(sorted_export(table)[1], before)


BAD = {
    "grads_too_wide": ("grads", [1, 2], np.ones((2, 4), np.float32)),
    "grads_too_few": ("grads|keys", [1, 2], np.ones((1, 3), np.float32)),
    "grads_rank_1": ("grads", [1, 2, 3], np.ones(3, np.float32)),
    "keys_rank_2": ("keys", [[1], [2]], np.ones((2, 3), np.float32)),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_bad_shape_is_an_error_that_names_the_argument(make_table, sorted_export, storage, case, mode):
    name, keys, grads = BAD[case]
    table = _bound_and_filled(make_table, storage, "sgd")
    _, before = sorted_export(table)

    def update():
        tse.ops.embedding_update(table, keys, grads, "sgd", learning_rate=1.0)

    with pytest.raises(BAD_ARGUMENT, match=name):
        (update if mode == "eager" else tf.function(update))()
    np.testing.assert_array_equal(sorted_export(table)[1], before)


def test_an_unknown_rule_is_a_value_error_that_lists_the_rules(make_table, storage):
    table = make_table(storage, 3)
    with pytest.raises(ValueError, match="(?s)(?=.*sgd)(?=.*row_wise_adagrad)(?=.*row_wise_adam).*lion"):
        tse.ops.embedding_update(table, [1], np.ones((1, 3), np.float32), "lion", learning_rate=0.1)
    with pytest.raises(ValueError, match="(?s)(?=.*sgd)(?=.*row_wise_adagrad)(?=.*row_wise_adam).*lion"):
        table.bind("lion")


@pytest.mark.parametrize(
    "hyperparameters, name", [({}, "learning_rate"), ({"learning_rate": 1.0, "beta_3": 1.0}, "beta_3")]
)
def test_a_missing_or_unknown_hyperparameter_is_an_error_that_names_it(make_table, rule, hyperparameters, name):
    table = make_table("slab", 3)
    table.bind(rule)
    with pytest.raises((TypeError, ValueError), match=name):
        tse.ops.embedding_update(table, [1], np.ones((1, 3), np.float32), rule, **hyperparameters)


def test_a_decay_step_below_1_is_an_error_and_no_division_by_zero(make_table, hash_storage):
    table = make_table(hash_storage, 2)
    table.bind("adagrad_decay", initial_accumulator_value=0.1)
    for decay_step in (0.0, 0.5, -2.0):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"decay_step .* at least 1, got {decay_step:g}"):
            tse.ops.embedding_update(
                table, [7], [[1.0, 2.0]], "adagrad_decay", learning_rate=0.1, decay_step=decay_step
            )
    assert int(table.size()) == 0


def test_jit_compile_is_an_error_that_names_the_op(make_table, storage):
    table = make_table(storage, 3, rows=60)
    table.bind("sgd")

    @tf.function(jit_compile=True)
    def update(grads):
        tse.ops.embedding_update(table, tf.constant([1], tf.int64), grads, "sgd", learning_rate=1.0)
        return tf.reduce_sum(grads)

    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="EmbeddingUpdate"):
        update(tf.ones([1, 3]))
