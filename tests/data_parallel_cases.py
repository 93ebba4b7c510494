"""What the tests of data parallelism train, in one process, on two replicas of it, or in each of two workers.

As a program, `data_parallel_cases.py KIND OUT.npz NAME...`: trains the cases named in this process and writes what they
return, each array as NAME/key. KIND is "replicas", for two replicas on two logical CPUs, or "worker", for the part that
`TF_CONFIG` gives this process.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tf_sparse_emb as tse  # noqa: E402

N, BATCH, V = 64, 16, 30
RULES = {
    "sgd": lambda: tse.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.01),
    "row_wise_adagrad": lambda: tse.optimizers.RowWiseAdagrad(0.1, weight_decay=0.01),
    "row_wise_adam": lambda: tse.optimizers.RowWiseAdam(0.05, global_clipnorm=0.01),
    "ftrl": lambda: tse.optimizers.Ftrl(0.1, clipvalue=0.05),
}


def batches():
    """Keys [N, 3], which repeat within a batch and over its halves, dynamic and new in every batch; labels [N, 1]."""
    rng = np.random.default_rng(5)
    keys = rng.integers(0, V, (N, 3)) + np.arange(N)[:, np.newaxis] // BATCH
    keys[::BATCH, 0] = keys[BATCH // 2 :: BATCH, 0] = 7  # in each half of each batch
    return keys, rng.normal(size=(N, 1)).astype(np.float32)


def dataset(keys=None):
    """Batches of the keys and the labels."""
    default, labels = batches()
    return tf.data.Dataset.from_tensor_slices((default if keys is None else keys, labels)).batch(BATCH)


def rows_of(table):
    """The keys and the rows with their state, sorted by key."""
    keys, rows = table.export(with_state=True)
    order = np.argsort(keys)
    return {"keys": keys.numpy()[order], "rows": rows.numpy()[order]}


def state_of(model):
    """All that training has changed: tables, plain variables and the optimizer's."""
    tables = [variable for variable in model.variables if isinstance(variable, tse.EmbeddingVariable)]
    plain = [variable for variable in model.variables if not isinstance(variable, tse.EmbeddingVariable)]
    state = {f"table{t}/{name}": value for t, table in enumerate(tables) for name, value in rows_of(table).items()}
    state |= {f"plain{v}": keras.ops.convert_to_numpy(variable) for v, variable in enumerate(plain)}
    variables = enumerate(model.optimizer.variables)
    return state | {f"optimizer{v}": keras.ops.convert_to_numpy(variable) for v, variable in variables}


def collection_model():
    """A layer and a collection: a shared table, an index table, one of another width; dense layers."""
    keys = keras.Input([3], dtype="int64")
    collection = tse.EmbeddingCollection(
        [
            tse.TableConfig("item", None, 4, seed=2),
            tse.TableConfig("shop", V + 4, 4, seed=3),
            tse.TableConfig("word", None, 5, seed=4),
        ],
        [
            tse.FeatureConfig("item", "item"),
            tse.FeatureConfig("last", "item", "max"),
            tse.FeatureConfig("shop", "shop", "sqrtn"),
            tse.FeatureConfig("word", "word"),
        ],
        concat=True,
    )
    features = collection({name: keys for name in ("item", "last", "shop", "word")})
    parts = [tse.Embedding(None, 4, combiner="mean", seed=1)(keys), features]
    hidden = keras.layers.Dense(4, activation="tanh")(keras.layers.Concatenate()(parts))
    return keras.Model(keys, keras.layers.Dense(1)(hidden))


def small_model(keys=None, dtype="int64", **kwargs):
    """A layer that pools, and a dense one."""
    return keras.Sequential(
        [
            keras.Input([None], dtype=dtype, **(keys or {})),
            tse.Embedding(**{"input_dim": None, "output_dim": 4, "combiner": "mean", "seed": 1} | kwargs),
            keras.layers.Dense(1),
        ]
    )


def fit(strategy, make_model, optimizer, data=None, **kwargs):
    """Trains for two epochs; returns the model and its state, losses and predictions."""
    with strategy.scope():
        model = make_model()
        model.compile(optimizer(), "mse", metrics=["mae"], **kwargs)
    data = data or dataset()
    history = model.fit(data, epochs=2, verbose=0).history
    trained = {**state_of(model), "iterations": model.optimizer.iterations.numpy()}
    return model, trained | {
        "loss": history["loss"],
        "mae": history["mae"],
        "evaluated": model.evaluate(data, verbose=0),
        "predicted": model.predict(data, verbose=0),
    }


def fit_collection(strategy):
    return fit(
        strategy,
        collection_model,
        lambda: tse.optimizers.RowWiseAdam(
            0.05,
            global_clipnorm=0.05,
            weight_decay=0.01,
            dense_optimizer=tse.optimizers.Adam(0.01),
            overrides={"item": tse.optimizers.RowWiseAdagrad(0.1), "word": 0.2},
        ),
    )[1]


def fit_rule(strategy, rule):
    """Steps of a loop of one's own, on a table and on the rows of a plain variable; the first step builds."""
    with strategy.scope():
        table = tse.Embedding(None, 3, seed=1)
        table.build()
        plain = keras.Variable(np.ones((V + 4, 3), np.float32) / 8, name="rows")
        optimizer = RULES[rule]()
    variables = [table.embeddings, plain]

    def replica_step(keys, labels):
        with tf.GradientTape() as tape:
            rows = tf.gather(plain.value, keys) * table(keys, training=True)
            loss = tf.reduce_sum((tf.reduce_sum(rows, [1, 2])[:, tf.newaxis] - labels) ** 2) / BATCH
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        assert isinstance(gradients[1], tf.IndexedSlices)
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))

    step = tf.function(lambda *batch: strategy.run(replica_step, args=batch))
    for batch in strategy.experimental_distribute_dataset(dataset()):
        step(*batch)
    state = {f"state{v}": variable.numpy() for v, variable in enumerate(optimizer.variables)}
    return {**rows_of(table.embeddings), **state, "plain": plain.numpy()}


def fit_keys(strategy, kind):
    """Keys as strings, ragged or sparse."""
    keys, _ = batches()
    data, dtype, form = dataset(keys.astype("S")), "string", {}
    if kind != "strings":
        lengths = np.arange(N) % 4
        ragged = tf.RaggedTensor.from_row_lengths(keys.ravel()[: lengths.sum()], lengths)
        data, dtype = dataset(ragged if kind == "ragged" else ragged.to_sparse()), "int64"
        form = {kind: True}
    return fit(strategy, lambda: small_model(form, dtype), lambda: tse.optimizers.SGD(0.1), data)[1]


def fit_counts(strategy):
    model, trained = fit(
        strategy,
        lambda: small_model(max_norm=0.05, counts="seen", count_decay=0.5, padding_idx=7),
        lambda: tse.optimizers.SGD(0.5),
    )
    table = model.layers[0].embeddings
    return trained | {"counts": table.key_counts(trained["table0/keys"])}


def fit_eagerly(strategy):
    return fit(strategy, small_model, RULES["row_wise_adagrad"], run_eagerly=True)[1]


def save_and_resume(strategy, folder):
    """Trains, saves in three ways, and trains on after each is restored."""
    model, first = fit(strategy, small_model, RULES["row_wise_adam"])
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    path = checkpoint.write(str(folder / "checkpoint"))
    model.fit(dataset(), verbose=0)
    after = state_of(model)
    checkpoint.read(path).assert_consumed()
    model.fit(dataset(), verbose=0)
    from_checkpoint = state_of(model)
    model.load_weights(folder / "model.weights.h5")
    model.fit(dataset(), verbose=0)
    from_weights = state_of(model)
    with strategy.scope():
        model = keras.models.load_model(folder / "model.keras")
    model.fit(dataset(), verbose=0)
    from_file = state_of(model)
    states = {"after": after, "checkpoint": from_checkpoint, "weights": from_weights, "file": from_file}
    return first | {f"{way}/{name}": value for way, state in states.items() for name, value in state.items()}


def refused(strategy):
    """The error of each thing that is refused, or "" where none was raised."""

    def layer(**kwargs):
        return lambda: tse.Embedding(**{"input_dim": None, "output_dim": 4, "seed": 1} | kwargs).build()

    def training(optimizer, rows=None, **kwargs):
        def train():
            model = small_model(**kwargs)
            if rows is not None:
                model.layers[0].embeddings.upsert([1], rows)
            model.compile(optimizer, "mse")
            model.fit(dataset(), verbose=0)

        return train

    def build_in_replica():
        strategy.run(tse.Embedding(None, 4, seed=1).build)

    def apply_outside():
        model = small_model()
        optimizer = tse.optimizers.SGD()
        optimizer.apply([tf.zeros(variable.shape) for variable in model.trainable_variables], model.trainable_variables)

    def use_ema():
        model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
        model.compile(tse.optimizers.SGD(use_ema=True), "mse")
        model.fit(dataset(), verbose=0)

    def nan():
        model = small_model()
        model.compile(tse.optimizers.SGD(0.1), "mse")
        before = state_of(model)
        keys, labels = batches()
        labels[0] = np.nan  # of the first replica alone
        data = tf.data.Dataset.from_tensor_slices((keys, labels)).batch(BATCH)
        try:
            model.fit(data, verbose=0)
        finally:
            after = state_of(model)
            assert all(np.array_equal(after[name], before[name]) for name in before if name.startswith("plain"))

    # Each process draws another seed, and has other rows.
    process = int(os.environ.get("PROCESS_NUMBER", 0))
    cases = {
        "regularizer": layer(embeddings_regularizer="l2"),
        "scale_grad_by_freq": layer(scale_grad_by_freq=True),
        "max_norm": layer(max_norm=1.0),
        "counts": layer(counts="seen"),
        "build_in_replica": build_in_replica,
        "dense_optimizer": training(tse.optimizers.SGD(dense_optimizer="adam")),
        "loss_scale": training(tse.optimizers.LossScaleOptimizer(tse.optimizers.SGD())),
        "use_ema": use_ema,
        "apply_outside": apply_outside,
        "seed": training(tse.optimizers.SGD(), seed=process),
        "rows": training(tse.optimizers.SGD(), rows=np.full((1, 4), process, np.float32)),
        "nan": nan,
    }
    errors = {}
    for name, case in cases.items():
        try:
            with strategy.scope():
                case()
            errors[name] = ""
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    return errors


CASES = {
    "collection": fit_collection,
    **{rule: lambda strategy, rule=rule: fit_rule(strategy, rule) for rule in RULES},
    **{kind: lambda strategy, kind=kind: fit_keys(strategy, kind) for kind in ("strings", "ragged", "sparse")},
    "counts": fit_counts,
    "eager": fit_eagerly,
    "refused": refused,
}


def train(name, strategy, folder=None):
    """What a case returns, as a dict of arrays."""
    keras.utils.set_random_seed(1)
    case = CASES.get(name)
    results = save_and_resume(strategy, folder) if name == "saving" else case(strategy)
    return {key: np.asarray(value) for key, value in results.items()}


def main(kind, path, *names):
    """See the module."""
    if kind == "replicas":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tse.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tse.distribute.MultiWorkerMirroredStrategy()
    results = {}
    for name in names:
        trained = train(name, strategy, Path(path).parent)
        results |= {f"{name}/{key}": value for key, value in trained.items()}
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
