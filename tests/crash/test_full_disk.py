"""A disk that is full while something is saved: an error, and what was saved before is there.

Once with a limit to the size of files, which needs no rights, and once with a file system of 1 MiB, which root may
mount.
"""

import contextlib
import functools
import os
import resource
import subprocess
import zipfile

import pytest
import tensorflow as tf
from small_model import fill, make_model, table_of

import tf_sparse_emb as tse

FEW, MANY = 100, 50_000
LIMIT = 800_000  # between what these take


@contextlib.contextmanager
def _limited_size(tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, old[1]))
    try:
        yield tmp_path
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@contextlib.contextmanager
def _small_file_system(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}; the limit of file size is tested")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture(
    params={"limit of file size": _limited_size, "file system": _small_file_system}.items(), ids=lambda p: p[0]
)
def small_disk(request, tmp_path):
    """(folder, what the system says when it is full)."""
    name, disk = request.param
    with disk(tmp_path) as folder:
        yield folder, "File too large" if name == "limit of file size" else "No space left on device"


def _save_checkpoint(model, folder):
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=3, checkpoint_name="c").save()


def _restore(model, folder):
    tf.train.Checkpoint(model=model).restore(tf.train.latest_checkpoint(folder)).expect_partial()


def _full_save(model, folder):
    tse.saving.IncrementalCheckpoint(folder / "chain", model=model).save()


@functools.cache
def _chain(model, folder):
    return tse.saving.IncrementalCheckpoint(folder / "chain", model=model)


def _restore_chain(model, folder):
    assert tse.saving.IncrementalCheckpoint(folder / "chain", model=model).restore().problem == ""


def _out_and_in(name, format=None):
    return (
        lambda model, folder: tse.interchange.export_table(table_of(model), folder / name, format=format),
        lambda model, folder: tse.interchange.import_table(table_of(model), folder / name),
    )


def _serve(model, folder):
    (number,) = os.listdir(folder / "serving")
    tse.interchange.import_table(table_of(model), folder / "serving" / number)


# (save, load)
WHOLE = {
    "table file": (lambda m, f: table_of(m).save(f / "table"), lambda m, f: table_of(m).load(f / "table")),
    "checkpoint": (_save_checkpoint, _restore),
    "full save": (_full_save, _restore_chain),
    "increment": (lambda m, f: _chain(m, f).save(), _restore_chain),
    "npz": _out_and_in("rows.npz"),
    "parquet": _out_and_in("rows.parquet"),
    "raw": _out_and_in("rows", "raw"),
    "serving": (lambda m, f: tse.export_for_serving(m, f / "serving" / str(len(table_of(m).numpy().keys))), _serve),
}
IN_PLACE = {
    "keras": (lambda m, f: m.save(f / "m.keras"), lambda m, f: m.load_weights(f / "m.keras")),
    "h5": (lambda m, f: m.save_weights(f / "m.weights.h5"), lambda m, f: m.load_weights(f / "m.weights.h5")),
}

# What Keras, zipfile and h5py say of a torn file depends on where it is torn.
REFUSALS = "not a zip file|no item named 'model.weights.h5'|Unable to .*open file|no rows of table 'embeddings'"


def _files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("form", WHOLE)
def test_what_was_saved_before_is_there(form, small_disk):
    folder, text = small_disk
    if form == "parquet":
        pytest.importorskip("pyarrow")
    (folder / "serving").mkdir()
    save, load = WHOLE[form]
    model = make_model()
    fill(model, FEW)
    save(model, folder)
    saved, before = table_of(model).numpy(), _files(folder)

    fill(model, MANY)
    with pytest.raises((tf.errors.OpError, OSError), match=text) as error:
        save(model, folder)
    assert str(folder) in str(error.value)
    assert {name: data for name, data in _files(folder).items() if name in before} == before
    loaded = make_model()
    load(loaded, folder)
    assert table_of(loaded).numpy() == saved
    left = set(_files(folder)) - set(before)
    assert all(name.startswith("c-") and "_temp/" in name for name in left) if form == "checkpoint" else not left


@pytest.mark.filterwarnings("ignore")  # of h5py, which cannot close the file, and Keras, which misses its parts
@pytest.mark.parametrize("form", IN_PLACE)
def test_what_keras_writes_in_place_is_refused(form, small_disk):
    folder, text = small_disk
    save, load = IN_PLACE[form]
    model = make_model()
    fill(model, FEW)
    save(model, folder)
    fill(model, MANY)
    with pytest.raises((tf.errors.ResourceExhaustedError, OSError), match=text):
        save(model, folder)
    loaded = make_model()
    fill(loaded, 3)
    before = table_of(loaded).numpy()
    with pytest.raises((zipfile.BadZipFile, KeyError, ValueError, OSError), match=REFUSALS):
        load(loaded, folder)
    assert table_of(loaded).numpy() == before
