"""What a user does first, with the package as it is installed: run it from a folder that has no sources.

Trains a model, saves it, loads it in another process and compares the predictions.

    python smoke.py            # ends with "installed and working: tf_sparse_emb ... for TensorFlow ..."
"""

import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402


def train(folder):
    """A model of 64-bit keys, saved with what it predicts."""
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, size=(512, 1))
    labels = (keys[:, 0] % 3 == 0).astype("float32")
    inputs = keras.Input([1], dtype="int64")
    vectors = keras.layers.Flatten()(tse.Embedding(None, 8, seed=1)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(vectors))
    model.compile(tse.optimizers.RowWiseAdam(0.05), keras.losses.BinaryCrossentropy(from_logits=True))
    losses = model.fit(keys, labels, epochs=3, batch_size=64, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0], losses
    model.save(f"{folder}/model.keras")
    np.savez(f"{folder}/seen.npz", keys=keys, predictions=model.predict(keys, verbose=0))


def check(folder):
    """In a new process: the saved model predicts the same."""
    seen = np.load(f"{folder}/seen.npz")
    model = keras.models.load_model(f"{folder}/model.keras")
    np.testing.assert_array_equal(model.predict(seen["keys"], verbose=0), seen["predictions"])


def main():
    """Trains here, checks in a child."""
    assert "site-packages" in tse.__file__, f"not the installed package: {tse.__file__}"
    with tempfile.TemporaryDirectory() as folder:
        train(folder)
        subprocess.run([sys.executable, __file__, folder], check=True)
    print(f"installed and working: tf_sparse_emb {tse.__version__} for TensorFlow {tf.__version__}")


if __name__ == "__main__":
    check(sys.argv[1]) if sys.argv[1:] else main()
