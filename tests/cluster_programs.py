"""Programs of the chief: `python cluster_programs.py <function> <arguments>` prints what the function returns."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from cluster_processes import listeners
from tensorflow.python.distribute.coordinator.values import RemoteValueImpl

import tf_sparse_emb as tse
from tf_sparse_emb.servers import set_wire_dtype

BATCH, STEPS = 32, 12
SAVED_ROWS = 200_000


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


class Counting(keras.Model):
    """Every step takes 1 from each weight, and from a row for each occurrence of its key: both count steps exactly."""

    def __init__(self):
        super().__init__()
        self.embedding = tse.Embedding(None, 4, "zeros", combiner="sum")
        self.kernel = self.add_weight(shape=(200, 300), initializer="zeros")

    def call(self, keys, training=None):
        return self.embedding(keys, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return tf.reduce_sum(y_pred) + tf.reduce_sum(self.kernel)

    def steps_done(self):
        """How many steps the table has seen, and the elements of the kernel that have seen least and most: floats."""
        rows = -float(np.sum(self.embedding.embeddings.numpy().rows)) / (BATCH * 3 * 4)
        return [rows, -float(np.max(self.kernel)), -float(np.min(self.kernel))]


def counting_fn(context):
    """Keys without end."""
    keys = np.random.default_rng(1).integers(0, 500, [64, BATCH, 3])
    return tf.data.Dataset.from_tensor_slices((keys, tf.zeros([64]))).repeat()


class Notes(keras.callbacks.Callback):
    """Writes the number of steps done to a file, for those who kill."""

    def __init__(self, path):
        super().__init__()
        self._path = path
        self._steps = itertools.count(1)

    def on_train_batch_end(self, batch, logs=None):
        Path(self._path).write_text(str(next(self._steps)))


def count(notes, steps, dense=None):
    """Counts steps on the cluster, the kernel's by the optimizer of Keras that is named, if one is."""
    with connect().scope():
        model = Counting()
        model(tf.zeros([1, 3], tf.int64))
        dense_optimizer = dense and keras.optimizers.get({"class_name": dense, "config": {"learning_rate": 1.0}})
        optimizer = tse.optimizers.SGD(1.0, dense_optimizer=dense_optimizer)
        model.compile(optimizer)
    trainer = tse.distribute.ParameterServerTrainer(model)
    history = trainer.fit(counting_fn, steps_per_epoch=int(steps), callbacks=[Notes(notes)], verbose=0).history
    counters = [optimizer, dense_optimizer] if dense_optimizer else [optimizer]
    iterations = [int(counter.iterations) for counter in counters]
    return {"steps": model.steps_done(), "iterations": iterations, "history": history}


def count_while_results_are_lost(notes, steps, worker):
    """Counts steps; kills the worker, whose process this is the number of, before the chief has a step's result."""
    get, copy = RemoteValueImpl.get, RemoteValueImpl._copy_to_local
    copies = itertools.count(1)

    def get_late(self):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)  # the trainer is first
        return get(self)

    def kill_and_copy(self):
        if threading.current_thread() is threading.main_thread() and next(copies) == 20:
            os.kill(int(worker), signal.SIGKILL)
            time.sleep(0.5)
        return copy(self)

    RemoteValueImpl.get, RemoteValueImpl._copy_to_local = get_late, kill_and_copy
    return count(notes, steps)


def train_saving(notes, directory, epochs):
    """Trains, saving after each epoch; a server that is lost is reported."""
    with connect().scope():
        model = make_model()
    trainer = tse.distribute.ParameterServerTrainer(model, checkpoint_dir=directory)
    try:
        history = trainer.fit(
            dataset_fn, steps_per_epoch=STEPS, epochs=int(epochs), callbacks=[Notes(notes)], verbose=0
        ).history
    except tse.distribute.ServerLostError as error:
        return {"lost": str(error)}
    return {"history": history, "content": digest(model)}


def save_without_end(notes, directory):
    """Goes on from the last save, until it or a server is killed; notes what it found, and each save's begin and end.

    Every gradient is 1, so that the state of every row of row-wise Adagrad is the number of steps.
    """
    keys = np.arange(SAVED_ROWS)
    with connect().scope():
        table = tse.EmbeddingVariable(8, initializer="zeros", name="item")
    table.bind("row_wise_adagrad")
    checkpoint = tse.saving.IncrementalCheckpoint(directory, max_increments=2, max_to_keep=1, table=table)
    found = {"problem": "", "step": 0}
    if os.path.exists(directory):
        found["problem"] = checkpoint.restore().problem
        content = table.numpy()
        found["step"] = int(content.state[0, 0])
        assert np.array_equal(np.sort(content.keys), keys)
        assert np.all(content.state == found["step"]) and np.all(content.rows == content.rows[0, 0])
    with open(notes, "a", buffering=1) as file:

        def note(**what):
            file.write(json.dumps(what) + "\n")

        note(**found)
        for step in itertools.count(found["step"] + 1):
            tse.ops.embedding_update(table, keys, np.ones([SAVED_ROWS, 8]), "row_wise_adagrad", learning_rate=1.0)
            note(saving=step)
            start = time.monotonic()
            checkpoint.save()
            note(saved=step, seconds=time.monotonic() - start)


def reshard(directory, epochs, place="cluster"):
    """Restores what was saved, if anything, trains for some epochs with a save after each; all of relative paths."""
    Path(directory).mkdir(exist_ok=True)
    os.chdir(directory)
    strategy = connect() if place == "cluster" else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make_model()
        model.optimizer.build(model.trainable_variables)

    def content():
        return {**digest(model), "optimizer": [np.asarray(v).tolist() for v in model.optimizer.variables]}

    checkpoint = tse.saving.IncrementalCheckpoint("saves", max_to_keep=9, model=model, optimizer=model.optimizer)
    checkpoint.restore()
    restored = content()
    for _ in range(int(epochs)):
        if strategy:
            tse.distribute.ParameterServerTrainer(model).fit(dataset_fn, steps_per_epoch=STEPS, verbose=0)
        else:
            model.fit(tf.data.Dataset.from_tensor_slices(data()).batch(BATCH), verbose=0)
        path = checkpoint.save()
    return {
        "restored": restored,
        "trained": content(),
        "files": len(list(Path(path).glob("0.*.table"))),
    }


def narrow_wire():
    """Trains with each type on the wire; returns the losses and whether rows are of that type's bits."""
    results = {}
    strategy = connect()
    for name in ("float32", "float16", "bfloat16"):
        set_wire_dtype(strategy, tf.as_dtype(name))
        result, model = trained(strategy)
        table = model.get_layer("embeddings").tables["item"]
        keys = table.numpy().keys
        rows = table.lookup(keys).numpy()
        results[name] = {
            "loss": result["history"]["loss"],
            "read_as_sent": bool(np.array_equal(rows, tf.cast(tf.cast(rows, name), tf.float32))),
            "kept_whole": not np.array_equal(table.read_rows(keys), rows),
        }
    set_wire_dtype(strategy, tf.float16)
    with strategy.scope():
        table = tse.EmbeddingVariable(2, initializer="zeros", name="wide")
        table.bind("sgd")
    try:
        tse.ops.embedding_update(table, [5], [[1e6, 0.0]], "sgd", learning_rate=1.0, check_finite=False)
        results["overflow"] = "nothing"
    except tf.errors.InvalidArgumentError as error:
        results["overflow"] = error.message
    results["size"] = int(table.size())
    return results


def methods():
    """What the methods of a table on servers return, beside those of one in this process."""
    keys = np.array([5, -(2**63), 2**63 - 1, 0, 5, 77])
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    results = []
    for place in (contextlib.nullcontext(), connect().scope()):
        with place:
            table = tse.EmbeddingVariable(2, seed=1, counts="seen")
        table.bind("row_wise_adagrad")
        table.lookup(keys[:4], insert=True)
        table.upsert(keys, rows)
        table.scatter_add(keys, rows)
        table.remove([0])
        table.add_counts(keys[:3], [[1.0], [2.0], [3.0]], keys_differ=True)
        tse.ops.embedding_update(table, keys[1:], rows[1:], "row_wise_adagrad", learning_rate=0.5)
        content = table.numpy()
        order = np.argsort(content.keys)
        chunks = list(table.export_chunks(2))
        statistics = table.statistics()
        results.append(
            {
                "lookup": table.lookup([[5, 1234567], [0, 77]]).numpy().tolist(),
                "zeros": table.lookup([1234567], missing="zeros").numpy().tolist(),
                "contains": table.contains(keys).numpy().tolist(),
                "counts": table.key_counts(keys).numpy().tolist(),
                "state": table.read_rows(keys, with_state=True).numpy().tolist(),
                "size": int(table.size()),
                "content": [part[order].tolist() for part in (content.keys, content.rows, content.state)],
                "chunks": sorted(int(key) for part in chunks for key in part[0]),
                "statistics": [int(statistics[name]) for name in ("rows", "row_bytes", "state_bytes")],
                "seed": table.seed,
            }
        )
        table.assign(content)
        results[-1]["again"] = table.lookup(keys).numpy().tolist()
        table.clear()
        results[-1]["cleared"] = int(table.size())
    return results


def listening():
    """Connects and returns where this process, the chief, listens."""
    connect()
    port = int(json.loads(os.environ["TF_CONFIG"])["cluster"]["chief"][0].rsplit(":", 1)[1])
    return listeners(port)


class Calls(keras.callbacks.Callback):
    """Notes what is called."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append([batch, sorted(logs)])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append([epoch, sorted(logs)])


def callbacks(folder):
    """Trains with Keras' callbacks, several steps a call."""
    strategy = connect()

    def train(steps_per_execution, callbacks, epochs=2, compiled=None):
        with strategy.scope():
            model = make_model(compiled)
        trainer = tse.distribute.ParameterServerTrainer(model, steps_per_execution=steps_per_execution)
        history = trainer.fit(
            dataset_fn,
            steps_per_epoch=STEPS,
            epochs=epochs,
            verbose=0,
            validation_data=dataset_fn,
            validation_freq=2,
            callbacks=callbacks,
        ).history
        return history, model

    results, calls = {}, Calls()
    results["one"], _ = train(1, [])
    board = keras.callbacks.TensorBoard(f"{folder}/logs")
    results["four"], _ = train(4, [calls, board, keras.callbacks.TerminateOnNaN()])
    results["batches"], results["epochs"] = calls.batches, calls.epochs
    best = keras.callbacks.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True)
    history, model = train(1, [best], epochs=6)
    results["stopped"] = history["loss"]
    keys = data()[0]["items"]
    once, first = train(1, [], epochs=1)
    tables = [m.get_layer("embeddings").tables["item"].lookup(keys).numpy() for m in (model, first)]
    results["restored"] = bool(np.array_equal(*tables))
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0)
    _, still = train(1, [rates], compiled=tse.optimizers.SGD(0.1))
    results["still"] = bool(np.array_equal(still.get_weights()[-2], make_model().get_weights()[-2]))
    try:
        train(1, [keras.callbacks.ModelCheckpoint(f"{folder}/model.keras")])
        results["file"] = "nothing"
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        results["file"] = str(error)
    return results


def readme_example(folder):
    """Runs the README's example of a cluster; returns the history and how many rows each server has."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = [block for block in re.findall(r"```py\n(.*?)```", text, flags=re.S) if "LocalCluster" in block]
    model = []

    def keep_model():
        model.append(make_model())
        return model[0]

    names = {"tse": tse, "make_model": keep_model, "dataset_fn": dataset_fn, "validation_fn": dataset_fn}
    # While the cluster is there.
    code += '    results = model.history.history, [int(s.size()) for s in model.layers[2].tables["item"].shards]\n'
    exec(code.replace("/shared/checkpoints", folder).replace("=1000", f"={STEPS}"), names)
    return names["results"]


def tf_keras_fit():
    """Trains a tf_keras model with its own fit, here and on the cluster."""
    import tf_keras

    strategy = connect()
    inputs, labels = data()

    def make():
        tf_keras.utils.set_random_seed(1)
        keys = tf_keras.Input([4], dtype="int64")
        rows = tse.legacy.Embedding(None, 8, combiner="mean", seed=1)(keys)
        model = tf_keras.Model(keys, tf_keras.layers.Dense(1, "sigmoid")(rows))
        model.compile(tse.legacy.RowWiseAdam(0.05), "binary_crossentropy")
        return model

    def make_dataset(context=None):
        return tf.data.Dataset.from_tensor_slices((inputs["items"], labels)).batch(BATCH).repeat()

    one = make()
    histories = [one.fit(make_dataset(), steps_per_epoch=STEPS, epochs=2, verbose=0).history]
    with strategy.scope():
        model = make()
    creator = tf_keras.utils.experimental.DatasetCreator(make_dataset)
    histories.append(model.fit(creator, steps_per_epoch=STEPS, epochs=2, verbose=0).history)
    keys = np.unique(inputs["items"])
    rows = [m.layers[1].embeddings.lookup(keys).numpy() for m in (one, model)]
    return {
        "histories": histories,
        "equal": bool(np.array_equal(*rows)),
        "sizes": [int(shard.size()) for shard in model.layers[1].embeddings.shards],
    }


def wrong_places():
    """The errors of tables that are used where they are not."""
    errors = {}

    def note(name, call):
        try:
            call()
            errors[name] = "nothing"
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            errors[name] = f"{type(error).__name__}: {error}"

    here = tse.EmbeddingVariable(2, name="here")
    strategy = connect()
    with strategy.scope():
        there = tse.EmbeddingVariable(2, name="there")
        note("of this process", lambda: here.lookup([1]))
        note("max_rows", lambda: tse.EmbeddingVariable(2, max_rows=1))
        uncompiled = keras.Sequential([keras.Input([2], dtype="int64"), tse.Embedding(None, 2)])
    note("save", lambda: there.save("/tmp/there.table"))
    note("load", lambda: there.load("/tmp/there.table"))
    note("export in a function", tf.function(lambda: there.export()))
    note("uncompiled", lambda: tse.distribute.ParameterServerTrainer(uncompiled))
    note("no model", lambda: tse.distribute.ParameterServerTrainer(3))
    elsewhere = make_model()
    note("other scope", lambda: tse.distribute.ParameterServerTrainer(elsewhere))
    with strategy.scope():
        model = make_model()
    trainer = tse.distribute.ParameterServerTrainer(model, steps_per_execution=4)
    note("dataset", lambda: trainer.fit(dataset_fn(tf.distribute.InputContext(1, 0, 1)), steps_per_epoch=4))
    note("steps", lambda: trainer.fit(dataset_fn, steps_per_epoch=6))
    note("epochs", lambda: trainer.fit(dataset_fn, steps_per_epoch=8, epochs=0))
    # What is not refused: a lookup by the chief itself.
    there.lookup([1, 2], insert=True)
    return {"errors": errors, "size": int(there.size())}


def refused(timeout=3):
    """The error of what cannot be connected to."""
    try:
        tse.distribute.parameter_server_strategy(timeout=float(timeout))
    except (ValueError, RuntimeError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return "connected"


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    print("RESULT " + json.dumps(result), flush=True)
