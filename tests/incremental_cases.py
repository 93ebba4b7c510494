"""A run that saves as it goes; and, as a program, the new process that restores it and goes on.

python incremental_cases.py FOLDER STEPS OPTIMIZER... restores FOLDER/<optimizer>/checkpoints, in which a run of STEPS
steps saved, and writes what it has restored, and what has come of it after as many steps more.
"""

import sys
from pathlib import Path

import numpy as np
import saving_cases as cases

import tf_sparse_emb as tse


def checkpoint_of(model, folder, **kwargs):
    return tse.saving.IncrementalCheckpoint(folder, model=model, optimizer=model.optimizer, **kwargs)


def train(model, steps, first=0):
    """As `saving_cases.train`; now and then keys are removed, set, and looked up."""
    item, bounded, user, _ = cases.tables_of(model)
    for step in range(first, first + steps):
        cases.train(model, 1, first=step)
        if step % 3 == 1:
            item.remove(item.export()[0][:5])
            user.upsert([step, 10**12 + step], np.full((2, 3), step, np.float32))
        if step % 3 == 2:
            bounded.scatter_add([step, step], np.ones((2, 2), np.float32))
            item.lookup(np.arange(step, step + 3), insert=True)


def table_of(storage="slab", **kwargs):
    kwargs = {"seed": 1, "input_dim": 3000 if storage == "index" else None, **kwargs}
    return tse.EmbeddingVariable(4, storage=storage, **kwargs)


def chain_of(folder, table, **kwargs):
    return tse.saving.IncrementalCheckpoint(folder, table=table, **kwargs)


def restored_from(folder, storage="slab"):
    table = table_of(storage)
    return table, chain_of(folder, table).restore()


def save_chain(folder, saves=4, **kwargs):
    """A table, and snapshots of it at each save: one full, the others increments; each removes and sets rows."""
    table = table_of()
    checkpoint = chain_of(folder, table, **kwargs)
    snapshots = []
    for save in range(saves):
        table.upsert(np.arange(10 * save, 10 * save + 20), np.full((20, 4), save + 1.0, np.float32))
        table.remove([10 * save])
        checkpoint.save()
        snapshots.append(table.numpy())
    return table, checkpoint, snapshots


def kinds_of(folder):
    """F (full) or I (increment) for each save that is there, ? where nothing says so."""
    files = [path / "save.json" for path in sorted(Path(folder).glob("save-*"))]
    texts = [file.read_text() if file.exists() else "" for file in files]
    return "".join("?" if not text else "F" if 'previous\\": null' in text else "I" for text in texts)


if __name__ == "__main__":
    root, steps, *optimizers = sys.argv[1:]
    for optimizer in optimizers:
        model = cases.make_model(optimizer)
        folder = Path(root, optimizer)
        checkpoint_of(model, folder / "checkpoints").restore()
        model.optimizer.build(model.trainable_variables)
        np.savez(folder / "restored.npz", **cases.contents(model))
        train(model, int(steps), first=int(steps))
        np.savez(folder / "trained.npz", **cases.contents(model))
