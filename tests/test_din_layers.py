"""DIN example: the layers of the models beside DIN, against slow NumPy twins."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from din.attention import LocalActivationUnit
from din.crosses import InnerProducts, PairIds
from din.dataset import Examples
from din.evolution import AttentionalGRU, InterestEvolution, NextClickLoss
from din.regularization import MiniBatchAwareRegularization, occurrences

import tf_sparse_emb as tse


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_floats(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def augru(inputs, attention, weights):
    """The states after each position, one number at a time."""
    kernel, bias, recurrent = weights
    batch, positions, width = inputs.shape
    states = np.zeros((batch, positions + 1, width))
    for b, t in itertools.product(range(batch), range(positions)):
        x, h = inputs[b, t], states[b, t]
        for unit in range(width):
            of_x = [x @ kernel[:, gate * width + unit] + bias[gate * width + unit] for gate in range(3)]
            of_h = [h @ recurrent[:, gate * width + unit] for gate in range(3)]
            update = attention[b, t] * sigmoid(of_x[0] + of_h[0])
            reset = sigmoid(of_x[1] + of_h[1])
            candidate = np.tanh(of_x[2] + reset * of_h[2])
            states[b, t + 1, unit] = (1 - update) * h[unit] + update * candidate
    return states[:, 1:]


@pytest.mark.parametrize("return_sequences", [False, True])
def test_augru_gates_its_updates_by_attention(rng, return_sequences):
    inputs, attention = random_floats(rng, 3, 5, 4), rng.uniform(0, 1, (3, 5)).astype("float32")
    attention[0, 2:] = 0  # padding
    layer = AttentionalGRU(return_sequences)
    layer.build(inputs.shape, attention.shape)
    layer.set_weights([random_floats(rng, *weight.shape) for weight in layer.get_weights()])
    expected = augru(inputs, attention, layer.get_weights())
    actual = layer(inputs, attention)
    np.testing.assert_allclose(actual, expected if return_sequences else expected[:, -1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(expected[0, 1], expected[0, -1])


def test_augru_with_attention_one_is_the_gru_of_keras(rng):
    inputs = random_floats(rng, 3, 5, 4)
    ours, theirs = AttentionalGRU(return_sequences=True), keras.layers.GRU(4, return_sequences=True)
    ours.build(inputs.shape, inputs.shape[:2])
    theirs.build(inputs.shape)
    kernel, bias, recurrent = (random_floats(rng, *weight.shape) for weight in ours.get_weights())
    ours.set_weights([kernel, bias, recurrent])
    # Keras' update gate keeps the old state where ours takes the new one: 1 - sigmoid(s) = sigmoid(-s).
    sign = np.repeat([-1, 1, 1], 4).astype("float32")
    theirs.set_weights([kernel * sign, recurrent * sign, np.stack([bias * sign, np.zeros(12)])])
    np.testing.assert_allclose(ours(inputs, np.ones((3, 5), "float32")), theirs(inputs), rtol=1e-4, atol=1e-5)


def next_click_loss(states, keys, items, valid):
    """The auxiliary loss, position by position; the loss's own definition of what is left out."""
    batch, positions = valid.shape
    positive, negative = [], []
    for b, t in itertools.product(range(batch), range(positions - 1)):
        other = (b + 1) % batch
        if valid[b, t + 1]:
            positive.append(-np.log(sigmoid(states[b, t] @ keys[b, t + 1])))
            if valid[other, t + 1] and items[other, t + 1] != items[b, t + 1]:
                negative.append(-np.log(1 - sigmoid(states[b, t] @ keys[other, t + 1])))
    return (np.mean(positive) if positive else 0) + (np.mean(negative) if negative else 0)


def test_next_click_loss_compares_the_next_click_with_that_of_another_example(rng):
    states, keys = random_floats(rng, 4, 6, 3), random_floats(rng, 4, 6, 3)
    items = rng.integers(0, 3, (4, 6))  # often the same
    valid = np.arange(6) < np.array([[6], [3], [1], [5]])
    layer = NextClickLoss(weight=0.5)
    out = layer(states, keys, items, valid, training=True)
    np.testing.assert_array_equal(out, states)
    np.testing.assert_allclose(layer.losses[0], 0.5 * next_click_loss(states, keys, items, valid), rtol=1e-5)
    single = np.arange(6) < np.array([[1]] * 4)
    np.testing.assert_array_equal(NextClickLoss.loss(states, keys, items, single), 0)


def test_next_click_loss_is_of_training_alone(rng):
    states = random_floats(rng, 2, 3, 2)
    layer = NextClickLoss()
    layer(states, states, np.ones((2, 3), np.int64), np.ones((2, 3), bool), training=False)
    assert layer.losses == []


def test_interest_evolution_is_gru_then_attention_then_augru(rng):
    query, keys = random_floats(rng, 3, 4), random_floats(rng, 3, 5, 4)
    valid = np.arange(5) < np.array([[5], [2], [0]])
    items = rng.integers(0, 9, (3, 5))
    attention = LocalActivationUnit(hidden=(6, 3))
    layer = InterestEvolution(attention)
    layer.build(query.shape, keys.shape, items.shape, valid.shape)
    layer.set_weights([random_floats(rng, *weight.shape) for weight in layer.get_weights()])
    states = augru(keys, np.ones((3, 5)), layer.extraction.get_weights()).astype("float32")
    weights = np.array(attention.weights_of(query, states, valid))
    expected = augru(states, weights, layer.evolution.get_weights())[:, -1]
    actual = layer(query, keys, items, valid)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(actual[2], np.zeros(4))  # of an empty history


def test_inner_products_are_of_all_pairs_of_fields(rng):
    fields = random_floats(rng, 3, 4, 5)
    expected = [[row[i] @ row[j] for i in range(4) for j in range(i + 1, 4)] for row in fields]
    np.testing.assert_allclose(InnerProducts()(fields), expected, rtol=1e-5, atol=1e-6)


def test_pair_ids_differ_for_pairs_that_differ():
    candidates = np.array([0, 1, 2**62, -5, 958])
    history = np.tile([0, 1, 2, -1, 2**40, 958], (5, 1))
    pairs = PairIds()(candidates, history)
    assert pairs.dtype == tf.int64
    assert len(np.unique(pairs)) == history.size
    np.testing.assert_array_equal(PairIds()(candidates[::-1], history)[::-1], pairs)


LOG = np.array([7, 8, 7, 9, 2**50, 8])


def examples_of(candidates, starts, lengths):
    zeros = np.zeros(len(candidates), np.int64)
    return Examples(zeros, candidates, zeros, np.array(starts), np.array(lengths), np.zeros(len(candidates)))


def test_occurrences_count_candidates_and_every_history_they_are_in():
    candidates, starts, lengths = np.array([9, 7, 3]), [0, 1, 4], [3, 3, 0]
    counts = {}
    for candidate, start, length in zip(candidates, starts, lengths, strict=True):
        for key in [candidate, *LOG[start : start + length]]:
            counts[int(key)] = counts.get(int(key), 0) + 1
    ids, times = occurrences(LOG, candidates, examples_of(candidates, starts, lengths))
    assert dict(zip(ids.tolist(), times.tolist(), strict=True)) == counts
    assert 2**50 not in counts  # it is in the log and in no example


@pytest.mark.parametrize("learning_rate", [0.5, 1.0])
def test_sgd_takes_off_the_papers_term_of_each_distinct_row_of_the_batch(learning_rate):
    table = tse.Embedding(None, 3, seed=1)
    strength, counts = 0.3, {7: 4, 8: 1, 9: 2, 2**50: 5}
    layer = MiniBatchAwareRegularization(strength, table, np.array(list(counts)), np.array(list(counts.values())))
    keys = np.array([7, 8, 9, 2**50, 11])
    table.build()
    table.embeddings.upsert(keys, np.arange(1, 16, dtype=np.float32).reshape(5, 3))
    before = np.array(table.embeddings.lookup(keys))
    optimizer = tse.optimizers.SGD(learning_rate)
    optimizer.build([table.embeddings])
    candidates, history = np.array([7, 11]), np.array([[8, 7, 7], [2**50, 9, 9]])
    valid = np.array([[True, True, True], [True, False, False]])
    logits = np.zeros((2, 1), np.float32)
    with tf.GradientTape() as tape:
        out = layer(logits, candidates, history, valid, training=True)
        loss = tf.add_n(layer.losses)
    np.testing.assert_array_equal(out, logits)
    rates = np.array([strength / 4, strength / 1, 0, strength / 5, 0])  # 9 is padding, 11 not counted
    np.testing.assert_allclose(loss, np.sum(rates[:, None] * before**2) / 2, rtol=1e-5)
    optimizer.apply(tape.gradient(loss, [table.embeddings.value]), [table.embeddings])
    after = np.array(table.embeddings.lookup(keys))
    np.testing.assert_allclose(after, before * (1 - learning_rate * rates[:, None]), rtol=1e-5)


def test_regularization_is_of_training_alone():
    table = tse.Embedding(None, 3)
    table.build()
    layer = MiniBatchAwareRegularization(0.1, table, np.array([7]), np.array([2]))
    layer(np.zeros((1, 1)), np.array([7]), np.array([[7]]), np.array([[True]]), training=False)
    assert layer.losses == []
