"""Programs that train and save in a loop, until they are killed.

What they save says in all its parts of which step it is: every gradient is 1, so after t steps of row-wise Adagrad the
state of every row and of the dense variable is t, and every weight is w(t) = -sum_{i <= t} 1 / (sqrt(i) + eps).

A new way to save is a class in SAVERS with the members of `TableFile`.
"""

import os
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse

DIM = 8
KEYS = np.arange(50_000)
KEPT = 2  # checkpoints, of a `CheckpointManager`


def step_of(parts):
    """The step that {name: (weights, state)} are of; an AssertionError if they are not all of one."""
    step = int(next(iter(parts.values()))[1].flat[0])
    want = -np.sum(1 / (np.sqrt(np.arange(1, step + 1)) + 1e-8))
    for name, (weights, state) in parts.items():
        np.testing.assert_array_equal(state, np.float32(step), err_msg=f"state of {name}")
        np.testing.assert_array_equal(weights, weights.flat[0], err_msg=f"weights of {name}")
        np.testing.assert_allclose(weights.flat[0], want, rtol=1e-5, err_msg=f"weights of {name}")
    return step


def _rows_of(table):
    content = table.numpy()
    np.testing.assert_array_equal(np.sort(content.keys), KEYS, err_msg="keys")
    return content.rows, content.state


class TableFile:
    """`EmbeddingVariable.save`, again and again to one file."""

    # Names of what a process that was killed may leave in the folder beside the checkpoints.
    unfinished = re.compile(r"items\.table\.unfinished-\d+-\d+")

    def __init__(self, folder):
        self._path = os.path.join(folder, "items.table")
        self._table = tse.EmbeddingVariable(DIM, initializer="zeros")
        self._table.bind("row_wise_adagrad")

    def checkpoints(self):
        """Paths that `restore` takes, the oldest first."""
        return [self._path] if os.path.exists(self._path) else []

    def files(self):
        """Names of the files that belong to the checkpoints."""
        return {os.path.basename(path) for path in self.checkpoints()}

    def restore(self, path):
        """Loads a checkpoint; returns its step, having looked at all of it."""
        self._table.load(path)
        return step_of({"rows": _rows_of(self._table)})

    def train(self):
        """One step."""
        tse.ops.embedding_update(
            self._table, KEYS, np.ones([len(KEYS), DIM], np.float32), "row_wise_adagrad", learning_rate=1.0
        )

    def save(self):
        """What is killed."""
        self._table.save(self._path)


class _Sums(keras.Model):
    """Every weight's gradient is 1."""

    def __init__(self):
        super().__init__()
        self.embedding = tse.Embedding(None, DIM, "zeros")
        self.dense = self.add_weight(shape=[1000], initializer="zeros", name="dense")

    def call(self, keys, training=None):
        return tf.reduce_sum(self.embedding(keys, training=training)) + tf.reduce_sum(self.dense)


class _Training:
    """Steps of a model and its optimizer, and what they have come to."""

    def __init__(self):
        self.model = _Sums()
        self.optimizer = tse.optimizers.RowWiseAdagrad(1.0)
        self.model(KEYS, training=True)
        self.optimizer.build(self.model.trainable_variables)

    def run(self):
        """One step."""
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            total = self.model(KEYS, training=True)
        self.optimizer.apply(tape.gradient(total, variables), variables)

    def step(self):
        """The step that all of it is of."""
        (state,) = (v for v in self.optimizer.variables if v.shape == self.model.dense.shape)
        rows = _rows_of(self.model.embedding.embeddings)
        step = step_of({"rows": rows, "dense": (self.model.dense.numpy(), state.numpy())})
        assert int(self.optimizer.iterations) == step
        return step


class Manager:
    """`tf.train.CheckpointManager` with a model and its optimizer."""

    # TensorFlow's own: a checkpoint that is not listed yet (the process that goes on writes it again, under the same
    # name) or no longer, folders of parts, and the list before it gets its name.
    unfinished = re.compile(r"ckpt-\d+(.*_temp|\.index|\.data-.*)(\.tempstate\d+)?|checkpoint\.tmp\w+")

    def __init__(self, folder):
        self._training = _Training()
        checkpoint = tf.train.Checkpoint(model=self._training.model, optimizer=self._training.optimizer)
        self._manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=KEPT)

    def checkpoints(self):
        # One more is listed while TensorFlow deletes it, which it does when the new one is there.
        return self._manager.checkpoints[-KEPT:]

    def files(self):
        folder = self._manager.directory
        kept = tuple(f"{os.path.basename(path)}." for path in self.checkpoints())
        return {name for name in os.listdir(folder) if name == "checkpoint" or name.startswith(kept)}

    def restore(self, path):
        self._manager.checkpoint.restore(path).assert_consumed()
        return self._training.step()

    def train(self):
        self._training.run()

    def save(self):
        self._manager.save()


class Incremental:
    """`tse.saving.IncrementalCheckpoint`: a full save, two increments, a full save, ..."""

    # The last save, if it is not listed yet, and what has no name yet.
    unfinished = re.compile(r"save-\d+|\.(save-\d+|latest\.json)\.[0-9a-f]{8}\.unfinished")

    def __init__(self, folder):
        self._folder, self._last = folder, ""
        self._training = _Training()
        self._checkpoint = tse.saving.IncrementalCheckpoint(
            folder, max_increments=2, max_to_keep=1, model=self._training.model, optimizer=self._training.optimizer
        )

    def checkpoints(self):
        # The saves of a folder are restored as one.
        return [self._folder] if any(name.startswith("save-") for name in os.listdir(self._folder)) else []

    def files(self):
        names = os.listdir(self._folder)
        return {name for name in names if name == "latest.json" or "save-" <= name <= os.path.basename(self._last)}

    def restore(self, path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*latest.json")
            restored = self._checkpoint.restore()
        # Which is missing if the first save ever was killed when it was whole.
        is_listed = os.path.exists(os.path.join(self._folder, "latest.json"))
        assert restored.problem == "" if is_listed else restored.number == 1, restored
        self._last = restored.path
        return self._training.step()

    def train(self):
        self._training.run()

    def save(self):
        self._checkpoint.save()


SAVERS = {"table_file": TableFile, "checkpoint_manager": Manager, "incremental_checkpoint": Incremental}


def run(name, folder, pipe):
    """Goes on from the newest checkpoint; tells the pipe before every save and after it, of which step it is."""
    saver = SAVERS[name](folder)
    checkpoints = saver.checkpoints()
    step = saver.restore(checkpoints[-1]) if checkpoints else 0
    pipe.send(("saved", step))
    while True:
        saver.train()
        step += 1
        pipe.send(("saving", step))
        saver.save()
        pipe.send(("saved", step))
