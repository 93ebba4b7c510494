"""Importing the package: no side effects on TensorFlow or Keras, clear errors, sorted public names."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import tf_sparse_emb as tse


def _python(script, **environment):
    """Runs `script` in a fresh interpreter that finds the package under test."""
    root = str(Path(tse.__file__).resolve().parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **environment,
    }
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


def _assert_prints(script, expected, **environment):
    done = _python(script, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1:] == [expected]


SNAPSHOT = """
import functools, importlib, inspect
import keras, tensorflow as tf

NAMES = [
    "keras", "keras.layers", "keras.optimizers", "keras.initializers", "keras.ops", "keras.backend", "keras.saving",
    "keras.src.backend.tensorflow.core", "keras.src.backend.tensorflow.trainer",
    "keras.src.optimizers.base_optimizer", "keras.src.backend.tensorflow.optimizer",
    "tensorflow", "tensorflow.nn", "tensorflow.data", "tensorflow.train", "tensorflow.saved_model",
    "tensorflow.python.eager.backprop", "tensorflow.python.ops.resource_variable_ops",
    "tensorflow.python.framework.ops", "tensorflow.python.framework.indexed_slices",
]


PUBLIC = {"tensorflow": tf, "keras": keras}  # "tensorflow.nn" is an attribute, not a file


def modules():
    for name in NAMES:
        if ".src." in name or ".python." in name:
            yield name, importlib.import_module(name)
        else:
            root, *rest = name.split(".")
            yield name, functools.reduce(getattr, rest, PUBLIC[root])


def snapshot():
    seen = {}
    for module_name, module in modules():
        for name, value in list(vars(module).items()):
            seen[module_name, name] = id(value)
            if inspect.isclass(value):
                for cls in value.__mro__:
                    for attribute, member in list(vars(cls).items()):
                        if attribute not in ("__abstractmethods__", "_abc_impl", "__doc__", "__weakref__", "__dict__"):
                            seen[module_name, name, cls.__qualname__, attribute] = id(member)
    return seen


tf.keras  # lazily loaded: load it first
snapshot()
"""


def test_importing_changes_no_attribute_of_tensorflow_or_keras():
    script = (
        SNAPSHOT
        + """
held = [list(vars(m).values()) for _, m in modules()]  # so that no id is used again
before = snapshot()
import tf_sparse_emb
after = snapshot()
assert len(before) > 5000
changed = sorted(str(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k))
print(changed)
"""
    )
    _assert_prints(script, "[]")


def test_importing_leaves_the_state_of_tensorflow_and_keras_as_it_was():
    script = """
import logging, os, random, sys, warnings
import keras, numpy as np, tensorflow as tf

def state():
    return {
        "floatx": keras.config.floatx(),
        "policy": keras.config.dtype_policy().name,
        "image": keras.config.image_data_format(),
        "eager": tf.executing_eagerly(),
        "functions": tf.config.functions_run_eagerly(),
        "intra": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter": tf.config.threading.get_inter_op_parallelism_threads(),
        "jit": tf.config.optimizer.get_jit(),
        "placement": tf.config.get_soft_device_placement(),
        "log": tf.get_logger().level,
        "root_log": (logging.getLogger().level, len(logging.getLogger().handlers)),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "numpy": np.random.get_state()[1].tolist(),
        "python": hash(random.getstate()),
        "name": keras.src.backend.common.global_state.get_global_attribute("object_name_uids"),
    }

keras.utils.set_random_seed(1)
before = state()
import tf_sparse_emb
after = state()
print(sorted(k for k in before if before[k] != after[k]), float(keras.random.normal(())))
"""
    with_import = _python(script)
    without = _python(script.replace("import tf_sparse_emb\n", ""))
    assert (with_import.returncode, without.returncode) == (0, 0), with_import.stderr[-3000:]
    assert with_import.stdout.startswith("[] ")
    assert with_import.stdout == without.stdout


def test_importing_registers_no_bare_name_with_keras():
    script = """
import keras, tensorflow as tf
before = dict(keras.saving.get_custom_objects())
import tf_sparse_emb
after = keras.saving.get_custom_objects()
assert all(after[k] is v for k, v in before.items())
print(sorted(k for k in after if k not in before and ">" not in k))
"""
    _assert_prints(script, "[]")


def test_models_without_our_layers_train_the_same_after_the_import():
    script = """
import keras, numpy as np
{}
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.layers.Embedding(9, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(np.arange(8).reshape(4, 2), np.ones((4, 1)), epochs=2, verbose=0)
print([w.tobytes().hex() for w in model.get_weights()])
"""
    with_import, without = _python(script.format("import tf_sparse_emb")), _python(script.format(""))
    assert with_import.returncode == 0, with_import.stderr[-3000:]
    assert len(without.stdout) > 100
    assert with_import.stdout == without.stdout


@pytest.mark.parametrize("backend", ["jax", "torch", "numpy"])
def test_another_keras_backend_is_an_import_error_that_names_tensorflow(backend):
    """Keras is told to answer as it does on the other backend, which need not be installed for that."""
    script = f"""
import os
import keras
keras.backend.backend = keras.config.backend = keras.src.backend.backend = lambda: {backend!r}
keras.src.backend.config.backend = keras.backend.backend
os.environ["KERAS_BACKEND"] = {backend!r}
try:
    import tf_sparse_emb
except ImportError as error:
    assert {backend!r} in str(error), error
    print("tensorflow" in str(error).lower(), "KERAS_BACKEND" in str(error))
"""
    _assert_prints(script, "True True", KERAS_BACKEND="tensorflow")


def test_it_works_where_tf_keras_is_the_legacy_keras():
    script = """
import keras, numpy as np
import tf_sparse_emb as tse
inputs = keras.Input((2,), dtype="int64")
model = keras.Sequential([inputs, tse.Embedding(None, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
model.compile(tse.optimizers.RowWiseAdam(), "mse")
model.fit(np.arange(8).reshape(4, 2), np.ones((4, 1)), verbose=0)
print(int(model.layers[0].embeddings.size()))
"""
    _assert_prints(script, "8", TF_USE_LEGACY_KERAS="1")


def test_another_tensorflow_than_the_one_it_was_built_for_is_an_import_error_that_names_both():
    script = f"""
import tensorflow as tf
real = {tf.__version__!r}
tf.__version__ = tf.version.VERSION = "2.99.0"
try:
    import tf_sparse_emb
except ImportError as error:
    print("2.99" in str(error), real.rsplit(".", 1)[0] in str(error), "pip" in str(error) or "build" in str(error))
"""
    _assert_prints(script, "True True True")


MODULES = {"tse": tse} | {f"tse.{name}": getattr(tse, name) for name in ("initializers", "legacy", "ops", "optimizers")}
EXPECTED = {
    "tse": {"Embedding", "EmbeddingVariable", "initializers", "ops", "optimizers"},
    "tse.ops": {
        "embedding_key_dedup",
        "embedding_lookup",
        "embedding_duplicate",
        "embedding_grad_reduce",
        "embedding_update",
    },
    "tse.optimizers": {"SGD", "RowWiseAdagrad", "RowWiseAdam"},
    "tse.initializers": {"UniformUnitScaling"},
    "tse.legacy": {"Embedding", "EmbeddingCollection", "SGD", "RowWiseAdagrad", "RowWiseAdam"},
}


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_sorted_complete_and_documented(name):
    module = MODULES[name]
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) >= EXPECTED[name]
    for public in module.__all__:
        member = getattr(module, public)
        if inspect.isclass(member) or inspect.isfunction(member) or inspect.ismodule(member):
            assert len(inspect.getdoc(member).splitlines()[0]) > 10, public


@pytest.mark.parametrize("op", sorted(EXPECTED["tse.ops"]))
def test_each_op_documents_its_arguments(op):
    function = getattr(tse.ops, op)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            assert parameter.name in function.__doc__, parameter.name


def test_the_installed_version_is_a_string_of_numbers():
    assert tse.__version__.split(".")[0].isdigit()
