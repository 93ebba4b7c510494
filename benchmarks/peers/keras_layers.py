"""keras.layers.Embedding with Keras 3's own optimizers."""

import keras
import tensorflow as tf

from benchmarks.peers import tensorflow_step
from benchmarks.peers.training import TrainingContestant

OPTIMIZERS = {"keras_adagrad": keras.optimizers.Adagrad, "keras_adam": keras.optimizers.Adam}


class Training(TrainingContestant):
    """A layer for each feature; it cannot pool, so a bag is the sum or mean of what it returns."""

    use_threads = staticmethod(tensorflow_step.use_threads)

    def prepare(self, task, keys, targets):
        """See TrainingContestant."""
        initializer = "uniform" if task.constant is None else keras.initializers.Constant(task.constant)
        self.layers = [keras.layers.Embedding(rows, task.dim, initializer) for rows in task.cardinalities]
        for layer in self.layers:
            layer.build()
        variables = [layer.embeddings for layer in self.layers]
        optimizer = OPTIMIZERS[self.rule](task.learning_rate)
        optimizer.build(variables)

        def look_up(keys):
            values = [layer(feature) for layer, feature in zip(self.layers, keys, strict=True)]
            return tensorflow_step.pooled(task, values)

        self.step = tensorflow_step.make(task, keys, targets, look_up, variables, optimizer)

    def rows(self, feature, keys):
        """See TrainingContestant."""
        return tf.gather(self.layers[feature].embeddings.value, keys).numpy()
