"""Text classification: mean pooling over padded sequences of word keys.

    python examples/text_classification.py

Which package of Python's standard library does a docstring come from? The text is on every machine: the sources of
the running Python are parsed, not imported. Packages that are not there (Debian leaves tkinter out) are passed over.

A word's key is its 64-bit fingerprint: no vocabulary is built, and a word of the held-out docstrings that training
never saw reads as its initial row. Documents are padded to one length with the key 0, which is `padding_idx`: it has no
trained row and is left out of the mean.

Result (Python 3.11, ten packages, seed 1): accuracy .879 on 676 held-out docstrings, of which the largest package
has .256; 8 s on two cores.
"""

import ast
import pathlib
import re
import sysconfig

import keras
import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse

PACKAGES = (
    "asyncio",
    "email",
    "http",
    "importlib",
    "logging",
    "multiprocessing",
    "tkinter",
    "unittest",
    "urllib",
    "xml",
)
FEWEST_DOCSTRINGS = 50
FEWEST_WORDS = 4
MOST_WORDS = 100
PADDING = 0


def docstrings(package):
    """The differing docstrings of a package, each a list of lower-case words, in the order of its files."""
    folder = pathlib.Path(sysconfig.get_path("stdlib")) / package
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if {"test", "tests"} & set(path.relative_to(folder).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                words = re.findall("[a-z]+", (ast.get_docstring(node) or "").lower())
                if len(words) >= FEWEST_WORDS:
                    found[tuple(words)] = None
    return [list(words) for words in found]


def padded_keys(documents):
    """The keys of documents: int64 [documents, MOST_WORDS], cut or padded with PADDING."""
    words = tf.ragged.constant(documents)
    keys = tf.bitcast(tf.fingerprint(words.flat_values), tf.int64)
    return words.with_flat_values(keys).to_tensor(PADDING, shape=[None, MOST_WORDS]).numpy()


def load(packages, rng):
    """Training and held-out (keys, label) arrays, a quarter held out, and the packages that were found."""
    texts = {package: docstrings(package) for package in packages}
    texts = {package: documents for package, documents in texts.items() if len(documents) >= FEWEST_DOCSTRINGS}
    if len(texts) < 2:
        raise RuntimeError(f"fewer than two of {', '.join(packages)} have sources in {sysconfig.get_path('stdlib')}")
    keys = padded_keys([words for documents in texts.values() for words in documents])
    labels = np.repeat(np.arange(len(texts)), [len(documents) for documents in texts.values()])
    order = rng.permutation(len(labels))
    held_out, train = np.split(order, [len(order) // 4])
    return (keys[train], labels[train]), (keys[held_out], labels[held_out]), list(texts)


def main(packages=PACKAGES, epochs=12, seed=1):
    """Trains and returns the share of held-out docstrings whose package is found."""
    keras.utils.set_random_seed(seed)
    train, held_out, packages = load(packages, np.random.default_rng(seed))

    model = keras.Sequential(
        [
            keras.Input([MOST_WORDS], dtype="int64"),
            tse.Embedding(None, 32, combiner="mean", padding_idx=PADDING),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(packages)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tse.optimizers.RowWiseAdam(0.01), loss, metrics=["accuracy"])
    model.fit(*train, epochs=epochs, batch_size=32, verbose=0)

    accuracy = model.evaluate(*held_out, batch_size=256, verbose=0, return_dict=True)["accuracy"]
    majority = np.mean(held_out[1] == np.bincount(train[1]).argmax())
    print(f"seed {seed}: {len(train[1])} docstrings of {len(packages)} packages, {len(held_out[1])} held out")
    print(f"the table has {int(model.layers[0].embeddings.size())} rows")
    print(f"held-out accuracy {accuracy:.3f}; the largest package is {majority:.3f} of the held-out docstrings")
    return accuracy


if __name__ == "__main__":
    main()
