"""DIN example: the models and the training command, with Keras embeddings where they serve."""

import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from din import data, generator, model, train
from din.activations import Dice
from din.attention import ATTENTIONS, LocalActivationUnit, MeanPooling
from din.dataset import padded_batch

import tf_sparse_emb as tse

VOCABULARY = {"user": 40, "item": 30, "category": 6}


def build(**options):
    keras.utils.set_random_seed(0)
    kind = "tse" if options.get("model") == "wide-deep" else "keras"  # pairs of ids have no vocabulary
    make_embedding, tables = train.embedding_factory(kind, VOCABULARY)
    return model.build_model(make_embedding, **{"embedding_dim": 4, **options}), tables


def random_batch(batch=5, positions=7, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(positions) < rng.integers(1, positions + 1, size=(batch, 1))
    mask[0] = True
    return {
        "user": rng.integers(1, 40, batch),
        "item": rng.integers(1, 30, batch),
        "category": rng.integers(1, 6, batch),
        "history_items": rng.integers(1, 30, (batch, positions)) * mask,
        "history_categories": rng.integers(1, 6, (batch, positions)) * mask,
        "history_mask": mask,
    }


def randomize(network, seed=1):
    """Weights, statistics and biases, but for those of dynamic tables, away from their initial zeros and ones."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        if not isinstance(weight, tse.EmbeddingVariable):
            weight.assign(rng.uniform(0.1, 1.0, weight.shape) - 0.4 * (weight.ndim > 1))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_local_activation_unit_is_the_mlp_over_query_key_difference_product(attention):
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(3, 4)).astype("float32"), rng.normal(size=(3, 5, 4)).astype("float32")
    mask = np.arange(5) < np.array([[5], [2], [0]])
    unit = LocalActivationUnit(attention, hidden=(6, 3))
    unit.build(query.shape, keys.shape, mask.shape)
    randomize(unit)
    actual = keras.ops.convert_to_numpy(unit(query, keys, mask))

    (w1, b1, w2, b2, w3, b3) = unit.get_weights()
    tiled = np.repeat(query[:, None], 5, axis=1)
    features = np.concatenate([tiled, keys, tiled - keys, tiled * keys], axis=-1)
    weights = (sigmoid(sigmoid(features @ w1 + b1) @ w2 + b2) @ w3 + b3)[..., 0]
    if attention == "softmax":
        weights = np.where(mask, np.exp(weights / np.sqrt(4)), 0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    expected = np.einsum("bt,btw->bw", weights * mask, keys)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(actual[2], np.zeros(4))


def test_mean_pooling_counts_the_history_alone():
    keys = np.arange(12, dtype="float32").reshape(2, 3, 2)
    mask = np.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(MeanPooling()(keys, mask), [[1.0, 2.0], [0.0, 0.0]])


def test_dice_formula_with_batch_statistics_in_training_and_moving_averages_in_test():
    s = np.random.default_rng(0).normal(2.0, 3.0, (64, 5)).astype("float32")
    dice = Dice()
    dice.build(s.shape)
    np.testing.assert_array_equal(dice.alpha, np.zeros(5))
    alpha = np.linspace(-1, 1, 5).astype("float32")
    dice.alpha.assign(alpha)

    def formula(mean, variance):
        p = sigmoid((s - mean) / np.sqrt(variance + 1e-8))
        return p * s + (1 - p) * alpha * s

    np.testing.assert_allclose(dice(s, training=True), formula(s.mean(axis=0), s.var(axis=0)), rtol=1e-4, atol=1e-5)
    moving_mean = 0.01 * s.mean(axis=0)
    moving_variance = 0.99 + 0.01 * s.var(axis=0)
    np.testing.assert_allclose(dice(s, training=False), formula(moving_mean, moving_variance), rtol=1e-4, atol=1e-5)


def test_batch_norm_gives_history_and_candidate_the_same_statistics():
    rng = np.random.default_rng(0)
    history, candidate = rng.normal(5, 2, (256, 3)), rng.normal(-1, 1, (256, 3))
    normalized = model.SharedBatchNormalization()(history, candidate, training=True)
    both = np.concatenate([history, candidate])
    expected = [(part - both.mean(axis=0)) / np.sqrt(both.var(axis=0) + 1e-3) for part in (history, candidate)]
    np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "attention", "activation"),
    [
        ("base", "softmax", "sigmoid"),
        ("wide-deep", "softmax", "dice"),
        ("pnn", "softmax", "prelu"),
        ("din", "softmax", "dice"),
        ("din", "plain", "prelu"),
        ("dien", "softmax", "dice"),
    ],
)
def test_padding_changes_no_logit(name, attention, activation):
    network, _ = build(model=name, attention=attention, activation=activation, user_table=True)
    randomize(network)
    batch = random_batch()
    logits = network.predict(batch, verbose=0)
    assert logits.shape == (5, 1)
    assert logits.std() > 1e-3

    padding = np.ones((5, 4), np.int64)  # a real item's id: only the mask tells padding
    padded = dict(batch)
    padded["history_items"] = np.concatenate([batch["history_items"], padding], axis=1)
    padded["history_categories"] = np.concatenate([batch["history_categories"], padding], axis=1)
    padded["history_mask"] = np.concatenate([batch["history_mask"], padding == 0], axis=1)
    np.testing.assert_allclose(network.predict(padded, verbose=0), logits, rtol=1e-4, atol=1e-5)


def test_candidate_and_history_share_one_table_per_column():
    _, tables = build(user_table=True, item_bias=True)
    shapes = sorted(tuple(table.embeddings.shape) for table in tables)
    assert shapes == [(6, 4), (30, 1), (30, 4), (40, 4)]


@pytest.mark.parametrize(("batch_norm", "user_table", "item_bias"), list(itertools.product([False, True], repeat=3)))
def test_every_flag_builds_every_model(batch_norm, user_table, item_bias):
    for name in model.MODELS:
        flags = {"batch_norm": batch_norm, "user_table": user_table, "item_bias": item_bias}
        network, tables = build(model=name, hidden=(200, 80), **flags)
        assert network(random_batch()).shape == (5, 1)
        assert len(tables) == 2 + user_table + item_bias + (name == "wide-deep")


def test_the_wide_part_is_the_mean_of_the_weights_of_the_category_pairs():
    network, tables = build(model="wide-deep")
    (weights,) = [table for table in tables if table.name == "pair_weights"]
    batch = random_batch()
    deep = network.predict(batch, verbose=0)[:, 0]
    pairs = np.array(model.PairIds()(batch["category"], batch["history_categories"]))
    distinct = np.unique(pairs)
    weight_of = dict(zip(distinct.tolist(), np.linspace(1, 9, len(distinct)), strict=True))
    weights.embeddings.upsert(distinct, np.float32(list(weight_of.values()))[:, None])
    expected = [
        np.mean([weight_of[pair] for pair in of_example[valid].tolist()])
        for of_example, valid in zip(pairs, batch["history_mask"], strict=True)
    ]
    np.testing.assert_allclose(network.predict(batch, verbose=0)[:, 0] - deep, expected, rtol=1e-4, atol=1e-5)


def test_pnn_sees_the_products_of_candidate_and_history():
    """Of the four fields, candidate item and category, history item and category, in this order."""
    network, _ = build(model="pnn", batch_norm=False)
    batch = random_batch()
    part = keras.Model({one.name: one for one in network.inputs}, network.get_layer("products").output)
    items, categories = (network.get_layer(name).get_weights()[0] for name in ("item_table", "category_table"))
    fields = []
    for b in range(5):
        valid = batch["history_mask"][b]
        fields.append(
            [
                items[batch["item"][b]],
                categories[batch["category"][b]],
                items[batch["history_items"][b][valid]].mean(axis=0),
                categories[batch["history_categories"][b][valid]].mean(axis=0),
            ]
        )
    expected = [[one[i] @ one[j] for i in range(4) for j in range(i + 1, 4)] for one in fields]
    np.testing.assert_allclose(part.predict(batch, verbose=0), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gru"}, "model must be one of base, wide-deep, pnn, din, dien, got 'gru'"),
        ({"attention": "dot"}, "attention must be one of softmax, plain, got 'dot'"),
        ({"activation": "relu"}, "activation must be one of dice, prelu, sigmoid, got 'relu'"),
    ],
)
def test_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("training", [False, True])
def test_din_is_the_din_of_the_reference_in_pytorch(training):
    """From the same weights: golden/torch_din.json holds its logits."""
    golden = json.loads((Path(__file__).parent / "golden" / "torch_din.json").read_text())
    make_embedding, _ = train.embedding_factory("keras", golden["num_rows"])
    network = model.build_model(make_embedding, embedding_dim=golden["dim"], hidden=golden["hidden"])
    of_kind = {kind: [one for one in network.layers if type(one) is kind] for kind in (keras.layers.Dense, Dice)}
    first, second, logits = of_kind[keras.layers.Dense]
    named = [network.get_layer(name) for name in ("item_table", "category_table", "attention", "batch_norm")]
    layers = [*named, first, of_kind[Dice][0], second, of_kind[Dice][1], logits, network.get_layer("item_bias")]
    rng = np.random.default_rng(golden["seed"])
    for weight in (weight for layer in layers for weight in layer.weights):
        weight.assign(rng.uniform(0.1, 1.0, weight.shape) - 0.4 * (weight.ndim > 1))
    batch = {name: np.array(values) for name, values in golden["batch"].items()}
    expected = golden["logits_in_training" if training else "logits"]
    np.testing.assert_allclose(network(batch, training=training)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_labels_of_rank_one_meet_logits_of_rank_two():
    """The loss is the mean over the examples, not over all pairs of a label and a logit."""
    network, _ = build()
    network.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    batch, labels = random_batch(), np.array([1, 0, 0, 1, 0], np.float32)
    logits = network.predict(batch, verbose=0)[:, 0]
    expected = np.mean(np.log1p(np.exp(logits)) - labels * logits)
    assert network.evaluate(batch, labels, verbose=0) == pytest.approx(expected, rel=1e-5)


# ---- the command ----

SMALL = generator.Config(users=300, items=200, parents=3, leaves_per_parent=3, impressions=8, held_out=3)


@pytest.fixture
def small_generated(monkeypatch):
    dataset = generator.generate(1, config=SMALL)
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    return dataset


def run(capsys, *arguments):
    result = train.main(["--embedding", "keras", "--optimizer", "keras_adam", "--verbose", "0", *arguments])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == "RESULT " + json.dumps(result)
    return result, lines


def test_training_ends_with_a_result_line_that_repeats(small_generated, capsys):
    arguments = ("--embedding-dim", "4", "--epochs", "1", "--seed", "3")
    result, lines = run(capsys, *arguments)
    assert any("at most" in line for line in lines)  # the ceiling, beside the model's AUC
    expected = {"dataset": "generated", "model": "din", "optimizer": "keras_adam", "seed": 3, "split": "test"}
    assert expected.items() <= result.items()
    assert 0.4 < result["auc"] <= 1.0
    assert 0.4 < result["gauc"] <= 1.0
    rows = small_generated.reindexed()[1]
    assert result["table_rows"] == 2 * rows["item"] + rows["category"]  # with the item bias
    assert result["table_bytes"] == 4 * (4 * rows["item"] + 4 * rows["category"] + rows["item"])

    again, _ = run(capsys, *arguments)
    timings = ("seconds", "examples_per_second")
    assert [value for key, value in result.items() if key not in timings] == [
        value for key, value in again.items() if key not in timings
    ]


@pytest.mark.parametrize("optimizer", ["row_wise_adam", "row_wise_adagrad", "adam", "sgd"])
def test_dynamic_tables_hold_the_ids_of_the_training_examples(small_generated, capsys, optimizer):
    arguments = ["--optimizer", optimizer, "--embedding-dim", "4", "--verbose", "0"]
    result = train.main(arguments)
    assert capsys.readouterr().out.strip().splitlines()[-1] == "RESULT " + json.dumps(result)

    examples = small_generated.train
    inputs, _ = padded_batch(small_generated, examples)
    assert not inputs["history_mask"].all()  # so the padding has a row as well
    items = np.unique(np.concatenate([examples.items, inputs["history_items"].reshape(-1)]))
    categories = np.unique(np.concatenate([examples.categories, inputs["history_categories"].reshape(-1)]))
    item_biases = np.unique(examples.items)
    assert result["table_rows"] == len(items) + len(categories) + len(item_biases)
    assert result["table_bytes"] >= 4 * (4 * len(items) + 4 * len(categories) + len(item_biases))


def test_dien_trains_with_its_auxiliary_loss(small_generated, capsys):
    result = train.main(["--model", "dien", "--embedding-dim", "4", "--verbose", "0"])
    assert result["model"] == "dien"
    assert result["auc"] > 0.5
    network, _ = train.make_model(train.parse_arguments(["--model", "dien", "--embedding-dim", "4"]))
    alone, _ = train.make_model(
        train.parse_arguments(["--model", "dien", "--embedding-dim", "4", "--auxiliary-weight", "0"])
    )
    inputs, _ = padded_batch(small_generated, small_generated.train[:16])
    for one, count in ((network, 1), (alone, 0)):
        one(inputs, training=True)
        assert len(one.losses) == count


def test_regularization_is_of_the_item_and_category_tables(small_generated):
    options = train.parse_arguments(["--mini-batch-regularization", "0.01", "--embedding-dim", "4"])
    network, tables = train.make_model(options, occurrences=train.count_occurrences(small_generated))
    inputs, labels = padded_batch(small_generated, small_generated.train[:16])
    network(inputs, training=True)
    expected = []
    for table, column in zip(tables[:2], ("items", "categories"), strict=True):
        candidates = {"items": inputs["item"], "categories": inputs["category"]}[column]
        named = np.unique(np.concatenate([candidates, inputs[f"history_{column}"][inputs["history_mask"]]]))
        everything, _ = padded_batch(small_generated, small_generated.train)
        every_candidate = {"items": everything["item"], "categories": everything["category"]}[column]
        every_click = everything[f"history_{column}"][everything["history_mask"]]
        ids, counts = np.unique(np.concatenate([every_candidate, every_click]), return_counts=True)
        rates = 0.01 / counts[np.searchsorted(ids, named)]
        rows = np.array(table.embeddings.lookup(named))
        expected.append(np.sum(rates[:, None] * rows**2) / 2)
    np.testing.assert_allclose(network.losses, expected, rtol=1e-4)
    assert network.fit(inputs, labels, verbose=0).history["loss"][0] > 0


def test_more_evaluations_give_a_curve_and_change_nothing(small_generated, capsys):
    arguments = ("--embedding-dim", "4", "--seed", "3")
    once, _ = run(capsys, *arguments)
    result, _ = run(capsys, *arguments, "--evaluations-per-epoch", "4")
    assert len(result["curve"]) == 4
    assert result["cpu_seconds"] > 0
    seconds, aucs, _ = zip(*result["curve"], strict=True)
    assert sorted(seconds) == list(seconds)
    assert (result["auc"], result["gauc"]) == tuple(result["curve"][-1][1:]) == (once["auc"], once["gauc"])
    assert len(set(aucs)) > 1


def test_the_learning_rate_decays_in_steps():
    flags = ["--optimizer", "sgd", "--embedding-dim", "4"]
    network, _ = train.make_model(train.parse_arguments(flags))
    schedule = network.optimizer._learning_rate
    assert [float(schedule(step)) for step in (0, 335_999, 336_000)] == pytest.approx([1.0, 1.0, 0.1])
    assert network.optimizer.global_clipnorm == 5.0
    network, _ = train.make_model(train.parse_arguments([*flags, "--decay-rate", "0.5", "--decay-steps", "10"]))
    assert [float(network.optimizer._learning_rate(step)) for step in (9, 10, 20)] == pytest.approx([1.0, 0.5, 0.25])


def test_tied_logits_are_refused_under_the_published_protocol():
    dataset = data.leave_one_out([np.array([0, 1, 2]), np.array([2, 1, 0])], np.zeros(6, np.int64))
    network, _ = build()
    network.set_weights([np.zeros(weight.shape) for weight in network.get_weights()])
    evaluation = train.Evaluation(dataset, "test", published_protocol=True)
    evaluation.set_model(network)
    evaluation.on_epoch_begin(0)
    with pytest.raises(ValueError, match="2 users have equal logits"):
        evaluation.on_epoch_end(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "sports"], "--dataset sports needs --data-dir"),
        (["--optimizer", "keras_adam"], "cannot train tse tables, add --embedding keras"),
        (["--epochs", "0"], "must be at least 1, got 0"),
        (["--embedding", "keras", "--model", "wide-deep"], "--model wide-deep needs --embedding tse"),
        (["--embedding", "keras", "--mini-batch-regularization", "0.1"], "needs --embedding tse"),
        (["--decay-rate", "0.1"], "--decay-rate and --decay-steps need each other"),
    ],
)
def test_impossible_flags_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        train.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_defaults_depend_on_dataset_and_optimizer():
    options = train.parse_arguments(["--dataset", "sports", "--data-dir", "x", "--optimizer", "sgd"])
    assert options.epochs == train.EPOCHS["sports"]
    assert options.learning_rate == train.LEARNING_RATES["sgd"]
    assert set(train.EPOCHS) == set(data.NAMES)
