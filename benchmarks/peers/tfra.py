"""TensorFlow Recommenders Addons: dynamic_embedding's Keras layer, on legacy Keras."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402
from tensorflow_recommenders_addons import dynamic_embedding as de  # noqa: E402

from benchmarks.peers import tensorflow_step  # noqa: E402
from benchmarks.peers.training import TrainingContestant  # noqa: E402

FILL = 1 << 20  # keys of one insert


class Training(TrainingContestant):
    """A layer for each feature; it does not pool. The rule is that of tf_keras.optimizers.legacy.Adagrad.

    A full table has a row for every key in its table of embeddings; the optimizer's own table of accumulators, which
    TFRA keeps apart, holds the keys that were trained.
    """

    made = 0

    use_threads = staticmethod(tensorflow_step.use_threads)

    def prepare(self, task, keys, targets):
        """See TrainingContestant."""
        if task.constant is None:
            initializer = tf_keras.initializers.RandomUniform(-0.05, 0.05)
        else:
            initializer = tf_keras.initializers.Constant(task.constant)
        self.layers = []
        for rows in task.cardinalities:
            # Names are global identities in TFRA: two layers of one name are one table.
            Training.made += 1
            self.layers.append(
                de.keras.layers.Embedding(
                    task.dim, initializer=initializer, name=f"table{Training.made}", init_capacity=2 * rows
                )
            )
        optimizer = de.DynamicEmbeddingOptimizer(tf_keras.optimizers.legacy.Adagrad(task.learning_rate))
        if task.fill:
            for layer, rows in zip(self.layers, task.cardinalities, strict=True):
                for start in range(0, rows, FILL):
                    count = min(FILL, rows - start)
                    layer.params.upsert(
                        tf.range(start, start + count, dtype=tf.int64),
                        initializer([count, task.dim], tf.float32),
                    )

        def look_up(keys):
            values = [layer(feature) for layer, feature in zip(self.layers, keys, strict=True)]
            return tensorflow_step.pooled(task, values)

        def variables():
            return [variable for layer in self.layers for variable in layer.trainable_variables]

        self.step = tensorflow_step.make(task, keys, targets, look_up, variables, optimizer)

    def rows(self, feature, keys):
        """See TrainingContestant."""
        return self.layers[feature].params.lookup(tf.constant(keys)).numpy()
