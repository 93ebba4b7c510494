"""Train, save, go on in a new process: as if there had been no interruption, down to the last bit."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from saving_cases import OPTIMIZERS, assert_same, contents, differ, make_model, train
from saving_formats import FORMATS, save_all

STEPS = 4


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """resumed[optimizer] = (contents when saved, contents of the uninterrupted run, folder of what came back)."""
    root = tmp_path_factory.mktemp("resume")
    runs = {}
    for optimizer in OPTIMIZERS:
        folder = root / optimizer
        folder.mkdir()
        model = make_model(optimizer)
        train(model, STEPS)
        save_all(model, folder)
        saved = contents(model)
        train(model, STEPS, first=STEPS)
        runs[optimizer] = saved, contents(model), folder
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *filter(None, sys.path)])}
    program = [sys.executable, str(here / "saving_formats.py"), str(root), str(STEPS), *OPTIMIZERS]
    result = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return runs


# Keras' own optimizers leave out, with a warning, what is loaded before they are built (test_saving_keras.py).
LEFT_OUT = {("dense_optimizer", name) for name in ("weights_of_keras", "h5", "json")}
CASES = [case for case in itertools.product(OPTIMIZERS, FORMATS) if case not in LEFT_OUT]


@pytest.mark.parametrize(("optimizer", "name"), CASES)
def test_a_restored_model_goes_on_as_if_never_interrupted(resumed, optimizer, name):
    saved, uninterrupted, folder = resumed[optimizer]
    assert differ(saved, uninterrupted)
    restored, trained = (dict(np.load(folder / f"{name}.{when}.npz")) for when in ("restored", "trained"))
    # An optimizer that is built later gets its state later.
    assert_same({k: v for k, v in restored.items() if "table" in k}, {k: v for k, v in saved.items() if "table" in k})
    assert_same(trained, uninterrupted)
