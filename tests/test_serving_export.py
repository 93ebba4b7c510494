"""Exports for serving answer as the models do, in a process that has TensorFlow alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from serving_cases import LAYERS, MODELS, flat_inputs, flat_outputs

import tf_sparse_emb as tse

SCRIPT = Path(__file__).parent / "without_package.py"
C_API = Path(__file__).parent / "c_api.py"
# Norms and normals are computed by other functions of float32 or float64.
NOT_BY_BITS = ("initial_normal", "initial_truncated_normal", "max_norm_1.0", "max_norm_2.0", "max_norm_3.0")


def _is_functional(model):
    try:
        return bool(model.inputs)
    except AttributeError:
        return False


def _specs(inputs):
    return {
        name: tf.type_spec_from_value(x)
        if isinstance(x, tf.RaggedTensor)
        else tf.TensorSpec([None, *x.shape[1:]], tf.as_dtype(x.dtype))
        for name, x in inputs.items()
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """name of a model -> {what answers: its outputs}."""
    root, found = tmp_path_factory.mktemp("exports"), {}
    for name, make in MODELS.items():
        model, inputs = make(np.random.default_rng(7))
        functional = _is_functional(model)
        (root / name).mkdir()
        summary = tse.export_for_serving(
            model, root / name / "model", input_signature=None if functional else _specs(inputs)
        )
        flat = flat_inputs(inputs, [tensor.name for tensor in model.inputs] if functional else None)
        np.savez(root / name / "inputs.npz", **{f"serving_default/{key}": _savable(x) for key, x in flat.items()})
        predicted = model.predict(tf.data.Dataset.from_tensors((inputs,)), verbose=0)
        found[name] = {"model": flat_outputs(predicted), "summary": summary, "path": root / name / "model"}
    run = subprocess.run(
        [sys.executable, SCRIPT, *(root / name for name in MODELS)], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for name in MODELS:
        for loader in ("python", "session"):
            arrays = np.load(root / name / f"{loader}.npz")
            found[name][loader] = {key.removeprefix("serving_default/"): value for key, value in arrays.items()}
    return found


def _savable(value):
    return value.astype("S") if value.dtype == object else value


def _assert_equal(got, want, name):
    assert got.dtype == want.dtype
    assert np.abs(want.astype(np.float64)).max() > 1e-3
    if name in NOT_BY_BITS:
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("loader", ["python", "session"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_answers_as_it_predicts_where_the_package_cannot_be_imported(answers, name, loader):
    want, got = answers["many_layers"]["model"], answers["many_layers"][loader]
    outputs = [output for output in want if output == name or output.startswith((f"{name}_row", f"{name}_"))]
    assert outputs
    for output in outputs:
        _assert_equal(got[output], want[output], output)


@pytest.mark.parametrize("loader", ["python", "session"])
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_answers_as_it_predicts_where_the_package_cannot_be_imported(answers, name, loader):
    want, got = answers[name]["model"], answers[name][loader]
    assert sorted(got) == sorted(want)
    for output, value in want.items():
        _assert_equal(got[output], value, output)


def test_the_c_api_loads_an_export_and_answers_as_the_model_predicts(answers, tmp_path):
    path = answers["sequential"]["path"]
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
    np.save(tmp_path / "keys.npy", np.load(path.parent / "inputs.npz")["serving_default/keys"])
    library = Path(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
    names = signature.inputs["keys"].name, signature.outputs["output_0"].name
    arguments = [library, path, names[0], tmp_path / "keys.npy", names[1], tmp_path / "rows.npy"]
    run = subprocess.run([sys.executable, C_API, *arguments], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr[-2000:]
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), answers["sequential"]["model"]["output_0"])
