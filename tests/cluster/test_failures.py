"""What becomes of a training when one of its processes is killed."""

import json
import os
import random
import time

import pytest
from cluster_processes import Cluster, result_of

SAVES_KILLED = 4


def _wait_for_step(notes, step, chief, timeout=200):
    """Waits until the chief has noted a step."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and chief.poll() is None:
        if notes.exists() and int(notes.read_text() or 0) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached\n{chief.communicate(timeout=5)}")


@pytest.mark.parametrize("dense", [[], ["SGD"]])
def test_two_workers_lose_no_update(tmp_path, dense):
    with Cluster(workers=2, servers=2) as cluster:
        result = cluster.run_chief("count", tmp_path / "notes", 300, *dense)
    assert result["steps"] == [300, 300, 300]
    assert set(result["iterations"]) == {300}


@pytest.mark.parametrize("comes_back", [False, True])
def test_training_goes_on_when_a_worker_is_killed(tmp_path, comes_back):
    notes = tmp_path / "notes"
    with Cluster(workers=2, servers=2) as cluster:
        chief = cluster.start_chief("count", notes, 600)
        _wait_for_step(notes, 100, chief)
        cluster.kill("worker", 1)
        if comes_back:
            _wait_for_step(notes, 150, chief)
            cluster.start("worker", 1)
        result = result_of(chief, 300)
    # What was under way on the killed worker is done again.
    assert all(600 <= steps <= 602 for steps in result["steps"])
    assert all(600 <= iterations <= 602 for iterations in result["iterations"])


def test_training_goes_on_when_all_workers_are_killed_and_one_comes_back(tmp_path):
    notes = tmp_path / "notes"
    with Cluster(workers=1, servers=1) as cluster:
        chief = cluster.start_chief("count", notes, 300)
        _wait_for_step(notes, 100, chief)
        cluster.kill("worker", 0)
        time.sleep(3)
        cluster.start("worker", 0)
        result = result_of(chief, 300)
    assert all(300 <= steps <= 302 for steps in result["steps"])


def test_a_worker_that_ends_before_its_result_has_come_is_no_error(tmp_path):
    with Cluster(workers=1, servers=1) as cluster:
        worker = cluster.pid("worker", 0)
        chief = cluster.start_chief("count_while_results_are_lost", tmp_path / "notes", 40, worker)
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
        time.sleep(3)
        cluster.start("worker", 0)
        result = result_of(chief, 300)
    assert all(40 <= steps <= 46 for steps in result["steps"])  # what was under way is done again


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with Cluster(workers=1, servers=2) as cluster:
        return cluster.run_chief("train_saving", folder / "notes", folder / "saves", 4)


def test_a_killed_server_stops_training_which_goes_on_from_the_last_save(tmp_path, uninterrupted):
    notes, saves = tmp_path / "notes", tmp_path / "saves"
    with Cluster(workers=1, servers=2) as cluster:
        chief = cluster.start_chief("train_saving", notes, saves, 4)
        _wait_for_step(notes, 30, chief)  # of 12 each epoch
        cluster.kill("ps", 1)
        lost = result_of(chief, 300)["lost"]
        assert "parameter server /job:ps/replica:0/task:1 does not answer any more" in lost
        assert f"it goes on from '{saves}/save-00000002'" in lost
        cluster.start("ps", 1)
        result = cluster.run_chief("train_saving", notes, saves, 4)
    assert result["content"] == uninterrupted["content"]
    for name, values in uninterrupted["history"].items():
        assert result["history"][name] == values[2:]


def test_a_killed_chief_goes_on_from_the_last_save(tmp_path, uninterrupted):
    notes, saves = tmp_path / "notes", tmp_path / "saves"
    with Cluster(workers=1, servers=2) as cluster:
        chief = cluster.start_chief("train_saving", notes, saves, 4)
        _wait_for_step(notes, 30, chief)
        chief.kill()
        chief.wait()
        result = cluster.run_chief("train_saving", notes, saves, 4)
    assert result["content"] == uninterrupted["content"]


def _lines(notes):
    """What was written to the end of its line."""
    text = notes.read_text() if notes.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize(("job", "index"), [("ps", 0), ("ps", 1), ("chief", 0)])
def test_a_process_killed_while_servers_save_leaves_the_last_save_whole(tmp_path, job, index):
    moments, saved = random.Random(f"{job}{index}"), 0
    with Cluster(workers=1, servers=2) as cluster:
        for kill in range(SAVES_KILLED + 1):
            notes = tmp_path / f"notes-{kill}"
            chief = cluster.start_chief("save_without_end", notes, tmp_path / "saves")
            saves = moments.randrange(1, 4)  # whole ones, before the one that is killed
            while len(lines := _lines(notes)) < 2 + 2 * saves and chief.poll() is None:
                time.sleep(0.001)
            assert chief.poll() is None, chief.communicate()
            assert saved <= lines[0]["step"] <= saved + 1, f"after kill {kill}: {lines[0]}, step {saved} was saved"
            assert lines[0]["problem"] == ""
            time.sleep(moments.uniform(0, 1.3 * lines[-2]["seconds"]))
            if job == "chief":
                chief.kill()
            else:
                cluster.kill(job, index)
            error = chief.communicate(timeout=200)[1]
            assert chief.returncode != 0
            if job != "chief":
                assert f"/job:{job}/replica:0/task:{index}" in error
                cluster.start(job, index)
            saved = max(line.get("saved", 0) for line in _lines(notes))
