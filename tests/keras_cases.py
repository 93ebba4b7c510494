"""What the tests against keras.layers.Embedding share: pairs of layers with equal rows, and steps on both."""

import keras
import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse

V, D, STEPS = 19, 5, 4
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def our_layer(table, **kwargs):
    return tse.Embedding(V if table == "index" else None, D, **{"seed": 1} | kwargs)


def layer_pair(table, start, **kwargs):
    """keras.layers.Embedding and tse.Embedding with the same arguments and the rows `start`."""
    theirs, ours = keras.layers.Embedding(V, D, **kwargs), our_layer(table, **kwargs)
    theirs.build()
    ours.build()
    theirs.embeddings.assign(start)
    ours.embeddings.upsert(np.arange(V), start)
    return theirs, ours


def table_rows(layer):
    if isinstance(layer, tse.Embedding):
        return layer.embeddings.lookup(np.arange(V)).numpy()
    return layer.embeddings.numpy()


def dense_gradient(gradient):
    if not isinstance(gradient, tf.IndexedSlices):
        return np.asarray(gradient)
    dense = np.zeros((V, D), np.float32)
    np.add.at(dense, np.asarray(gradient.indices), np.asarray(gradient.values))
    return dense


def step_of(layer, optimizer, keys, coefficients):
    """One step on sum(c x + x^2 / 2) and the layer's own losses: the output, those losses and the gradient [V, D]."""
    with tf.GradientTape() as tape:
        output = layer(keys, training=True)
        losses = list(layer.losses)
        x = tf.cast(output, tf.float32)
        loss = tf.reduce_sum(coefficients * x + 0.5 * x**2) + sum(losses)
    (gradient,) = tape.gradient(loss, layer.trainable_variables)
    optimizer.apply_gradients([(gradient, layer.trainable_variables[0])])
    return output.numpy(), [float(loss) for loss in losses], dense_gradient(gradient)


def run_and_compare(theirs, ours, batches, rng, rate=0.05):
    """Runs both over the batches of keys; everything is equal at every step."""
    optimizers = keras.optimizers.SGD(rate), tse.optimizers.SGD(rate)
    before = table_rows(theirs)
    for keys in batches:
        coefficients = rng.normal(size=(*keys.shape, D)).astype(np.float32)
        want, got = (
            step_of(layer, optimizer, keys, coefficients)
            for layer, optimizer in zip((theirs, ours), optimizers, strict=True)
        )
        for expected, value in zip(want, got, strict=True):
            np.testing.assert_allclose(value, expected, **TOLERANCE)
        np.testing.assert_allclose(table_rows(ours), table_rows(theirs), **TOLERANCE)
    assert np.abs(table_rows(theirs) - before).max() > 1e-2
    assert int(tse.check(ours)) == V == int(ours.embeddings.size())


def every_row_once(rng):
    """A batch that names every row once: there, what Keras does to the whole table is done to the rows of the batch."""
    return [rng.permutation(V) for _ in range(STEPS)]
