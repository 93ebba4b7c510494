"""A file with a flipped bit or without its end is refused, by name; a table never takes half of it.

CRASH_DAMAGES is the number of places for each file (`make test-crash` has 200).
"""

import os
import re

import numpy as np
import pytest
import tensorflow as tf
from small_model import DIM, fill, make_model, table_of

import tf_sparse_emb as tse

PLACES = int(os.environ.get("CRASH_DAMAGES", 12))
ROWS = 2000


def _save_checkpoint(model, folder):
    return tf.train.Checkpoint(model=model).write(str(folder / "ckpt"))


def _load_checkpoint(model, folder):
    tf.train.Checkpoint(model=model).read(str(folder / "ckpt")).expect_partial()


def _chain(model, folder):
    return tse.saving.IncrementalCheckpoint(folder / "chain", model=model)


# form: (save, load, the files to damage)
FORMS = {
    "table file": (
        lambda model, folder: table_of(model).save(folder / "items.table"),
        lambda model, folder: table_of(model).load(folder / "items.table"),
        ["items.table"],
    ),
    "checkpoint": (
        _save_checkpoint,
        _load_checkpoint,
        ["ckpt.data-00000-of-00002", "ckpt.data-00001-of-00002", "ckpt.index"],
    ),
    "full save": (
        lambda model, folder: _chain(model, folder).save(),
        lambda model, folder: _chain(model, folder).restore(),
        [f"chain/save-00000001/{file}" for file in ("0.table", "save.json", "rest.index", "rest.data-00000-of-00001")],
    ),
    "keras": (
        lambda model, folder: model.save(folder / "m.keras"),
        lambda model, folder: model.load_weights(folder / "m.keras"),
        ["m.keras"],
    ),
    "h5": (
        lambda model, folder: model.save_weights(folder / "m.weights.h5"),
        lambda model, folder: model.load_weights(folder / "m.weights.h5"),
        ["m.weights.h5"],
    ),
}
# What the errors of our own data say; those of TensorFlow's index and Keras' containers are theirs.
OURS = {
    "items.table": "'{path}/items.table'",
    "ckpt.data-00000-of-00002": "checkpoint '{path}/ckpt'",
    **{file: f"has no whole save: .*'{{path}}/{file}'" for file in FORMS["full save"][2]},
}
CASES = [(form, file) for form, (_, _, files) in FORMS.items() for file in files]


def _flip(data, at, moments):
    return data[:at] + bytes([data[at] ^ 1 << moments.randrange(8)]) + data[at + 1 :]


def _cut(data, at, moments):
    return data[:at]


@pytest.fixture(scope="module")
def models():
    """(the model that is saved, the model that loads)."""
    saved, loaded = make_model(), make_model()
    fill(saved, ROWS)
    return saved, loaded


@pytest.mark.parametrize("damage", [_flip, _cut])
@pytest.mark.parametrize("form, file", CASES)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_by_name_and_leaves_the_table(models, form, file, damage, moments, tmp_path):
    save, load, _ = FORMS[form]
    model, other = models
    save(model, tmp_path)
    path = tmp_path / file
    whole, want = path.read_bytes(), table_of(model).numpy()
    table_of(other).upsert([-1, -2], np.ones([2, DIM]))
    before = table_of(other).numpy()
    refused = 0
    for _ in range(PLACES):
        at = moments.randrange(len(whole))
        path.write_bytes(damage(whole, at, moments))
        table_of(other).assign(before)
        try:
            load(other, tmp_path)
        except Exception as error:
            refused += 1
            # Keras goes from part to part, and may find the damage after the table.
            left = table_of(other).numpy()
            assert left == before or (left == want and file not in OURS), f"byte {at}: {error}"
            if file in OURS:
                assert re.search(OURS[file].format(path=tmp_path), str(error)), f"byte {at}: {error}"
        else:
            assert table_of(other).numpy() == want, f"byte {at} of {len(whole)}"
    print(f"{file}, {damage.__name__}: {PLACES} places, {refused} refused, at the others the table is what was saved")
    # What is not refused: the padding in TensorFlow's index, headers of zip, dense weights of HDF5.
    assert refused == PLACES if file in OURS else refused > PLACES / 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "file, text",
    [
        ("m.keras", "'{path}/m.keras' .*embeddings.table. is damaged: Bad CRC-32 for file"),
        ("m.weights.h5", "table 'embeddings' in '{path}/m.weights.h5' is damaged"),
    ],
)
def test_a_flipped_byte_of_a_row_is_refused_by_the_names_of_file_and_table(models, file, text, moments, tmp_path):
    save, load, _ = FORMS["keras" if file == "m.keras" else "h5"]
    model, other = models
    save(model, tmp_path)
    path = tmp_path / file
    whole, before = path.read_bytes(), table_of(other).numpy()
    begin, end = whole.index(b"ROWS"), whole.index(b"DONE")
    assert end - begin > ROWS * 4 * DIM
    for _ in range(PLACES):
        at = moments.randrange(begin, end)
        path.write_bytes(_flip(whole, at, moments))
        with pytest.raises((ValueError, tf.errors.DataLossError), match=text.format(path=tmp_path)):
            load(other, tmp_path)
        assert table_of(other).numpy() == before, f"byte {at}"


@pytest.mark.parametrize("damage", [_flip, _cut])
@pytest.mark.parametrize("file", ["0.table", "save.json", "rest.index", "rest.data-00000-of-00001"])
@pytest.mark.filterwarnings("ignore:not everything was saved")
def test_a_damaged_increment_is_named_and_the_save_before_restored(models, file, damage, moments, tmp_path):
    model, other = models
    chain, snapshots = _chain(model, tmp_path), []
    for save in range(3):
        table_of(model).upsert([save, ROWS + save], np.full([2, DIM], save))
        chain.save()
        snapshots.append(table_of(model).numpy())
    # All but tables is read from the last save alone.
    number = 3 if file.startswith("rest") else 2
    path = tmp_path / "chain" / f"save-0000000{number}" / file
    whole = path.read_bytes()
    for _ in range(PLACES):
        at = moments.randrange(len(whole))
        path.write_bytes(damage(whole, at, moments))
        with pytest.warns(UserWarning, match=f"'{path}'"):
            restored = _chain(other, tmp_path).restore()
        assert restored.number == number - 1, f"byte {at}"
        assert table_of(other).numpy() == snapshots[number - 2], f"byte {at}"
