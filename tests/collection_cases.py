"""What the tests of tse.EmbeddingCollection share: tables, keys, and steps of training."""

import keras
import numpy as np
import reference
import tensorflow as tf

import tf_sparse_emb as tse

MODES = ("eager", "graph")
ALL_COMBINERS = (*reference.COMBINERS, "max")
V, BATCH = 20, 5


def table_config(name, output_dim=3, input_dim=None, **kwargs):
    kwargs = {"embeddings_initializer": keras.initializers.RandomNormal(), "seed": 7} | kwargs
    return tse.TableConfig(name, input_dim, output_dim, **kwargs)


def build_collection(tables, features, **kwargs):
    layer = tse.EmbeddingCollection(tables, features, **kwargs)
    layer.build()
    return layer


def flat_values(values):
    if isinstance(values, tf.RaggedTensor):
        return values.flat_values
    return values.values if isinstance(values, tf.SparseTensor) else values


def with_flat_values(like, values):
    if isinstance(like, tf.RaggedTensor):
        return like.with_flat_values(values)
    return like.with_values(values) if isinstance(like, tf.SparseTensor) else values


def table_rows(table, keys=range(V)):
    return table.lookup(np.array(keys)).numpy()


def dense_gradient(gradient):
    """IndexedSlices of keys 0 to V - 1 as a matrix; None as zeros."""
    dense = np.zeros((V, gradient.values.shape[1]))
    np.add.at(dense, gradient.indices.numpy(), gradient.values.numpy())
    return dense


def train_step(layer, inputs, optimizer, **call):
    """One step that makes all outputs smaller; returns the outputs."""
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=True, **call)
        loss = sum(tf.reduce_sum(flat_values(output) ** 2) for output in outputs.values())
    variables = layer.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    return outputs


def random_keys(rng, form, batch=BATCH):
    if form == "single":
        return tf.constant(rng.integers(0, V, batch))
    if form == "dense":
        return tf.constant(rng.integers(0, V, (batch, rng.integers(1, 5))))
    lengths = rng.integers(0, 5, batch)
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(0, V, lengths.sum()), lengths)
    return ragged if form == "ragged" else ragged.to_sparse()
