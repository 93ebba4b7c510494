"""What is written whole or not at all: what others are writing stays, what was left by the killed goes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tf_sparse_emb as tse
from tf_sparse_emb import whole_files


def _table():
    table = tse.EmbeddingVariable(2)
    table.lookup(np.arange(5), insert=True)
    return table


def _layer():
    layer = tse.Embedding(None, 2, combiner="sum")
    layer.build()
    return layer


WRITES = {
    "export_for_serving": lambda folder: tse.export_for_serving(
        _layer(), folder / "2", input_signature=np.zeros([1, 3], np.int64)
    ),
    "export_table": lambda folder: tse.interchange.export_table(_table(), folder / "rows.npz"),
    "raw": lambda folder: tse.interchange.export_table(_table(), folder / "rows", format="raw"),
    "incremental": lambda folder: tse.saving.IncrementalCheckpoint(folder, table=_table()).save(),
}


# Names that nothing here gives.
STRANGE = [".rows.unfinished", ".rows.0123abcd.finished", "rows.0123abcd.unfinished"]


def _kill_writer(folder):
    """A process that dies while it writes a file and a folder with a file."""
    program = """if True:
        import importlib.util, os, signal, sys
        spec = importlib.util.spec_from_file_location("whole_files", sys.argv[1])
        whole_files = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(whole_files)
        folder = sys.argv[2]
        with whole_files.whole_file(folder + "/rows.npz") as file, whole_files.whole_folder(folder + "/1") as sub:
            for path in (file, sub + "/part"):
                open(path, "wb").write(b"part")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run([sys.executable, "-c", program, whole_files.__file__, str(folder)])
    assert result.returncode == -signal.SIGKILL


def _unfinished(folder):
    return {name for name in os.listdir(folder) if name.endswith(".unfinished") and name not in STRANGE}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_the_killed_have_left_goes_and_what_others_write_stays(write, tmp_path):
    _kill_writer(tmp_path)
    left = _unfinished(tmp_path)
    assert sorted(name.rsplit(".", 2)[0] for name in left) == [".1", ".rows.npz"]
    for name in STRANGE:
        (tmp_path / name).touch()

    # Locks are of who opens: this process is another to itself.
    with whole_files.whole_file(tmp_path / "a") as file, whole_files.whole_folder(tmp_path / "b") as folder:
        Path(file).write_text("whole")
        Path(folder, "part").write_text("whole")
        assert not left & _unfinished(tmp_path)
        _kill_writer(tmp_path)
        left = _unfinished(tmp_path) - {Path(file).name, Path(folder).name}
        write(tmp_path)
        assert not left & _unfinished(tmp_path)
    assert (tmp_path / "a").read_text() == (tmp_path / "b" / "part").read_text() == "whole"
    assert all((tmp_path / name).exists() for name in STRANGE)
    assert not _unfinished(tmp_path)


def test_a_link_to_another_place_is_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".1.0123abcd.unfinished").symlink_to(tmp_path / "kept")
    with whole_files.whole_file(tmp_path / "folder" / "a"):
        pass
    assert (tmp_path / "kept" / "file").exists()


def test_who_is_taken_for_killed_before_the_lock_begins_again(tmp_path, monkeypatch):
    made = []

    def make(path):
        made.append(path)
        whole_files._make_file(path)
        if len(made) < 3:
            whole_files._remove_abandoned(tmp_path)
            assert not os.path.exists(path)

    with whole_files._unfinished(str(tmp_path / "a"), make) as path:
        assert path == made[2]
    assert len(set(made)) == 3


@pytest.mark.parametrize("whole", [whole_files.whole_file, whole_files.whole_folder])
def test_what_fails_leaves_nothing(whole, tmp_path):
    with pytest.raises(OSError, match=f"full.*'{tmp_path}/a'"), whole(tmp_path / "a"):
        raise OSError(28, "full")
    assert os.listdir(tmp_path) == []
