"""Programs of the chief: `python cluster_programs.py <function> <arguments>` prints what the function returns."""

import contextlib
import hashlib
import json
import sys

import keras
import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse

BATCH, STEPS = 32, 12


def connect(**kwargs):
    """The strategy of the cluster of TF_CONFIG."""
    return tse.distribute.parameter_server_strategy(timeout=60, **kwargs)


def data():
    """Keys of two features, one of them bounded, with repeats and the ends of int64; and labels."""
    rng = np.random.default_rng(1)
    count = BATCH * STEPS
    items = rng.zipf(1.3, [count, 4]) * 2**40 - 7
    items[:3, 0] = [2**63 - 1, -(2**63), 0]
    countries = rng.integers(0, 50, count)
    labels = (items.sum(1) % 3 == 0).astype(np.float32)
    return {"items": items.astype(np.int64), "country": countries}, labels


def dataset_fn(context):
    """A part of `data`."""
    dataset = tf.data.Dataset.from_tensor_slices(data())
    return dataset.shard(context.num_input_pipelines, context.input_pipeline_id).batch(BATCH)


def make_model(optimizer=None, **table):
    """Two tables, one of them bounded, dense layers, a metric."""
    keras.utils.set_random_seed(3)
    inputs = {
        "items": keras.Input([4], dtype="int64", name="items"),
        "country": keras.Input([], dtype="int64", name="country"),
    }
    layer = tse.EmbeddingCollection(
        [
            tse.TableConfig("item", None, 8, seed=1, **table),
            tse.TableConfig("country", 50, 8, "glorot_uniform", seed=2),
        ],
        [
            tse.FeatureConfig("items", "item", combiner="mean"),
            tse.FeatureConfig("country", "country"),
        ],
        concat=True,
        name="embeddings",
    )
    hidden = keras.layers.Dense(8, "relu")(layer(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile(optimizer or tse.optimizers.RowWiseAdam(0.05, clipnorm=1.0), "binary_crossentropy", metrics=["AUC"])
    return model


def digest(model):
    """What a model holds: the bits of its rows and state by key, and of its other variables."""
    bits = {}
    for i, value in enumerate(model.get_weights()):
        if isinstance(value, tse.TableSnapshot):
            order = np.argsort(value.keys)
            parts = [value.keys[order], value.rows[order], value.state[order]]
        else:
            parts = [value]
        bits[str(i)] = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    return bits


def trained(place, optimizer=None, **table):
    """The history and the content of a model trained for two epochs: on the cluster, or in this process."""
    with place.scope() if place else contextlib.nullcontext():
        model = make_model(optimizer and getattr(tse.optimizers, optimizer)(0.05), **table)
    if place is None:
        dataset = tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
        history = model.fit(dataset, epochs=2, verbose=0, validation_data=dataset).history
    else:
        trainer = tse.distribute.ParameterServerTrainer(model)
        history = trainer.fit(
            dataset_fn, steps_per_epoch=STEPS, epochs=2, verbose=0, validation_data=dataset_fn
        ).history
    return {"history": {name: history[name] for name in sorted(history)}, "content": digest(model)}, model


def bit_equality(optimizers):
    """Trains in this process and on the cluster with each optimizer."""
    strategy = connect()
    results = {}
    for optimizer in json.loads(optimizers):
        one, _ = trained(None, optimizer)
        cluster, model = trained(strategy, optimizer)
        sizes = [int(shard.size()) for shard in model.get_layer("embeddings").tables["item"].shards]
        results[optimizer] = {"one": one, "cluster": cluster, "sizes": sizes}
    return results


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    print("RESULT " + json.dumps(result), flush=True)
