"""DIN on a cluster of processes: what it computes, and that it leaves nothing behind."""

import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from din import train, train_ps

PROGRAM = pathlib.Path(train_ps.__file__)


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Those of a small log in the files of video-games."""
    folder, rng = tmp_path_factory.mktemp("log"), np.random.default_rng(1)
    clicks = [(user, rng.integers(200), day) for user in range(60) for day in range(rng.integers(3, 12))]
    with gzip.open(folder / "amazon_video_games_user_item_day.tsv.gz", "wt") as file:
        file.writelines(f"{user}\t{item}\t{day}\n" for user, item, day in clicks)
    with gzip.open(folder / "amazon_video_games_item_cate.txt.gz", "wt") as file:
        file.writelines(f"{item % 7}\n" for item in range(200))
    return ["--dataset", "video-games", "--data-dir", str(folder), "--embedding-dim", "4", "--batch-size", "64"]


class Command:
    """The command in a process of its own; its processes are known by a mark in their environment."""

    def __init__(self, tmp_path, flags):
        self.mark = f"TSE_TEST={uuid.uuid4()}"
        name, value = self.mark.split("=")
        # TensorFlow imports what AutoGraph writes there, and Python would leave a folder beside it.
        clean = {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, *flags],
            env={**os.environ, **clean, name: value, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What runs in the background of a shell ignores it, and so would this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def output(self):
        """What it printed, and where it failed, once it has ended."""
        try:
            return self.process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            self.process.kill()  # and so its processes
            out, error = self.process.communicate()
            raise AssertionError(f"the command has not ended after 300 s\n{out[-2000:]}\n{error[-4000:]}") from None

    def alive(self):
        """The command lines of its processes, zombies aside."""
        lines = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has ended meanwhile, or is of another user
                continue
        return lines

    def wait_for_all(self):
        """Waits until none of its processes is left."""
        deadline = time.monotonic() + 60
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.alive() == []


def test_one_worker_and_one_server_end_as_one_process_does_and_leave_nothing(flags, tmp_path, capsys):
    command = Command(tmp_path, [*flags, "--workers", "1", "--servers", "1", "--epochs", "2"])
    out, error = command.output()
    assert command.process.returncode == 0, error[-4000:]
    assert "E0000" not in error
    command.wait_for_all()
    assert list(tmp_path.iterdir()) == []
    cluster = json.loads(out.strip().splitlines()[-1].removeprefix("RESULT "))
    assert (cluster.pop("workers"), cluster.pop("servers"), cluster.pop("wire_dtype")) == (1, 1, "float32")

    one = train.main([*flags, "--epochs", "2", "--verbose", "0"])
    for name in ("seconds", "examples_per_second"):
        one.pop(name), cluster.pop(name)
    assert cluster == one


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_no_process_outlives_the_command(flags, tmp_path, number):
    command = Command(tmp_path, [*flags, "--workers", "1", "--servers", "1", "--epochs", "50"])
    assert command.process.stdout.readline().startswith("options: ")
    assert len(command.alive()) == 3  # the command, a worker and a server
    folders = []  # of batches, which come when the cluster is connected
    deadline = time.monotonic() + 100
    while not folders and time.monotonic() < deadline:
        folders = [path for path in tmp_path.iterdir() if path.is_dir()]
        time.sleep(0.05)
    assert folders
    deadline = time.monotonic() + 100
    while command.process.poll() is None and time.monotonic() < deadline:
        command.process.send_signal(number)  # again: Python drops a KeyboardInterrupt that is raised in a destructor
        time.sleep(1)
    assert command.process.wait(timeout=1) != 0
    command.wait_for_all()
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]  # of batches
    assert len(folders) == (number == signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (["--embedding", "keras"], None, "--embedding keras is for one machine: use train.py"),
        (["--evaluations-per-epoch", "2"], None, "--evaluations-per-epoch are for one machine: use train.py"),
        (["--mini-batch-regularization", "0.01"], None, "are for one machine: use train.py"),
        (["--workers", "0"], None, "must be at least 1, got 0"),
        (["--wire-dtype", "int8"], None, "invalid choice: 'int8'"),
        ([], "{}", "the cluster of TF_CONFIG needs --batches-dir"),
    ],
)
def test_impossible_flags_are_refused(arguments, config, message, capsys, monkeypatch):
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(SystemExit):
        train_ps.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_the_tasks_of_a_cluster_other_than_the_chief_are_refused(capsys, monkeypatch):
    cluster = {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"], "ps": ["127.0.0.1:3"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    assert train_ps.main(["--batches-dir", "batches"]) == 2
    assert "TF_CONFIG must be that of the chief, got task type 'worker'" in capsys.readouterr().err


def test_the_workers_of_a_cluster_have_each_batch_once(tmp_path):
    import tensorflow as tf

    batches = tf.data.Dataset.range(10).map(lambda i: ({"x": tf.fill([i], i)}, tf.cast(i, tf.float32)))
    spec = train_ps.write_batches(batches, 2, str(tmp_path), 3)
    for worker in range(3):
        context = tf.distribute.InputContext(3, tf.constant(worker, tf.int64), 1)
        read = [int(label) for _, label in train_ps.read_batches(str(tmp_path), spec, context)]
        assert read == (2 * list(range(10)))[worker::3]
