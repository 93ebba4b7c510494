"""The benchmarks time what they say: the twin is right, contestants that differ are refused, and turns are fair."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import contest, limits, report, training, twins  # noqa: E402
from benchmarks.contest import Contestant, ContestantError, interleave  # noqa: E402
from benchmarks.peers import din, keras_layers, ours, serving  # noqa: E402
from benchmarks.peers.growth import Growth  # noqa: E402
from benchmarks.training_task import TrainingTask, least_traffic, total_bytes  # noqa: E402

TASKS = {
    "unpooled": TrainingTask((50,), 3, batch=4, length=5, combiner=None, zipf=1.05, batches=3, constant=0.02),
    "mean": TrainingTask((50,), 17, batch=4, length=5, combiner="mean", zipf=1.05, batches=3, constant=0.02),
    "wide": TrainingTask((50, 3, 7), 4, batch=6, length=1, combiner="sum", zipf=1.05, batches=3, constant=0.02),
    "distinct": TrainingTask((50,), 8, batch=9, length=1, combiner=None, zipf=None, batches=3, constant=0.02),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def check(contestant, task, rule):
    """What the twin says of a contestant."""
    keys, targets = task.draw()
    got = contestant.check(task.as_json(), keys.tolist(), targets.tolist())
    return twins.difference(task, keys, targets, rule, got["losses"], got["rows"])


@pytest.mark.parametrize("rule", ["row_wise_adagrad", "row_wise_adam"])
def test_ours_passes_the_check(task, rule):
    assert check(ours.Training(None, rule, "slab"), task, rule) is None


def test_each_storage_of_ours_passes_the_check(storage):
    assert check(ours.Training(None, "row_wise_adagrad", storage), TASKS["mean"], "row_wise_adagrad") is None


@pytest.mark.parametrize(("name", "rule"), [("unpooled", "keras_adagrad"), ("wide", "keras_adam")])
def test_keras_passes_the_check(name, rule):
    assert check(keras_layers.Training(None, rule), TASKS[name], rule) is None


def test_another_rule_is_refused():
    wrong = check(ours.Training(None, "row_wise_adam", "slab"), TASKS["mean"], "row_wise_adagrad")
    assert wrong.startswith("losses are")


def test_a_wrong_row_is_named(task):
    keys, targets = task.draw()
    losses, rows = twins.train(task, keys, targets, "row_wise_adagrad")
    rows[-1][2, 1] += 1e-3
    assert twins.difference(task, keys, targets, "row_wise_adagrad", losses, rows).startswith(
        f"row 2 of feature {len(rows) - 1} has [1] ="
    )


def test_the_twins_gradient_is_that_of_its_loss(task, monkeypatch):
    """A step of plain descent changes each row by the finite difference of the loss."""
    monkeypatch.setitem(twins.RULES, "descent", twins.Rule(lambda row, state, g, *_: row - g, lambda dim: 0))
    keys, targets = task.draw()
    keys = keys[:1]
    (loss,), rows = twins.train(task, keys, targets, "descent")

    def loss_at(feature, key, d, value):
        tables = [np.full((size, task.dim), task.constant) for size in task.cardinalities]
        tables[feature][key, d] = value
        pooled = [table[of_feature] for table, of_feature in zip(tables, keys[0], strict=True)]
        reduce = np.sum if task.combiner == "sum" else np.mean
        return np.mean((np.concatenate([reduce(values, axis=1) for values in pooled], 1) - targets) ** 2)

    assert loss == pytest.approx(loss_at(0, 0, 0, task.constant))
    for feature, table in enumerate(rows):
        for key in (0, *keys[0, feature, 0]):
            up, down = (loss_at(feature, key, 1, task.constant + step) for step in (1e-4, -1e-4))
            assert task.constant - table[key, 1] == pytest.approx((up - down) / 2e-4, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize(
    ("rule", "twin", "settings"),
    [
        ("row_wise_adagrad", reference.row_wise_adagrad, {}),
        ("row_wise_adam", reference.row_wise_adam, {}),
        ("keras_adagrad", reference.adagrad, {}),
        ("tf_adagrad", reference.adagrad, {}),
        ("keras_adam", reference.adam, {}),
        ("torch_adagrad", reference.adagrad, {"epsilon": 1e-20}),
        ("torch_sparse_adam", reference.adam, {"epsilon": 1e-8}),
    ],
)
def test_rules_are_those_of_the_other_tests(rule, twin, settings, rng):
    """Of a key that comes once a step; torch's epsilon of 1e-10 is outside of the root."""
    dim, of_row = 5, {}
    row = rng.normal(size=dim)
    begin = 0.1 if rule in ("keras_adagrad", "tf_adagrad") else 0.0
    rows, state = row[None], np.full((1, twins.RULES[rule].state_width(dim)), begin)
    for step in (1, 2, 3):
        g = rng.normal(size=dim)
        row = twins.RULES[rule].apply(row, of_row, g, g**2, step, 0.01)
        rows, state = twin(rows, state, g[None], step, learning_rate=0.01, **settings)
    np.testing.assert_allclose(row, rows[0], rtol=1e-6)


def test_distinct_keys_differ_and_zipf_keys_repeat():
    keys, _ = TASKS["distinct"].draw()
    assert all(np.unique(batch).size == batch.size for batch in keys)
    skewed = dataclasses.replace(TASKS["mean"], cardinalities=(1000,), batch=100).draw()[0]
    _, counts = np.unique(skewed, return_counts=True)
    assert counts.max() > 20 * np.median(counts)


def test_least_traffic_counts_what_a_step_needs():
    keys = np.array([[[[1, 1], [2, 3]]]])  # a batch of one feature, two examples of two keys, three of which differ
    task = TrainingTask((10,), 4, batch=2, length=2, combiner=None, zipf=None)
    unpooled = least_traffic(task, keys, state_width=1)
    assert unpooled == {"streamed": 8 * 4 + 2 * 4 * 16, "read": (3, 16), "updated": (3, 20)}
    assert total_bytes(unpooled) == 160 + 3 * 16 + 2 * 3 * 20
    pooled = least_traffic(dataclasses.replace(task, combiner="mean"), keys, state_width=1)
    assert pooled["streamed"] == 8 * 4 + 2 * 4 * 8


# ---- turns ----


class Counted:
    """A contestant that has used `cpu` seconds of CPU time."""

    def __init__(self, name):
        self.name, self.cpu = name, 0.0

    def cpu_seconds(self):
        return self.cpu


@pytest.fixture
def clock(monkeypatch):
    """A machine on which nothing happens but what a test adds to "busy" and "now"."""
    times = {"busy": 0.0, "now": 0.0}
    monkeypatch.setattr(contest, "_busy_seconds", lambda: times["busy"])
    monkeypatch.setattr(contest.time, "perf_counter", lambda: times["now"])
    monkeypatch.setattr(contest.time, "sleep", lambda seconds: None)
    return times


def test_contestants_take_turns(clock):
    order = []

    def burst(contestant):
        clock["now"] += 1
        order.append(contestant.name)
        return [1.0]

    timed = interleave([Counted("a"), Counted("b")], 3, burst)
    assert order == ["a", "b"] * 3
    assert timed["a"] == {"steps": [1.0] * 3, "others": 0.0}


def test_bursts_beside_other_work_are_done_again_and_left_out(clock):
    bursts = []

    def burst(contestant):
        bursts.append(None)
        clock["now"] += 1
        clock["busy"] += 0.5 + (1.2 if len(bursts) <= 2 else 0.0)  # its own half second, and others'
        contestant.cpu += 0.5
        return [float(len(bursts))]

    timed = interleave([Counted("a")], 4, burst)["a"]
    assert timed["steps"] == [3, 4, 5, 6]
    assert timed["others"] == pytest.approx(0.0, abs=1e-9)


def test_a_machine_that_is_never_quiet_is_reported(clock):
    def burst(contestant):
        clock["now"] += 1
        clock["busy"] += 1.5
        contestant.cpu += 0.5
        return [1.0]

    timed = interleave([Counted("a")], 2, burst)["a"]
    assert len(timed["steps"]) == 4
    assert timed["others"] == pytest.approx(1.0)


def test_groups_fit_into_memory_beside_ours():
    entries = [training.ours(), training.KERAS_ADAM, training.KERAS_ADAGRAD, training.FBGEMM_ADAGRAD]
    rows, dim, memory = 20_000_000, 16, 14 * 2**30
    groups = training._groups(entries, rows, dim, memory)
    assert len(groups) > 1
    assert all(group[0] is entries[0] for group in groups)
    assert [entry for group in groups for entry in group[1:]] == entries[1:]
    for group in groups:
        needed = sum(training.PROCESS_BYTES + entry.row_bytes(dim) * rows for entry in group)
        assert len(group) == 2 or needed <= memory


def test_a_contestant_that_cannot_start_says_why():
    contestant = Contestant("nobody", sys.executable, peer="nobody", kind="Training", threads=1)
    with pytest.raises(ContestantError, match="nobody: ModuleNotFoundError: No module named 'benchmarks.peers.nobody'"):
        contestant.wait()
    contestant.close()


def test_ratios_are_to_ours_of_the_same_family():
    common = {"dim": 32, "threads": 2}
    slab = {"ours": True, "storage": "slab", "family": "adagrad", "median_ms": 2.0, **common}
    other = {"ours": True, "storage": "slab", "family": "adam", "median_ms": 4.0, **common}
    peer = {"ours": False, "storage": None, "family": "adam", "median_ms": 10.0, **common}
    assert report._ratio(peer, [slab, other, peer], "slab") == 2.5
    assert report._ratio(peer, [slab, other, peer], "index") is None


# ---- the other workloads, tiny ----


def test_growth_inserts_new_keys_and_trains(hash_storage):
    table = Growth(None, hash_storage, dim=4, batch=50)
    steps = table.run(steps=3)
    assert table.check() is None
    assert int(table.table.size()) == 150
    assert steps[-1][2] >= 4 * 5  # bytes a row
    table.train(steps=2)
    assert int(table.table.size()) == 150
    table.inserted += 1
    assert table.check() == "150 rows after 151 different keys"


@pytest.mark.parametrize(("storage", "tables"), [("slab", 1), ("slab", 3), ("index", 3)])
def test_served_values_are_the_rows(storage, tables):
    arguments = {"rows": 40, "dim": 4, "features": 3, "tables": tables}
    one = serving.Ours(None, storage=storage, **arguments)
    assert one.check() is None
    assert serving.Gather(None, **arguments).check() is None
    assert len(one.run(steps=2, batch=5, seed=1)) == 2
    assert one.run_loop(steps=3, batch=5, seed=1) > 0


def test_din_begins_with_the_same_loss_on_both_layers():
    sizes = {"user": 30, "item": 60, "category": 5}
    losses = {}
    for embedding, optimizer in (("tse", "row_wise_adam"), ("keras", "keras_adam")):
        log = {"seed": 1, "sizes": sizes, "examples": 40}
        one = din.Din(None, embedding, optimizer, dim=4, batch=8, log=log)
        losses[embedding] = one.loss()
        assert len(one.run(steps=2)) == 2
    assert losses["tse"] == pytest.approx(losses["keras"], rel=1e-5)


def test_limits_of_the_memory_are_plausible(tmp_path):
    memory = limits.Limits(tmp_path, threads=1, table_bytes=1 << 22)
    assert 0.5 < memory.copy_gb_per_second < 1000
    assert 0 < memory.read_ns(64) < 1000
    traffic = {"streamed": 0, "read": (1000, 64), "updated": (0, 64)}
    assert memory.milliseconds(traffic) == pytest.approx(memory.read_ns(64) / 1e3)
