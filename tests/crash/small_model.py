"""The model whose files are damaged and do not fit."""

import keras
import numpy as np

import tf_sparse_emb as tse

DIM = 8


def make_model():
    keys = keras.Input([2], dtype="int64", name="keys")
    model = keras.Model(keys, keras.layers.Dense(1)(tse.Embedding(None, DIM, combiner="sum")(keys)))
    model.compile(tse.optimizers.RowWiseAdam(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def table_of(model):
    return model.layers[1].embeddings


def fill(model, rows):
    table_of(model).upsert(np.arange(rows), np.random.default_rng(rows).normal(size=[rows, DIM]))
