"""A process that is killed while it saves: what it saved before is there, and whole.

CRASH_KILLS is the number of kills (`make test-crash` has 60).
"""

import contextlib
import multiprocessing
import os
import time

import pytest
from savers import SAVERS, run

KILLS = int(os.environ.get("CRASH_KILLS", 5))


@pytest.fixture(scope="module")
def processes():
    """New processes that have TensorFlow imported, which runs no threads before its first op."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tf_sparse_emb"])
    return context


def _train_and_kill(processes, name, folder, moments, saves):
    """(the step that the process found, the last one whose save it has told of)."""
    receive, send = processes.Pipe(duplex=False)
    process = processes.Process(target=run, args=(name, str(folder), send), daemon=True)
    process.start()
    send.close()
    _, found = receive.recv()
    saved, seconds = found, 0.05  # that a save takes
    for _ in range(saves):
        receive.recv()
        began = time.monotonic()
        _, saved = receive.recv()
        seconds = time.monotonic() - began
    receive.recv()  # "saving"
    time.sleep(moments.uniform(0, 1.3 * seconds))
    assert process.is_alive()
    process.kill()
    process.join()
    with contextlib.suppress(EOFError):
        while True:
            what, step = receive.recv()
            saved = step if what == "saved" else saved
    return found, saved


def _bytes(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("name", SAVERS)
def test_what_was_saved_before_a_kill_is_there_and_whole(processes, name, moments, tmp_path):
    saver = SAVERS[name](str(tmp_path))
    step, interrupted, most_left, loaded = 0, 0, 0, 0
    for kill in range(KILLS):
        saves = moments.randrange(3) or int(kill == KILLS - 1)  # before the one that is killed; one at least in all
        found, saved = _train_and_kill(processes, name, tmp_path, moments, saves)
        assert found == step, f"kill {kill}: the process found step {found} where {step} had been found"

        saver = SAVERS[name](str(tmp_path))
        checkpoints = saver.checkpoints()
        steps = [saver.restore(checkpoint) for checkpoint in checkpoints]
        loaded += len(steps)
        assert steps == sorted(steps)
        step = steps[-1] if steps else 0
        assert saved <= step <= saved + 1, f"kill {kill}: steps {steps} are there, step {saved} was saved"

        left = set(os.listdir(tmp_path)) - saver.files()
        strange = sorted(file for file in left if not saver.unfinished.fullmatch(file))
        assert not strange, f"kill {kill} left {strange}"
        interrupted += bool(left)
        most_left = max(most_left, sum(_bytes(tmp_path / file) for file in left))
        kept = sum(_bytes(tmp_path / file) for file in saver.files())
        # No more than what was written and what was deleted just then: what other kills have left is gone.
        assert not checkpoints or most_left < 2.5 * kept / len(checkpoints), f"kill {kill} left {sorted(left)}"
    print(
        f"{name}: {KILLS} kills, after {interrupted} of them unfinished files (at most {most_left / 1e6:.1f} MB); "
        f"{loaded} checkpoints loaded, all whole; step {step}"
    )
    assert step > 0
