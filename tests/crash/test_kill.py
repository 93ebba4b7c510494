"""A process that is killed while it saves: what it saved before is there, and whole.

CRASH_KILLS is the number of kills (`make test-crash` has 60), CRASH_SEED the seed of their moments.
"""

import multiprocessing
import os
import random
import time

import pytest
from savers import SAVERS, run

KILLS = int(os.environ.get("CRASH_KILLS", 10))


@pytest.fixture(scope="module")
def processes():
    """New processes that have TensorFlow imported; it runs no thread before its first op."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["savers"])
    return context


def _start(processes, name, folder):
    """(the process, its end of the pipe) once it trains."""
    receive, send = processes.Pipe(duplex=False)
    process = processes.Process(target=run, args=(name, str(folder), send), daemon=True)
    process.start()
    send.close()
    return process, receive


def _kill_at(process, receive, seconds):
    """Kills it so many seconds after it began to train; the steps that it has told of."""
    told = [receive.recv()]
    time.sleep(seconds)
    assert process.is_alive()
    process.kill()
    process.join()
    try:
        while True:
            told.append(receive.recv())
    except EOFError:
        return told


@pytest.mark.parametrize("name", SAVERS)
def test_what_was_saved_before_a_kill_is_there_and_whole(processes, name, tmp_path):
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(10**9)))
    print(f"\n{name}: CRASH_SEED={seed}")
    moments = random.Random(seed)
    saver = SAVERS[name](str(tmp_path))
    step, interrupted, most_left, loaded = 0, 0, 0, 0
    for kill in range(KILLS):
        process, receive = _start(processes, name, tmp_path)
        told = _kill_at(process, receive, moments.uniform(0, 0.4))
        assert told[0] == step, f"kill {kill}: the process found step {told[0]} where {step} had been found"

        saver = SAVERS[name](str(tmp_path))
        checkpoints = saver.checkpoints()
        steps = [saver.restore(checkpoint) for checkpoint in checkpoints]
        loaded += len(steps)
        assert steps == sorted(steps)
        step = steps[-1] if steps else 0
        assert told[-1] <= step <= told[-1] + 1, f"kill {kill}: steps {steps}, told of {told[-1]}"

        left = set(os.listdir(tmp_path)) - saver.files()
        interrupted += bool(left)
        most_left = max(most_left, len(left))
        strange = sorted(name for name in left if not saver.unfinished.fullmatch(name))
        assert not strange, f"kill {kill} left {strange}"
        assert len(left) <= saver.most_unfinished, f"kill {kill}: {sorted(left)}"
    print(
        f"{name}: {KILLS} kills, after {interrupted} of them unfinished files (at most {most_left}); {loaded} "
        f"checkpoints loaded, all whole; step {step}"
    )
    assert step > 0
