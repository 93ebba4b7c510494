"""The DIN of examples/din, trained by `fit` from its input pipeline."""

import pathlib
import sys
import time

import keras
import numpy as np

from benchmarks.peers import tensorflow_step

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples"))

from din import data, model, train  # noqa: E402
from din.dataset import Dataset, Examples, batched, padded_batch  # noqa: E402

MAX_HISTORY = 50


def draw_log(num_examples, sizes, seed):
    """A log of random clicks, items Zipf(1.05), users uniform, histories of 1 to 50 clicks; ids from 1 on."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(np.arange(1, sizes["item"] + 1, dtype=np.float64) ** -1.05)
    permutation = rng.permutation(sizes["item"])

    def draw(count):
        ranks = np.searchsorted(cumulative / cumulative[-1], rng.random(count))
        items = 1 + permutation[np.minimum(ranks, sizes["item"] - 1)]
        return items, 1 + items % sizes["category"]

    log_items, log_categories = draw(4 * num_examples)
    lengths = rng.integers(1, MAX_HISTORY + 1, num_examples)
    items, categories = draw(num_examples)
    examples = Examples(
        users=rng.integers(1, sizes["user"] + 1, num_examples),
        items=items,
        categories=categories,
        starts=rng.integers(0, len(log_items) - MAX_HISTORY, num_examples),
        lengths=lengths,
        labels=rng.integers(0, 2, num_examples).astype(np.float32),
    )
    return Dataset(log_items, log_categories, examples, examples[:0])


class Din:
    """DIN on our tables or on keras.layers.Embedding. All tables are full from the start.

    Args:
        embedding: "tse" or "keras".
        optimizer: a name of examples/din/train.py.
        dim, batch: width of each table and examples of a step.
        log: {"seed", "sizes", "examples"}, of a log that is drawn, or {"data_dir"}, of the Amazon Video Games files.
    """

    def __init__(self, threads, embedding, optimizer, dim, batch, log):
        tensorflow_step.use_threads(threads)
        self.batch = batch
        if "data_dir" in log:
            self.dataset, rows = data.load("video-games", log["data_dir"]).reindexed()
        else:
            self.dataset = draw_log(log["examples"], log["sizes"], log["seed"])
            rows = {column: size + 1 for column, size in log["sizes"].items()}
        make_embedding, layers = train.embedding_factory(embedding, rows)
        columns = []

        def remember(column, dim, initializer, name):
            columns.append(column)
            return make_embedding(column, dim, initializer, name)

        self.model = model.build_model(remember, embedding_dim=dim, user_table=True)
        optimizer = train.make_optimizer(optimizer, train.LEARNING_RATES[optimizer])
        self.model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
        self.layers = [(layer, rows[column]) for layer, column in zip(layers, columns, strict=True)]
        optimizer.build(self.model.trainable_variables)
        for number, (layer, size) in enumerate(self.layers):
            self._set_rows(layer, size, number)
        tables = {id(layer.embeddings) for layer in layers}
        rng = np.random.default_rng(1)
        for weight in self.model.trainable_weights:
            if id(weight) not in tables:
                weight.assign(rng.normal(0, 0.05, weight.shape))
        self.data = batched(self.dataset, self.dataset.train, batch, shuffle_seed=1).repeat()

    @staticmethod
    def _set_rows(layer, size, number):
        """Gives a table all its rows, the same for every contestant."""
        rng = np.random.default_rng(number)
        width = layer.embeddings.shape[-1]
        rows = rng.uniform(-0.05, 0.05, (size, width)).astype(np.float32)
        if isinstance(layer, keras.layers.Embedding):
            layer.embeddings.assign(rows)
        else:
            for start in range(0, size, 1 << 20):
                part = rows[start : start + (1 << 20)]
                layer.embeddings.upsert(np.arange(start, start + len(part)), part)

    def loss(self):
        """The loss of the first examples, before training: the same for every contestant."""
        inputs, labels = padded_batch(self.dataset, self.dataset.train[: self.batch])
        return float(self.model.evaluate(inputs, labels, batch_size=self.batch, verbose=0))

    def run(self, steps):
        """Trains `steps` batches by `fit`. Returns of each the milliseconds and those of CPU time."""
        clock = _Clock()
        self.model.fit(self.data, steps_per_epoch=steps + 1, epochs=1, verbose=0, shuffle=False, callbacks=[clock])
        return np.diff(clock.ends, axis=0).tolist()


class _Clock(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append([1e3 * time.perf_counter(), 1e3 * time.process_time()])
