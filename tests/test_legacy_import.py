"""tse.legacy is imported when it is asked for, and says what to install where tf_keras is missing."""

import pytest
import tensorflow as tf
from legacy_cases import prints

import tf_sparse_emb as tse


def test_the_package_does_not_import_tf_keras():
    script = """
import sys
import tf_sparse_emb as tse
before = "tf_keras" in sys.modules, "tf_sparse_emb.legacy" in sys.modules
layer = tse.legacy.Embedding
import tf_sparse_emb.legacy
print(before, layer is tf_sparse_emb.legacy.Embedding, "tf_keras" in sys.modules)
"""
    assert prints(script) == "(False, False) True True"


@pytest.mark.parametrize("how", ["tse.legacy", "importlib.import_module('tf_sparse_emb.legacy')"])
def test_without_tf_keras_the_error_says_what_to_install(how):
    script = f"""
import importlib, sys
sys.modules["tf_keras"] = None
import tf_sparse_emb as tse
tse.Embedding(None, 2).build()
try:
    {how}
except ImportError as error:
    print(error)
"""
    minor = ".".join(tf.__version__.split(".")[:2])
    text = prints(script)
    assert text.startswith("tse.legacy is made of layers and optimizers of tf_keras, which cannot be imported (")
    assert f'pip install --no-deps "tf_keras=={minor}.*"' in text
    assert "tse.optimizers" in text


def test_another_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tf_sparse_emb' has no attribute 'legasy'"):
        _ = tse.legasy


@pytest.mark.parametrize("legacy_keras", ["0", "1"])
def test_it_trains_whichever_keras_tf_keras_is(legacy_keras):
    """TF_USE_LEGACY_KERAS=1 makes tf.keras the one of tf_keras; the other way round both are there too."""
    script = f"""
import numpy as np, tensorflow as tf, tf_keras
import tf_sparse_emb as tse
legacy = tf.keras if {legacy_keras} else tf_keras
layer = tse.legacy.Embedding(None, 4, combiner="mean")
model = legacy.Sequential([legacy.Input((2,), dtype="int64"), layer, legacy.layers.Dense(1)])
model.compile(tse.legacy.RowWiseAdam(), "mse")
model.fit(np.arange(8).reshape(4, 2), np.ones((4, 1)), verbose=0)
print(tf.keras.Model is tf_keras.Model, isinstance(layer, legacy.layers.Layer), int(layer.embeddings.size()))
"""
    assert prints(script, TF_USE_LEGACY_KERAS=legacy_keras) == f"{legacy_keras == '1'} True 8"
