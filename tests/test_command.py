"""`python -m tf_sparse_emb`: what it prints, what it writes, and its exit codes."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import tf_sparse_emb as tse
from tf_sparse_emb.command import main

D = 4


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Paths of tables that differ in known ways; the current folder is theirs."""
    monkeypatch.chdir(tmp_path)
    keys, rows = np.array([-5, 0, 7, 2**62]), np.arange(16, dtype=np.float32).reshape(4, D)
    np.savez("a.npz", keys=keys, rows=rows)
    np.savez("reordered.npz", keys=keys[::-1], rows=rows[::-1])
    changed = rows.copy()
    changed[2, 1] += 0.5
    np.savez("changed.npz", keys=keys, rows=changed)
    np.savez("more.npz", keys=np.append(keys, [9, 10]), rows=np.vstack([rows, rows[:2]]))
    np.savez("wider.npz", keys=keys, rows=np.ones((4, D + 1)))
    np.savez("repeated.npz", keys=np.array([1, 1]), rows=np.ones((2, D)))
    np.savez("other.npz", keys=np.array([7, 8]), rows=np.full((2, D), 100.0))
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    return keys, rows


def run(capsys, *arguments):
    """The exit code, stdout and stderr."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_inspect_prints_what_a_file_holds(files, capsys):
    code, out, err = run(capsys, "inspect", "a.npz")
    assert (code, err) == (0, "")
    assert out == (
        f"rows 4, dim 4, least_key -5, greatest_key {2**62}, rows_of_zeros 0, root_mean_square 8.80341, "
        "greatest_element 15.0\n"
    )
    assert run(capsys, "inspect", "--brief", "a.npz") == (0, "rows 4, dim 4\n", "")


def test_inspect_prints_json_of_all_tables(files, capsys):
    model = keras.Sequential([keras.Input([], dtype="int64"), tse.Embedding(None, D, name="item")], name="m")
    model.layers[0].embeddings.upsert([3, 4], np.ones([2, D]))
    tse.export_for_serving(model, "model", rows_dtype="int8")
    code, out, _ = run(capsys, "inspect", "--json", "model")
    (table,) = json.loads(out)
    assert code == 0 and table["table"] == "m/item/embeddings"
    assert (table["rows"], table["dim"], table["rows_dtype"], table["least_key"]) == (2, D, "int8", 3)
    model = keras.Sequential([keras.Input([], dtype="int64"), keras.layers.Embedding(7, D), keras.layers.Dense(3)])
    model.save_weights("m.weights.h5")
    tables = json.loads(run(capsys, "inspect", "--json", "m.weights.h5")[1])
    assert [(table["table"], table["rows"], table["dim"]) for table in tables] == [
        ("layers/dense/vars/0", D, 3),
        ("layers/embedding/vars/0", 7, D),
    ]
    assert "rows 7, dim 4" in run(capsys, "inspect", "m.weights.h5::layers/embedding/vars/0")[1]


@pytest.mark.parametrize("target", ["b.npz", "b.parquet", "b"])
def test_export_converts_between_formats(files, capsys, target):
    if target.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    arguments = ["--format", "raw"] if target == "b" else []
    code, out, err = run(capsys, "export", "a.npz", target, *arguments)
    assert (code, out, err) == (0, f"4 rows of width 4 written to {target}\n", "")
    assert run(capsys, "diff", "a.npz", target)[0] == 0
    assert run(capsys, "export", target, "back.npz")[0] == 0
    keys, rows = files
    np.testing.assert_array_equal(np.load("back.npz")["keys"], keys)
    np.testing.assert_array_equal(np.load("back.npz")["rows"], rows)


def test_export_takes_the_state_only_where_it_is_asked_for(files, capsys):
    table = tse.EmbeddingVariable(D)
    table.bind("row_wise_adagrad")
    table.upsert([1, 2], np.ones([2, D]))
    tse.interchange.export_table(table, "state.npz", with_state=True)
    assert "state row_wise_adagrad [1]" in run(capsys, "inspect", "--brief", "state.npz")[1]
    run(capsys, "export", "state.npz", "without.npz")
    run(capsys, "export", "--with-state", "state.npz", "with.npz")
    assert "state" not in np.load("without.npz") and np.load("with.npz")["state"].shape == (2, 1)
    code, _, err = run(capsys, "export", "--with-state", "a.npz", "no.npz")
    assert code == 2 and "--with-state needs a source with a state" in err and not os.path.exists("no.npz")


@pytest.mark.parametrize(
    "second, code, line",
    [
        ("a.npz", 0, "only in the first: 0, only in the second: 0, of different rows: 0"),
        ("reordered.npz", 0, "only in the first: 0, only in the second: 0, of different rows: 0"),
        ("changed.npz", 1, "only in the first: 0, only in the second: 0, of different rows: 1"),
        ("more.npz", 1, "only in the first: 0, only in the second: 2, of different rows: 0"),
        ("other.npz", 1, "only in the first: 3, only in the second: 1, of different rows: 1"),
        ("wider.npz", 1, "widths differ: 4 and 5"),
    ],
)
def test_diff_tells_by_key_what_differs_and_by_its_exit_code_whether(files, capsys, second, code, line):
    got, out, err = run(capsys, "diff", "a.npz", second)
    assert (got, out.splitlines()[0], err) == (code, line, "")


def test_diff_names_the_greatest_difference_and_forgives_what_is_within_the_tolerance(files, capsys):
    code, out, _ = run(capsys, "diff", "--tolerance", 0.5, "a.npz", "changed.npz")
    assert code == 0
    assert out.splitlines()[1] == "the greatest difference of an element is 0.5, at key 7"
    assert run(capsys, "diff", "--tolerance", 0.49, "a.npz", "changed.npz")[0] == 1


@pytest.mark.parametrize("repeated, row", [("last", [100.0] * D), ("first", [8.0, 9.0, 10.0, 11.0])])
def test_merge_writes_all_keys_and_the_row_that_is_asked_for_of_a_repeated_one(files, capsys, repeated, row):
    code, out, _ = run(capsys, "merge", "--repeated", repeated, "merged.npz", "a.npz", "other.npz")
    assert (code, out) == (0, "5 rows written to merged.npz, 1 keys came more than once\n")
    merged = np.load("merged.npz")
    found = dict(zip(merged["keys"].tolist(), merged["rows"].tolist(), strict=True))
    keys, rows = files
    assert found == {**dict(zip(keys.tolist(), rows.tolist(), strict=True)), 7: row, 8: [100.0] * D}


def test_merge_refuses_repeated_keys_where_it_is_asked_to(files, capsys):
    code, _, err = run(capsys, "merge", "--repeated", "error", "merged.npz", "a.npz", "other.npz")
    assert code == 2 and "key 7 of other.npz has come before" in err and not os.path.exists("merged.npz")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inspect", "nothing.npz"], "there is no nothing.npz"),
        (["inspect", "damaged.npz"], "damaged.npz is no whole .npz file"),
        (["inspect", "."], "tables can be read from .npz"),
        (["inspect", "a.npz::b"], r"table must be one of those of a.npz (one without a name), got 'b'"),
        (["export", "a.npz", "b.txt"], "path must end in .npz or .parquet"),
        (["diff", "a.npz", "repeated.npz"], "keys of repeated.npz must differ, got 1 more than once"),
        (["merge", "m.npz", "a.npz", "wider.npz"], "tables to merge must be of one width, got [4, 5]"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(files, capsys, arguments, message):
    before = set(os.listdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("python -m tf_sparse_emb: ") and message in err
    assert set(os.listdir()) == before


def test_progress_is_shown_to_people_on_stderr_and_can_be_switched_off(files, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = run(capsys, "inspect", "a.npz")
    assert code == 0 and "4/4" in err and "4/4" not in out
    assert run(capsys, "-q", "inspect", "a.npz")[2] == ""


def test_an_interrupt_ends_quietly(files, capsys, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("tf_sparse_emb.command.read_tables", interrupted)
    assert run(capsys, "inspect", "a.npz")[0] == 130


def test_it_runs_as_a_module_and_explains_itself(files):
    def module(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "tf_sparse_emb", *arguments], capture_output=True, text=True, timeout=100
        )

    run = module("diff", "a.npz", "changed.npz")
    assert (run.returncode, run.stdout.splitlines()[0][-1]) == (1, "1")
    help_text = module("--help").stdout
    for word in ("inspect", "export", "diff", "merge", "exit codes: 0 done, or equal; 1 different; 2 an error"):
        assert word in help_text
