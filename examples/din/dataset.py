"""Click logs as flat arrays, and the padded batches made from them.

Letters: E examples, L clicks in the log, B examples of a batch, T positions of its longest history.
"""

import dataclasses

import numpy as np

# Padding is named by the mask, never by its id: any int64, this one too, may be a real item.
PADDING = 0


@dataclasses.dataclass(frozen=True)
class Examples:
    """E impressions. The history of example e is the `lengths[e]` clicks of the log from `starts[e]` on."""

    users: np.ndarray  # int64 [E]
    items: np.ndarray  # int64 [E], the candidate
    categories: np.ndarray  # int64 [E], the candidate's category
    starts: np.ndarray  # int64 [E]
    lengths: np.ndarray  # int64 [E]
    labels: np.ndarray  # float32 [E], 1 = clicked
    probabilities: np.ndarray | None = None  # float64 [E], the true click probability where a generator knows it

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        """The examples that `index` (a slice, a boolean mask or an index array) selects."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Examples(**{name: None if column is None else column[index] for name, column in columns.items()})


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The log of clicks, each user's in time order, and the examples that point into it."""

    log_items: np.ndarray  # int64 [L]
    log_categories: np.ndarray  # int64 [L]
    train: Examples
    held_out: Examples

    def mapped(self, new_ids):
        """The same data with other ids: new_ids(column, ids) of each of the columns "user", "item" and "category"."""

        def mapped_examples(examples):
            return dataclasses.replace(
                examples,
                users=new_ids("user", examples.users),
                items=new_ids("item", examples.items),
                categories=new_ids("category", examples.categories),
            )

        return Dataset(
            log_items=new_ids("item", self.log_items),
            log_categories=new_ids("category", self.log_categories),
            train=mapped_examples(self.train),
            held_out=mapped_examples(self.held_out),
        )

    def hashed(self):
        """The same data with ids spread over all 64 bits, as ids are that nobody has numbered."""
        salts = {"item": 1, "user": 2, "category": 3}
        return self.mapped(lambda column, ids: hashed_ids(ids, salts[column]))

    def reindexed(self):
        """The same data with users, items and categories numbered 1, 2, ..., as `keras.layers.Embedding` needs them.

        Returns: the dataset, and the number of rows (largest id + 1) of each of "user", "item" and "category".
        """
        columns = {
            "user": (self.train.users, self.held_out.users),
            "item": (self.log_items, self.train.items, self.held_out.items),
            "category": (self.log_categories, self.train.categories, self.held_out.categories),
        }
        vocabularies = {name: np.unique(np.concatenate(arrays)) for name, arrays in columns.items()}

        dataset = self.mapped(lambda column, ids: np.searchsorted(vocabularies[column], ids) + 1)
        return dataset, {name: len(vocabulary) + 1 for name, vocabulary in vocabularies.items()}


def hashed_ids(numbers, salt):
    """int64 ids spread over all 64 bits: splitmix64 of (number, salt), a bijection for each salt."""
    with np.errstate(over="ignore"):
        bits = numbers.astype(np.uint64) + np.uint64(salt) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (bits ^ (bits >> np.uint64(31))).view(np.int64)


def padded_batch(dataset, examples):
    """The model's inputs and labels for `examples`, the histories padded to the longest of them.

    Returns: a dict of user, item, category int64 [B], history_items, history_categories int64 [B, T] and
        history_mask bool [B, T] (False = padding); labels float32 [B].
    """
    offsets = np.arange(examples.lengths.max(initial=0))
    mask = offsets < examples.lengths[:, None]
    positions = np.where(mask, examples.starts[:, None] + offsets, 0)
    inputs = {
        "user": examples.users,
        "item": examples.items,
        "category": examples.categories,
        "history_items": np.where(mask, dataset.log_items[positions], PADDING),
        "history_categories": np.where(mask, dataset.log_categories[positions], PADDING),
        "history_mask": mask,
    }
    return inputs, examples.labels


def shuffled_batches(lengths, batch_size, rng, window=50):
    """One epoch of random batches whose histories are of similar length, so that little of a batch is padding.

    All examples are shuffled; each run of `window` batches is sorted by history length and cut into batches; the
    batches are shuffled.

    Returns: a list of index arrays, together a permutation of the E examples.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for first in range(0, len(order), window * batch_size):
        run = order[first : first + window * batch_size]
        run = run[np.argsort(lengths[run], kind="stable")]
        batches += np.split(run, range(batch_size, len(run), batch_size))
    rng.shuffle(batches)
    return batches


def epoch_of_batches(dataset, examples, batch_size, rng=None):
    """Yields the padded batches of one epoch, in NumPy; with `rng`, in a random order."""
    if rng is None:
        indices = np.split(np.arange(len(examples)), range(batch_size, len(examples), batch_size))
    else:
        indices = shuffled_batches(examples.lengths, batch_size, rng)
    for index in indices:
        yield padded_batch(dataset, examples[index])


def batched(dataset, examples, batch_size, shuffle_seed=None):
    """A `tf.data.Dataset` of padded batches; with `shuffle_seed`, in a new random order at each epoch."""
    import tensorflow as tf  # here, so that torch_reference.py reads the same batches without it

    rng = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
    num_batches = -(-len(examples) // batch_size)

    def spec(rank, dtype):
        return tf.TensorSpec([None] * rank, dtype)

    inputs = {
        "user": spec(1, tf.int64),
        "item": spec(1, tf.int64),
        "category": spec(1, tf.int64),
        "history_items": spec(2, tf.int64),
        "history_categories": spec(2, tf.int64),
        "history_mask": spec(2, tf.bool),
    }
    batches = tf.data.Dataset.from_generator(
        lambda: epoch_of_batches(dataset, examples, batch_size, rng), output_signature=(inputs, spec(1, tf.float32))
    )
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(8)
