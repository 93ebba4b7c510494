"""A table of ours that grows, and is then trained."""

import time

import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse
from benchmarks.peers import tensorflow_step
from benchmarks.peers.process import key_of, resident_bytes


class Growth:
    """Inserts batches of new keys into an empty table bound to row-wise Adagrad: a row is 4 (D + 1) bytes."""

    def __init__(self, threads, storage, dim, batch):
        tensorflow_step.use_threads(threads)
        self.dim, self.batch = dim, batch
        self.table = tse.EmbeddingVariable(dim, storage=storage, seed=1)
        self.optimizer = tse.optimizers.RowWiseAdagrad(0.01)
        self.optimizer.build([self.table])
        self.inserted = 0
        self.insert = tf.function(lambda keys: tf.size(self.table.lookup(keys, insert=True)))
        # Traced and warmed up on a key that is then forgotten, so that growth begins with an empty table.
        self.insert(tf.constant([0], tf.int64))
        self.table.clear()
        self.resident = resident_bytes()

    def _keys(self, batches):
        first = self.inserted
        self.inserted += batches * self.batch
        return tf.constant(key_of(np.arange(first, self.inserted)).reshape(batches, self.batch))

    def run(self, steps):
        """Inserts `steps` batches. Returns for each: ms, ms of CPU time, and the table's bytes a row afterwards."""
        results = []
        for keys in self._keys(steps):
            begin, cpu = time.perf_counter(), time.process_time()
            self.insert(keys)
            taken = time.perf_counter() - begin, time.process_time() - cpu
            rows = int(self.table.size())
            results.append([1e3 * taken[0], 1e3 * taken[1], int(self.table.memory_bytes()) / max(rows, 1)])
        return results

    def check(self):
        """Returns what is wrong with the table after it has grown; None if nothing."""
        if int(self.table.size()) != self.inserted:
            return f"{int(self.table.size())} rows after {self.inserted} different keys"
        some = key_of(np.random.default_rng(1).choice(self.inserted, 1000))
        if not np.all(self.table.contains(some)):
            return "keys that were inserted are missing"
        if np.any(self.table.contains(key_of(np.arange(self.inserted, self.inserted + 1000)))):
            return "keys that were not inserted are there"
        fresh = tse.EmbeddingVariable(self.dim, storage="slab", seed=1).lookup(some)
        return None if np.array_equal(self.table.lookup(some), fresh) else "rows are not the initial rows of the keys"

    def resident_per_row(self):
        """The growth of the process' memory, for each row."""
        return (resident_bytes() - self.resident) / self.inserted

    def train(self, steps):
        """Times training steps on uniform keys of the table: ms and ms of CPU time of each."""
        rng = np.random.default_rng(1)
        target = tf.zeros([self.batch, self.dim])

        @tf.function
        def step(keys):
            with tf.GradientTape() as tape:
                values = tse.embedding_lookup(self.table, keys, training=True)
                loss = tf.reduce_mean(tf.math.squared_difference(values, target))
            self.optimizer.apply_gradients([(tape.gradient(loss, self.table), self.table)])
            return loss

        results = []
        for _ in range(steps):
            keys = tf.constant(key_of(rng.integers(self.inserted, size=self.batch)))
            begin, cpu = time.perf_counter(), time.process_time()
            assert np.isfinite(step(keys))
            results.append([1e3 * (time.perf_counter() - begin), 1e3 * (time.process_time() - cpu)])
        return results
