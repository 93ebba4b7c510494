"""What the tests of saving share: models, steps of training and what a model is, down to the last bit."""

import keras
import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse

o = tse.optimizers

# Every rule, and the optimizers that hold others.
OPTIMIZERS = {
    "RowWiseAdam": lambda: o.RowWiseAdam(0.05, weight_decay=0.01),
    "RowWiseAdagrad": lambda: o.RowWiseAdagrad(0.05, initial_accumulator_value=0.2),
    "SGD": lambda: o.SGD(0.05),
    "momentum": lambda: o.SGD(0.05, momentum=0.9),
    "nesterov": lambda: o.SGD(0.05, momentum=0.9, nesterov=True),
    "Adagrad": lambda: o.Adagrad(0.05),
    "AdagradDecay": lambda: o.AdagradDecay(0.05, decay_step=3),
    "Adam": lambda: o.Adam(0.05),
    "amsgrad": lambda: o.Adam(0.05, amsgrad=True),
    "AdamW": lambda: o.AdamW(0.05),
    "Ftrl": lambda: o.Ftrl(0.05),
    "RMSprop": lambda: o.RMSprop(0.05),
    "RMSprop_momentum": lambda: o.RMSprop(0.05, momentum=0.9),
    "RMSprop_centered": lambda: o.RMSprop(0.05, centered=True),
    "RMSprop_both": lambda: o.RMSprop(0.05, momentum=0.9, centered=True),
    "schedule": lambda: o.RowWiseAdam(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)),
    "dense_optimizer": lambda: o.RowWiseAdagrad(0.05, dense_optimizer=keras.optimizers.Adam(0.01)),
    "overrides": lambda: o.Adam(0.05, overrides={"user": o.RowWiseAdagrad(0.1), "kernel": 0.01}),
    "loss_scale": lambda: o.LossScaleOptimizer(o.RowWiseAdam(0.05), initial_scale=8.0, dynamic_growth_steps=3),
}


def make_model(optimizer="RowWiseAdam", seed=None):
    """A compiled model of a hash table that counts, an index table, and a collection of two tables of one width."""
    keys = keras.Input([3], dtype="int64", name="item")
    item = tse.Embedding(
        None, 4, combiner="mean", counts="seen", count_decay=0.9, seed=seed, name="item_embedding", storage="chained"
    )
    bounded = tse.Embedding(30, 2, "glorot_uniform", combiner="sum", seed=seed, name="bounded")
    collection = tse.EmbeddingCollection(
        [tse.TableConfig("user", None, 3, seed=seed), tse.TableConfig("ad", None, 3, seed=seed, padding_idx=0)],
        [tse.FeatureConfig("a", "user"), tse.FeatureConfig("b", "user"), tse.FeatureConfig("c", "ad")],
        concat=True,
        name="collection",
    )
    looked_up = [item(keys), bounded(keras.ops.mod(keys, 30)), collection({name: keys for name in "abc"})]
    output = keras.layers.Dense(1, name="head")(keras.layers.Concatenate()(looked_up))
    model = keras.Model(keys, output)
    model.compile(OPTIMIZERS[optimizer](), "mse")
    return model


def train(model, steps, first=0):
    """Steps number first, first + 1, ..., each on its own batch; eager, because tracing takes longer than the steps."""
    if not model.optimizer.built:  # as `fit` does first
        model.optimizer.build(model.trainable_variables)
    for step in range(first, first + steps):
        rng = np.random.default_rng(step)
        keys = tf.constant(rng.integers(-60, 60, (8, 3)) * (1 + 2**40 * (step % 2)))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(keys, training=True)[:, 0] - rng.normal(size=8)) ** 2)
            scaled = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(scaled, variables), variables)


def tables_of(model):
    return [variable for variable in model.variables if isinstance(variable, tse.EmbeddingVariable)]


def optimizers_of(optimizer):
    """An optimizer and those that it holds."""
    if optimizer is None:
        return []
    found = [optimizer]
    for name in ("inner_optimizer", "dense_optimizer"):
        if getattr(optimizer, name, None) is not None:
            found += optimizers_of(getattr(optimizer, name))
    for other in getattr(optimizer, "_override_optimizers", ()):
        found += optimizers_of(other)
    return found


def contents(model):
    """All that a model is: {name: array}, tables sorted by key, with their state, counts and what new keys read as."""
    content = {}
    for t, table in enumerate(tables_of(model)):
        snapshot = table.numpy()
        order = np.argsort(snapshot.keys)
        for part in ("keys", "rows", "state", "counts"):
            content[f"table{t}/{part}"] = getattr(snapshot, part)[order]
        content[f"table{t}/rule"] = np.array(snapshot.rule)
        content[f"table{t}/new"] = table.lookup([29, 5] if table.input_dim else [10**15, -(10**15)]).numpy()
    plain = [variable for variable in model.variables if not isinstance(variable, tse.EmbeddingVariable)]
    for i, variable in enumerate(plain):
        content[f"variable{i}"] = variable.numpy()
    for i, optimizer in enumerate(optimizers_of(getattr(model, "optimizer", None))):
        for j, variable in enumerate(optimizer.variables):
            content[f"optimizer{i}/{j}"] = variable.numpy()
    return content


def assert_same(got, want):
    assert sorted(got) == sorted(want)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def differ(one, other):
    return any(not np.array_equal(one[name], other[name]) for name in one)
