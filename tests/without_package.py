"""Runs exports in a process that cannot import tf_sparse_emb: by TensorFlow's Python loader, and by the session loader.

    python without_package.py FOLDER ...

Each folder has model/, a SavedModel, and inputs.npz, the arguments of its signatures, `signature/argument`. Writes
python.npz and session.npz, `signature/output`.
"""

import os
import sys

sys.modules["tf_sparse_emb"] = None  # an import of it raises
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def run_python(path, calls):
    model = tf.saved_model.load(path)
    return {name: model.signatures[name](**_tensors(arguments)) for name, arguments in calls.items()}


def _tensors(arguments):
    return {name: tf.constant(value) for name, value in arguments.items()}


def run_session(path, calls):
    """As TensorFlow Serving does: the graph, its variables and its initialisation, and signatures by tensor names."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def
        outputs = {}
        for name, arguments in calls.items():
            feeds = {signatures[name].inputs[argument].name: value for argument, value in arguments.items()}
            fetches = {output: info.name for output, info in signatures[name].outputs.items()}
            outputs[name] = session.run(fetches, feeds)
        return outputs


def _nested(arrays):
    calls = {}
    for path, value in arrays.items():
        name, argument = path.split("/", 1)
        calls.setdefault(name, {})[argument] = value
    return calls


def _flat(calls):
    return {f"{name}/{output}": np.asarray(value) for name, values in calls.items() for output, value in values.items()}


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        calls = _nested(np.load(f"{folder}/inputs.npz"))
        np.savez(f"{folder}/python.npz", **_flat(run_python(f"{folder}/model", calls)))
        np.savez(f"{folder}/session.npz", **_flat(run_session(f"{folder}/model", calls)))
