"""The counts of keys: how often each was seen in training, and the labels that came with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from input_cases import BAD_ARGUMENT, FORMS, MODES, SOME_FORMS, TARGETS, V, flat_values, forms_and_combiners, make_layer

import tf_sparse_emb as tse


@pytest.fixture(params=["slab", "index"])
def storage(request):
    """Two of the storages: what is tested here lies above them."""
    return request.param


class CountsTwin:
    """{key: [seen, clicked]}, decayed at every update."""

    def __init__(self, decay=1.0):
        self.decay, self.counts = decay, {}

    def count(self, keys, labels=None):
        for n, key in enumerate(keys):
            counts = self.counts.setdefault(key, np.zeros(2))
            counts += [1.0, 0.0 if labels is None else labels[n]]

    def update(self):
        for counts in self.counts.values():
            counts *= self.decay

    def of(self, keys, width):
        return np.array([self.counts.get(key, np.zeros(2))[:width] for key in keys]).reshape(-1, width)


def _assert_counts(layer, twin, rtol=1e-12):
    keys = np.arange(-1, V + 1) if layer.input_dim is None else np.arange(V)
    width = {"seen": 1, "clicked": 2}[layer.counts]
    np.testing.assert_allclose(layer.embeddings.key_counts(keys), twin.of(keys.tolist(), width), rtol=rtol)


@pytest.mark.parametrize("counts", ["seen", "clicked"])
@pytest.mark.parametrize("form, pooled", forms_and_combiners(SOME_FORMS, [None, "mean"]))
@pytest.mark.parametrize("mode", MODES)
def test_training_counts_each_occurrence_of_a_key(counts, form, pooled, mode, rng):
    layer, twin = make_layer(counts=counts, combiner=pooled), CountsTwin()
    layer.build()
    call = layer if mode == "eager" else tf.function(layer)
    for _ in range(2):
        keys = FORMS[form](rng)
        call(keys, training=True)
        twin.count(np.reshape(flat_values(keys), -1).tolist())
    _assert_counts(layer, twin)


LABELS = {
    # keys, labels, the label of each of the flat keys
    "dense_2_rows": ([[3, 4], [4, 4]], [1.0, 2.0], [1, 1, 2, 2]),
    "dense_2_all": ([[3, 4], [4, 4]], [[1.0, 2.0], [3.0, 4.0]], [1, 2, 3, 4]),
    "dense_2_rows_as_keras_has_them": ([[3, 4], [4, 4]], [[1.0], [2.0]], [1, 1, 2, 2]),
    "dense_2_of_one_key_each": ([[3], [4]], [[1.0], [2.0]], [1, 2]),
    "dense_3_rows": ([[[3, 4]], [[4, 4]]], [1.0, 2.0], [1, 1, 2, 2]),
    "dense_3_bags": ([[[3, 4], [5, 6]]], [[1.0, 2.0]], [1, 1, 2, 2]),
    "dense_3_all": ([[[3, 4], [5, 6]]], [[[1.0, 2.0], [3.0, 4.0]]], [1, 2, 3, 4]),
    "ragged_rows": (tf.ragged.constant([[3, 4], [], [4]]), [1.0, 7.0, 2.0], [1, 1, 2]),
    "ragged_rows_as_keras_has_them": (tf.ragged.constant([[3, 4], [], [4]]), [[1.0], [7.0], [2.0]], [1, 1, 2]),
    "ragged_all": (tf.ragged.constant([[3, 4], [], [4]]), tf.ragged.constant([[1.0, 2.0], [], [3.0]]), [1, 2, 3]),
    "ragged_2_rows": (tf.ragged.constant([[[3, 4], [5]], [[]], [[4]]]), [1.0, 7.0, 2.0], [1, 1, 1, 2]),
    "ragged_2_bags": (
        tf.ragged.constant([[[3, 4], [5]], [[]], [[4]]]),
        tf.ragged.constant([[1.0, 2.0], [7.0], [3.0]]),
        [1, 1, 2, 3],
    ),
    "ragged_2_all": (
        tf.ragged.constant([[[3, 4], [5]], [[]], [[4]]]),
        tf.ragged.constant([[[1.0, 2.0], [3.0]], [[]], [[4.0]]]),
        [1, 2, 3, 4],
    ),
    "ragged_of_uniform_inner_rows": (
        tf.RaggedTensor.from_row_lengths([[3, 4], [5, 6], [4, 4]], [2, 1]),
        [1.0, 2.0],
        [1, 1, 1, 1, 2, 2],
    ),
    "ragged_of_uniform_inner_bags": (
        tf.RaggedTensor.from_row_lengths([[3, 4], [5, 6], [4, 4]], [2, 1]),
        tf.ragged.constant([[1.0, 2.0], [3.0]]),
        [1, 1, 2, 2, 3, 3],
    ),
    "sparse_rows": (tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [3, 4, 4], [4, 2]), [1.0, 7.0, 2.0, 7.0], [1, 1, 2]),
    "sparse_rows_as_keras_has_them": (
        tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [3, 4, 4], [4, 2]),
        [[1.0], [7.0], [2.0], [7.0]],
        [1, 1, 2],
    ),
    "sparse_all": (
        tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [3, 4, 4], [4, 2]),
        tf.SparseTensor([[0, 0], [0, 1], [2, 0]], [1.0, 2.0, 3.0], [4, 2]),
        [1, 2, 3],
    ),
    "sparse_3_rows": (tf.SparseTensor([[0, 0, 0], [0, 1, 1], [1, 0, 0]], [3, 4, 4], [2, 2, 2]), [1.0, 2.0], [1, 1, 2]),
    "sparse_3_bags": (
        tf.SparseTensor([[0, 0, 0], [0, 1, 1], [1, 0, 0]], [3, 4, 4], [2, 2, 2]),
        [[1.0, 2.0], [3.0, 7.0]],
        [1, 2, 3],
    ),
}


@pytest.mark.parametrize(
    "case, pooled, mode",
    [
        *((case, pooled, "eager") for case, pooled in forms_and_combiners(LABELS, [None, "mean"])),
        *((case, "mean", "graph") for case in LABELS),
    ],
)
def test_labels_of_keys_or_of_their_leading_axes_are_added_up(case, pooled, mode):
    keys, labels, of_each = LABELS[case]
    layer, twin = make_layer(counts="clicked", combiner=pooled), CountsTwin()
    layer.build()
    if isinstance(keys, list):
        keys = np.array(keys)
    if isinstance(labels, list):
        labels = np.array(labels, np.float32)

    def call():
        return layer(keys, labels=labels, training=True)

    for _ in range(2):
        (call if mode == "eager" else tf.function(call))()
        twin.count(np.reshape(flat_values(keys), -1).tolist(), of_each)
    _assert_counts(layer, twin)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64, np.float16, bool])
def test_labels_of_any_number(dtype):
    layer = make_layer(counts="clicked")
    layer(np.array([[3, 4], [3, 3]]), labels=np.array([1, 0], dtype), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([3, 4]), [[3, 1], [1, 1]])


def test_labels_keep_their_bits_under_a_low_precision_policy():
    layer = make_layer(counts="clicked", dtype="mixed_bfloat16")
    layer(np.array([3]), labels=np.array([1.0009765625], np.float32), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([3]), [[1, 1.0009765625]])


BAD_LABELS = {
    "dense_of_another_batch": (np.ones((3, 2), int), np.ones(2)),
    "dense_of_one": (np.ones((3, 2), int), np.ones(1)),
    "dense_of_another_shape": (np.ones((3, 2), int), np.ones((3, 3))),
    "dense_with_a_last_axis_of_one_of_another_batch": (np.ones((3, 2), int), np.ones((2, 1))),
    "ragged_of_another_batch": (tf.ragged.constant([[3, 4], [4]]), np.ones(3)),
    "ragged_of_one": (tf.ragged.constant([[3, 4], [4]]), np.ones(1)),
    "other_row_splits": (tf.ragged.constant([[3, 4], [4]]), tf.ragged.constant([[1.0], [2.0, 3.0]])),
    "sparse_of_fewer_rows": (tf.SparseTensor([[0, 0], [2, 0]], [3, 4], [3, 1]), np.ones(2)),
    "sparse_of_more_rows": (tf.SparseTensor([[0, 0], [2, 0]], [3, 4], [3, 1]), np.ones(4)),
    "other_indices": (
        tf.SparseTensor([[0, 0], [2, 0]], [3, 4], [3, 1]),
        tf.SparseTensor([[0, 0], [1, 0]], [1.0, 1.0], [3, 1]),
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
@pytest.mark.parametrize("mode", MODES)
def test_labels_that_do_not_fit_the_keys_are_an_error(case, mode):
    keys, labels = BAD_LABELS[case]
    layer = make_layer(counts="clicked", combiner="sum")
    layer.build()

    def call():
        return layer(keys, labels=labels, training=True)

    with pytest.raises((*BAD_ARGUMENT, TypeError)):
        (call if mode == "eager" else tf.function(call))()
    assert mode == "graph" or int(layer.embeddings.size()) == 0


@pytest.mark.parametrize("counts", [None, "seen"])
def test_labels_of_a_table_that_does_not_count_them_are_a_value_error(counts):
    with pytest.raises(ValueError, match="labels need counts='clicked'"):
        make_layer(counts=counts)(np.array([1]), labels=np.array([1.0]), training=True)


@pytest.mark.parametrize("training", [False, None])
def test_nothing_is_counted_outside_of_training(storage, training):
    layer = make_layer(storage, counts="clicked")
    layer(np.array([1, 2]), training=True)
    layer(np.array([1, 2]), labels=np.array([1.0, 1.0]), training=training)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2, 3]), [[1, 0], [1, 0], [0, 0]])


def test_a_frozen_layer_counts_nothing(storage):
    layer = make_layer(storage, counts="seen")
    layer(np.array([1, 2]), training=True)
    layer.trainable = False
    layer(np.array([1, 2]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2]), [[1], [1]])


@pytest.mark.parametrize("pooled", [None, "mean", "max"])
def test_a_padding_key_is_not_counted(storage, pooled):
    layer = make_layer(storage, counts="clicked", padding_idx=5, combiner=pooled)
    layer(np.array([[1, 5], [5, 5]]), labels=np.array([1.0, 1.0]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 5]), [[1, 1], [0, 0]])


def test_key_0_is_not_counted_where_bags_leave_it_out(storage):
    layer = make_layer(storage, counts="clicked", mask_zero=True, combiner="sum")
    layer(np.array([[0, 1], [0, 2]]), labels=np.array([[7.0, 1.0], [7.0, 2.0]]), training=True)
    np.testing.assert_array_equal(layer.embeddings.key_counts([0, 1, 2]), [[0, 0], [1, 1], [1, 2]])


@pytest.mark.parametrize("optimizer", ["SGD", "RowWiseAdagrad", "RowWiseAdam"])
@pytest.mark.parametrize("counts", ["seen", "clicked"])
@pytest.mark.parametrize("mode", MODES)
def test_counts_decay_at_every_step_of_the_optimizer(storage, optimizer, counts, mode, rng):
    decay = 0.75  # exact in float32
    layer, twin = make_layer(storage, counts=counts, count_decay=decay, combiner="mean"), CountsTwin(decay)
    layer.build()
    optimizer = getattr(tse.optimizers, optimizer)(0.1)
    optimizer.build([layer.embeddings])

    def step(keys, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(keys, labels=labels, training=True) ** 2)
        optimizer.apply_gradients([(tape.gradient(loss, layer.embeddings), layer.embeddings)])

    step = step if mode == "eager" else tf.function(step)
    for _ in range(6):
        # From step to step other keys: most miss several steps, and are decayed when they are read.
        keys, labels = rng.integers(0, V, (3, 2)), rng.integers(0, 2, 3).astype(np.float32)
        step(tf.constant(keys), tf.constant(labels) if counts == "clicked" else None)
        twin.count(keys.reshape(-1).tolist(), np.repeat(labels, 2))
        twin.update()
        _assert_counts(layer, twin)
    keys, rows, got = (np.asarray(x) for x in layer.embeddings.export(with_counts=True))
    assert len(keys) == len(rows) == (V if storage == "index" else len(twin.counts))
    np.testing.assert_allclose(got, twin.of(keys.tolist(), got.shape[1]), rtol=1e-12)


def test_a_decay_that_float32_does_not_hold_is_the_one_given():
    """After many steps a decay rounded to float32 would be off by as many roundings."""
    layer = tse.Embedding(10, 2, counts="seen", count_decay=0.999)
    layer(np.array([1]), training=True)
    optimizer = tse.optimizers.SGD(0.1)
    optimizer.build([layer.embeddings])
    step = tf.function(lambda: optimizer.apply_gradients([(gradient, layer.embeddings)]))
    gradient = tf.IndexedSlices(tf.zeros([1, 2]), tf.constant([2], tf.int64), tf.constant([2**62, 2], tf.int64))
    for _ in range(300):
        step()
    np.testing.assert_allclose(layer.embeddings.key_counts([1]), [[0.999**300]], rtol=1e-9)


def test_two_calls_in_a_step_are_counted_both():
    layer, twin = make_layer(counts="seen", count_decay=0.5), CountsTwin(0.5)
    optimizer = tse.optimizers.SGD(0.1)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(np.array([1, 2, 1]), training=True)) + tf.reduce_sum(
                layer(np.array([[2, 3]]), training=True)
            )
        optimizer.apply_gradients([(tape.gradient(loss, layer.embeddings), layer.embeddings)])
        twin.count([1, 2, 1, 2, 3])
        twin.update()
    _assert_counts(layer, twin)


def test_fit_counts_every_key_of_every_epoch(storage, rng):
    keys = rng.integers(0, V, (16, 3))
    layer, twin = make_layer(storage, counts="seen", combiner="mean"), CountsTwin()
    inputs = keras.Input((3,), dtype="int64")
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit(keys, TARGETS, batch_size=4, epochs=3, verbose=0)
    model.predict(keys, verbose=0)
    twin.count(np.tile(keys.reshape(-1), 3).tolist())
    _assert_counts(layer, twin)


def test_labels_as_an_input_of_a_functional_model():
    layer = make_layer(counts="clicked", combiner="sum")
    keys, labels = keras.Input((2,), dtype="int64"), keras.Input((), dtype="float32")
    model = keras.Model([keys, labels], keras.layers.Dense(1)(layer(keys, labels=labels)))
    model.compile(tse.optimizers.SGD(0.1), "mse")
    model.fit([np.array([[1, 2], [2, 3]]), np.array([1.0, 0.0])], np.ones((2, 1)), verbose=0)
    np.testing.assert_array_equal(layer.embeddings.key_counts([1, 2, 3]), [[1, 1], [2, 1], [1, 0]])


def test_key_counts_have_the_shape_of_the_keys(storage):
    layer = make_layer(storage, counts="clicked")
    layer(np.array([1, 1, 2]), labels=np.array([1.0, 0.0, 3.0]), training=True)
    counts = layer.embeddings.key_counts(tf.constant([[1, 2], [3, 1]], tf.int32))
    assert counts.dtype == tf.float64
    np.testing.assert_array_equal(counts, [[[2, 1], [1, 3]], [[0, 0], [2, 1]]])
    assert layer.embeddings.key_counts(np.zeros((0, 4), np.int64)).shape == (0, 4, 2)


def test_the_counts_of_a_table_that_counts_nothing_are_a_value_error(storage):
    layer = make_layer(storage)
    layer(np.array([1]), training=True)
    with pytest.raises(ValueError, match="(?s)counts nothing.*seen.*clicked"):
        layer.embeddings.key_counts([1, 2])


def test_counts_do_not_change_what_is_learned(rng):
    tables = []
    for counts in (None, "seen", "clicked"):
        layer = make_layer(counts=counts, combiner="mean")
        inputs = keras.Input((3,), dtype="int64")
        dense = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
        model = keras.Model(inputs, dense(layer(inputs)))
        model.compile(tse.optimizers.RowWiseAdam(0.1), "mse")
        model.fit(np.arange(48).reshape(16, 3) % V, TARGETS, batch_size=4, shuffle=False, verbose=0)
        tables.append(layer.embeddings.lookup(np.arange(V)).numpy())
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])
