"""tse.Embedding beside torch.nn.Embedding and EmbeddingBag: the values in golden/torch_embedding.json, which
golden/make_torch_embedding.py recorded.

Where the layer differs from torch on purpose:

- max_norm scales the rows of the table while a trainable layer trains, and otherwise the output alone. torch scales its
  weight in place whenever it is read, also a frozen one and in eval mode.
- padding_idx=-1 is the last row where there is an input_dim, as in torch; on a dynamic table it is the key -1.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_sparse_emb as tse

GOLDEN = json.loads((Path(__file__).parent / "golden" / "torch_embedding.json").read_text())
CASES = GOLDEN["cases"]
TABLES = ("index", "dynamic")

# A few float32 roundings: sums of up to ten numbers of size one, in another order than torch's, and the norm of a row.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=TABLES)
def table(request):
    return request.param


def _float32(values):
    return np.array(values, np.float32)


def _layer(case, table):
    """The layer of a case, with its initial rows."""
    options = dict(case["options"])
    rows = _float32(case["initial"])
    vocabulary, dim = rows.shape
    pretrained = options.pop("pretrained", None)
    if "norm_type" in options:
        options["norm_type"] = float(options["norm_type"])
    if table == "dynamic" and "padding_idx" in options:
        options["padding_idx"] %= vocabulary
    if pretrained is not None:
        keys = None if table == "index" else np.arange(vocabulary)
        layer = tse.Embedding.from_pretrained(rows, keys, freeze=pretrained == "frozen", **options)
        layer.build((None,))
    else:
        layer = tse.Embedding(vocabulary if table == "index" else None, dim, seed=1, **options)
        layer.build((None,))
        layer.embeddings.upsert(np.arange(vocabulary), rows)
    return layer


def _arguments(step):
    """Keys and weights of a step as flat or dense tensors, the offsets of bags; None where there are none."""
    keys = tf.constant(step["keys"], tf.int64)
    offsets = tf.constant(step["offsets"], tf.int64) if "offsets" in step else None
    weights = tf.constant(step["weights"], tf.float32) if "weights" in step else None
    return keys, offsets, weights


def _call(layer, keys, offsets, weights, **kwargs):
    if offsets is not None:
        keys = tf.RaggedTensor.from_row_starts(keys, offsets)
        weights = None if weights is None else keys.with_values(weights)
    return layer(keys, **kwargs) if weights is None else layer(keys, weights=weights, **kwargs)


def _train_step(layer, optimizer, keys, offsets, weights, coefficients):
    """Output, table after the forward pass, gradients: a list of none or one of the table, and so of the weights."""
    watched = [] if weights is None else [weights]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        output = _call(layer, keys, offsets, weights, training=True)
        loss = tf.reduce_sum(output * coefficients)
    after_forward = layer.embeddings.export()
    variables = layer.trainable_variables
    gradients, weights_gradients = tape.gradient(loss, (variables, watched))
    if variables:
        optimizer.apply(gradients, variables)
    return output, after_forward, gradients, weights_gradients


def _rows(exported):
    """The table as a matrix in the order of its keys, which are 0 .. V - 1."""
    keys, rows = (np.asarray(part) for part in exported)
    order = np.argsort(keys)
    np.testing.assert_array_equal(keys[order], np.arange(len(keys)))
    return rows[order]


def _dense(slices, shape):
    assert isinstance(slices, tf.IndexedSlices)
    matrix = np.zeros(shape, np.float32)
    np.add.at(matrix, slices.indices.numpy(), slices.values.numpy())
    return matrix


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_training_does_what_torch_does(case, table, mode):
    layer = _layer(case, table)
    initial = _float32(case["initial"])
    frozen = case["options"].get("pretrained") == "frozen"
    assert layer.trainable is not frozen
    optimizer = tse.optimizers.SGD(learning_rate=GOLDEN["learning_rate"])
    if not frozen:
        optimizer.build(layer.trainable_variables)

    def train_step(*arguments):
        return _train_step(layer, optimizer, *arguments)

    if mode == "graph":
        train_step = tf.function(train_step)
    for step in case["steps"]:
        output, after_forward, gradients, weights_gradients = train_step(
            *_arguments(step), tf.constant(step["coefficients"], tf.float32)
        )
        np.testing.assert_allclose(output, _float32(step["output"]), **CLOSE)
        if frozen:  # where torch would still scale rows to max_norm
            assert gradients == []
            np.testing.assert_array_equal(_rows(layer.embeddings.export()), initial)
            continue
        if "rows_after_forward" in step:
            np.testing.assert_allclose(_rows(after_forward), _float32(step["rows_after_forward"]), **CLOSE)
        np.testing.assert_allclose(_dense(gradients[0], initial.shape), _float32(step["gradient"]), **CLOSE)
        if "weights_gradient" in step:
            np.testing.assert_allclose(weights_gradients[0], _float32(step["weights_gradient"]), **CLOSE)
        np.testing.assert_allclose(_rows(layer.embeddings.export()), _float32(step["rows"]), **CLOSE)


def test_without_training_the_output_is_that_of_torch_and_the_table_stays(case, table):
    layer = _layer(case, table)
    step = case["steps"][0]
    np.testing.assert_allclose(_call(layer, *_arguments(step)), _float32(step["output"]), **CLOSE)
    np.testing.assert_array_equal(_rows(layer.embeddings.export()), _float32(case["initial"]))


OPTIMIZERS = json.loads((Path(__file__).parent / "golden" / "torch_optimizers.json").read_text())


@pytest.mark.parametrize(
    "name, make",
    [
        ("sparse_adam", lambda: tse.optimizers.Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-8)),
        ("row_wise_adagrad", lambda: tse.optimizers.RowWiseAdagrad(0.1, epsilon=1e-8)),
    ],
)
def test_an_optimizer_does_what_that_of_torch_or_fbgemm_does(storage, name, make):
    start = np.array(OPTIMIZERS["start"], np.float32)
    rows, dim = start.shape
    layer = tse.Embedding(rows if storage == "index" else None, dim, combiner="sum", storage=storage)
    layer.build((None,))
    layer.embeddings.upsert(np.arange(rows), start)
    optimizer = make()
    optimizer.build([layer.embeddings])
    for keys, coefficients, want in zip(OPTIMIZERS["keys"], OPTIMIZERS["coefficients"], OPTIMIZERS[name], strict=True):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(np.array(keys), training=True) * np.array(coefficients, np.float32))
        optimizer.apply([tape.gradient(loss, layer.embeddings)], [layer.embeddings])
        np.testing.assert_allclose(layer.embeddings.lookup(np.arange(rows)), want, rtol=1e-5, atol=1e-6)
    assert (np.abs(np.array(want) - start).max(1)[:-1] > 0.01).all()
    np.testing.assert_array_equal(layer.embeddings.lookup([rows - 1]), start[-1:])
