"""The formats a model is saved in: how it is saved and restored; and, as a program, the new process that restores.

    python saving_formats.py FOLDER STEPS OPTIMIZER...

restores FOLDER/<optimizer>/<format>, trains STEPS steps more and writes what has come of it beside it.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import saving_cases as cases
import tensorflow as tf


def _load_weights(path, optimizer):
    model = cases.make_model(optimizer)
    model.load_weights(path)
    return model


def _load_weights_built(path, optimizer):
    model = cases.make_model(optimizer)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return model


def _checkpoint(model):
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


def _restore(path, optimizer):
    model = cases.make_model(optimizer)
    status = _checkpoint(model).read(str(path))
    model.optimizer.build(model.trainable_variables)
    status.assert_consumed()
    return model


def _restore_built(path, optimizer):
    model = cases.make_model(optimizer)
    model.optimizer.build(model.trainable_variables)
    _checkpoint(model).read(str(path)).assert_consumed()
    return model


def _restore_optimizer_later(path, optimizer):
    """The optimizer is made, and its state restored, when the model's has been."""
    model = cases.make_model(optimizer)
    tf.train.Checkpoint(model=model).read(str(path)).expect_partial()
    model.compile(cases.OPTIMIZERS[optimizer](), "mse")
    model.optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(optimizer=model.optimizer).read(str(path)).expect_partial()
    return model


_h5 = {"file": "m.weights.h5", "save": lambda model, path: model.save_weights(path)}
_json = {"file": "m.weights.json", "save": lambda model, path: model.save_weights(path, max_shard_size=1e-6)}
_keras = {"file": "m.keras", "save": lambda model, path: model.save(path)}
_ckpt = {"file": "ckpt", "save": lambda model, path: _checkpoint(model).write(str(path))}

FORMATS = {
    "keras": {**_keras, "restore": lambda path, optimizer: keras.models.load_model(path)},
    "weights_of_keras": {**_keras, "restore": _load_weights},
    "h5": {**_h5, "restore": _load_weights},
    "h5_built": {**_h5, "restore": _load_weights_built},
    "json": {**_json, "restore": _load_weights},
    "checkpoint": {**_ckpt, "restore": _restore},
    "checkpoint_built": {**_ckpt, "restore": _restore_built},
    "checkpoint_optimizer_later": {**_ckpt, "restore": _restore_optimizer_later},
}


def save_all(model, folder):
    for form in {form["file"]: form for form in FORMATS.values()}.values():
        form["save"](model, folder / form["file"])


if __name__ == "__main__":
    root, steps, *optimizers = sys.argv[1:]
    for optimizer in optimizers:
        for name, form in FORMATS.items():
            model = form["restore"](Path(root, optimizer, form["file"]), optimizer)
            restored = cases.contents(model)
            cases.train(model, int(steps), first=int(steps))
            np.savez(Path(root, optimizer, f"{name}.restored.npz"), **restored)
            np.savez(Path(root, optimizer, f"{name}.trained.npz"), **cases.contents(model))
