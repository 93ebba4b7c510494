"""tf_sparse_emb."""

import keras
import tensorflow as tf

import tf_sparse_emb as tse
from benchmarks.peers import tensorflow_step
from benchmarks.peers.training import TrainingContestant

OPTIMIZERS = {"row_wise_adagrad": tse.optimizers.RowWiseAdagrad, "row_wise_adam": tse.optimizers.RowWiseAdam}
FILL = 1 << 20  # keys of one insert


def fill(table, rows):
    """Makes the rows of keys 0 to rows - 1."""
    insert = tf.function(lambda keys: tf.size(table.lookup(keys, insert=True)))
    for start in range(0, rows, FILL):
        insert(tf.range(start, min(start + FILL, rows), dtype=tf.int64))


class Training(TrainingContestant):
    """`tse.Embedding` for one feature, `tse.EmbeddingCollection` for several."""

    def __init__(self, threads, rule, storage):
        self.storage = storage
        super().__init__(threads, rule)

    use_threads = staticmethod(tensorflow_step.use_threads)

    def prepare(self, task, keys, targets):
        """See TrainingContestant."""
        initializer = "uniform" if task.constant is None else keras.initializers.Constant(task.constant)
        layer, self.tables = self._layer(task, initializer)
        optimizer = OPTIMIZERS[self.rule](task.learning_rate)
        optimizer.build(self.tables)
        if task.fill and self.storage != "index":
            for table, rows in zip(self.tables, task.cardinalities, strict=True):
                fill(table, rows)
        self.step = tensorflow_step.make(task, keys, targets, layer, self.tables, optimizer)

    def _layer(self, task, initializer):
        """A function from the keys of all features to the output, and its tables."""

        def arguments(rows):
            return rows if self.storage == "index" else None, task.dim, initializer

        settings = {"storage": self.storage, "seed": task.seed}
        if len(task.cardinalities) == 1:
            layer = tse.Embedding(*arguments(*task.cardinalities), combiner=task.combiner, **settings)
            layer.build()
            return lambda keys: layer(keys[0], training=True), [layer.embeddings]
        sizes = {f"f{number}": rows for number, rows in enumerate(task.cardinalities)}
        layer = tse.EmbeddingCollection(
            [tse.TableConfig(name, *arguments(rows), **settings) for name, rows in sizes.items()],
            [tse.FeatureConfig(name, name, combiner=task.combiner) for name in sizes],
            concat=True,
        )
        layer.build()
        return lambda keys: layer(dict(zip(sizes, keys, strict=True)), training=True), list(layer.tables.values())

    def rows(self, feature, keys):
        """See TrainingContestant."""
        return self.tables[feature].lookup(keys).numpy()
