"""Every example in the README and in a docstring runs."""

import doctest
import inspect
import os
import pathlib
import re
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_sparse_emb as tse

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"


def _public():
    modules = {"tse": tse} | {
        f"tse.{name}": getattr(tse, name)
        for name in ("distribute", "initializers", "interchange", "legacy", "ops", "optimizers", "saving")
    }
    for prefix, module in modules.items():
        for name in module.__all__:
            member = getattr(module, name)
            if callable(member):
                yield f"{prefix}.{name}", member


def _model(name):
    keras_of, ours = (tf_keras, tse.legacy) if name.startswith("tse.legacy.") else (keras, tse)
    return keras_of.Sequential([keras_of.Input([2], dtype="int64"), ours.Embedding(None, 4), keras_of.layers.Dense(1)])


def test_the_quick_start_runs_and_has_at_most_15_lines():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert int(names["table"].size()) == np.unique(names["users"]).size


_AFTER = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "migrating.md").read_text(), flags=re.S)


@pytest.mark.parametrize("package, code", zip(("keras", "torch", "xdl", "tfra"), _AFTER, strict=True))
def test_the_code_after_each_migration_runs(package, code):
    exec(compile(code, f"migrating.md, from {package}", "exec"), {})


@pytest.mark.parametrize("number", range(2))
def test_the_code_in_the_guide_to_serving_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), flags=re.S)
    assert len(code) == 2
    exec(compile(code[number], "serving.md", "exec"), {})


# What functions return and raise. And what connects this process to a cluster, which it would be connected to for the
# tests after that: cluster/test_training.py runs the README's example of these.
_WITHOUT_EXAMPLE = {"tse.ops.DedupLookup", "tse.ops.KeyDedup", "tse.saving.Restored", "tse.distribute.ServerLostError"}
_OF_CLUSTERS = {
    "tse.distribute.LocalCluster",
    "tse.distribute.ParameterServerTrainer",
    "tse.distribute.parameter_server_strategy",
}


@pytest.mark.parametrize("name, member", _public(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_example_of_each_public_name_runs(name, member, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(member))
    assert bool(examples) != (name in _WITHOUT_EXAMPLE | _OF_CLUSTERS)
    modules = {"keras": keras, "np": np, "os": os, "tempfile": tempfile, "tf": tf, "tse": tse}
    names = modules | {"model": _model(name)}
    for example in examples:
        exec(compile(example.source, name, "single"), names)


def test_the_readme_names_everything_public():
    text = README.read_text()
    for name, _ in _public():
        assert f"`{name}`" in text or name in _WITHOUT_EXAMPLE, name
