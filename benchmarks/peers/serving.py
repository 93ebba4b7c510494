"""Lookups for serving: ours, and tf.gather on variables of the same rows."""

import time

import numpy as np
import tensorflow as tf

from benchmarks.peers import tensorflow_step


def initial_rows(rows, dim):
    """The rows that both have, float32 [rows, dim]: a function of their place."""
    return np.sin(np.arange(rows * dim, dtype=np.float32)).reshape(rows, dim)


class Serving:
    """Times lookups: `look_up(keys)` is made by a subclass, for keys [B, F] of one table or of F tables.

    Args:
        rows, dim: of a table.
        features: F.
        tables: 1 or F.
    """

    def __init__(self, threads, rows, dim, features, tables, **arguments):
        tensorflow_step.use_threads(threads)
        self.rows, self.dim, self.features = rows, dim, features
        look_up = self.make(tables, initial_rows(rows, dim), **arguments)
        self.look_up = tf.function(look_up, input_signature=[tf.TensorSpec([None, features], tf.int64)])

        @tf.function(input_signature=[tf.TensorSpec([None, None, features], tf.int64)])
        def loop(keys):
            total = tf.zeros([])
            for number in tf.range(tf.shape(keys)[0]):
                values = look_up(keys[number])
                total += values[0, 0]  # so that every lookup is needed
            return total

        self.loop = loop

    def _keys(self, shape, seed):
        return np.random.default_rng(seed).integers(self.rows, size=(*shape, self.features))

    def check(self):
        """Returns what is wrong with the values; None if nothing."""
        keys = self._keys([64], 1)
        want = initial_rows(self.rows, self.dim)[keys].reshape(64, -1)
        return None if np.array_equal(self.look_up(tf.constant(keys)), want) else "values are not the rows of the keys"

    def run(self, steps, batch, seed):
        """Returns of each lookup the milliseconds of a call of the tf.function, and of its CPU time."""
        times = []
        for keys in map(tf.constant, self._keys([steps, batch], seed)):
            begin, cpu = time.perf_counter(), time.process_time()
            self.look_up(keys)
            times.append([1e3 * (time.perf_counter() - begin), 1e3 * (time.process_time() - cpu)])
        return times

    def run_loop(self, steps, batch, seed):
        """Returns the milliseconds of a lookup in a loop of `steps` inside the graph."""
        keys = tf.constant(self._keys([steps, batch], seed))
        self.loop(keys[:2])
        begin = time.perf_counter()
        self.loop(keys)
        return 1e3 * (time.perf_counter() - begin) / steps


class Gather(Serving):
    """tf.gather."""

    def make(self, tables, rows):
        """Returns the lookup."""
        variables = [tf.Variable(rows) for _ in range(tables)]

        def look_up(keys):
            if tables == 1:
                return tf.reshape(tf.gather(variables[0], keys), [-1, self.features * self.dim])
            columns = tf.unstack(keys, axis=1)
            return tf.concat([tf.gather(table, keys) for table, keys in zip(variables, columns, strict=True)], axis=1)

        return look_up


class Ours(Serving):
    """`tse.Embedding` on one table, `tse.EmbeddingCollection` on several."""

    def make(self, tables, rows, storage):
        """Returns the lookup."""
        import tf_sparse_emb as tse

        input_dim = len(rows) if storage == "index" else None
        if tables == 1:
            layer = tse.Embedding(input_dim, self.dim, storage=storage)
            layer.build()
            layer.embeddings.upsert(np.arange(len(rows)), rows)
            return lambda keys: tf.reshape(layer(keys), [-1, self.features * self.dim])
        names = [f"f{number}" for number in range(tables)]
        layer = tse.EmbeddingCollection(
            [tse.TableConfig(name, input_dim, self.dim, storage=storage) for name in names],
            [tse.FeatureConfig(name, name) for name in names],
            concat=True,
        )
        layer.build()
        for table in layer.tables.values():
            table.upsert(np.arange(len(rows)), rows)
        return lambda keys: layer(dict(zip(names, tf.unstack(keys, axis=1), strict=True)))
