"""Models to export: each a function of random numbers that returns a trained model and inputs for it."""

import keras
import numpy as np
import reference
import tensorflow as tf

import tf_sparse_emb as tse

V, BATCH = 40, 12
BIG = 2**62


def wide_keys(rng, *shape):
    """Keys of which some are seen in training, and some come from anywhere in the 64 bits."""
    keys = rng.integers(-BIG, BIG, shape)
    return np.where(rng.random(shape) < 0.7, rng.integers(-5, V, shape), keys)


def ragged_keys(rng):
    lengths = rng.integers(0, 5, BATCH)
    return tf.RaggedTensor.from_row_lengths(wide_keys(rng, lengths.sum()), lengths)


def trained(model, inputs, learning_rate=0.3):
    """The model after two steps on `inputs` towards random targets."""
    rng = np.random.default_rng(5)
    # Keras takes no dict of arrays and ragged tensors.
    inputs = tf.nest.map_structure(lambda x: tf.constant(x) if isinstance(x, np.ndarray) else x, inputs)
    model(inputs)
    optimizer = tse.optimizers.RowWiseAdagrad(learning_rate)
    optimizer.build(model.trainable_variables)
    for _ in range(2):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(inputs, training=True), expand_composites=True)
            outputs = [output for output in outputs if output.dtype.is_floating]
            loss = sum(tf.reduce_sum(tf.cast(x, tf.float32) * rng.normal(size=x.shape)) for x in outputs)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return model


INITIALIZERS = {
    "zeros": keras.initializers.Zeros(),
    "ones": keras.initializers.Ones(),
    "constant": keras.initializers.Constant(0.3),
    "uniform": keras.initializers.RandomUniform(-0.3, 0.1),
    "unit_scaling": tse.initializers.UniformUnitScaling(0.7, 1000),
    "normal": keras.initializers.RandomNormal(0.1, 0.3),
    "truncated_normal": keras.initializers.TruncatedNormal(0.1, 0.3),
}


def _embedding(input_dim=None, seed=4, **kwargs):
    return tse.Embedding(input_dim, 5, seed=seed, **kwargs)


def _collection(concat):
    """Tables of two widths, one shared by three features out of order, in all forms."""
    tables = [
        tse.TableConfig("item", None, 4, "random_uniform", seed=1),
        tse.TableConfig("country", V, 3, "glorot_uniform", seed=2),
        tse.TableConfig("user", None, 4, seed=3, padding_idx=-1),
    ]
    features = [
        tse.FeatureConfig("key", "item"),
        tse.FeatureConfig("user", "user"),
        tse.FeatureConfig("bags", "item", combiner="mean", max_length=2),
        tse.FeatureConfig("small", "country", combiner="max"),
        tse.FeatureConfig("keys", "user", combiner="sqrtn", mask_zero=True),
    ]
    return tse.EmbeddingCollection(tables, features, concat=concat)


def _alike(combiner, **features):
    """Features of one width and combiner, side by side."""
    tables = [tse.TableConfig(table, None, 4, seed=seed) for seed, table in enumerate(dict.fromkeys(features.values()))]
    configs = [tse.FeatureConfig(feature, table, combiner) for feature, table in features.items()]
    return tse.EmbeddingCollection(tables, configs, concat=True)


# output -> (layer, the input or inputs of its call)
LAYERS = {
    **{f"storage_{s}": (_embedding(storage=s), "keys") for s in reference.HASH_STORAGES},
    **{f"initial_{name}": (_embedding(embeddings_initializer=i), "keys") for name, i in INITIALIZERS.items()},
    **{f"ragged_{c}": (_embedding(combiner=c), "bags") for c in (None, *reference.COMBINERS, "max")},
    **{f"weighted_{c}": (_embedding(combiner=c), ("keys", "weights")) for c in reference.COMBINERS},
    **{f"max_norm_{p}": (_embedding(max_norm=0.2, norm_type=p), "keys") for p in (1.0, 2.0, 3.0, np.inf)},
    "index": (_embedding(V), "small"),
    "index_of_any_initializer": (_embedding(V, embeddings_initializer="glorot_uniform"), "small"),
    "index_not_full": (_embedding(V), "small"),
    "hash_with_input_dim": (_embedding(V, storage="slab"), "small"),
    "untouched": (_embedding(), "keys"),
    "seed_of_64_bits": (_embedding(seed=-(2**63)), "keys"),
    "missing_zeros": (_embedding(missing="zeros"), "keys"),
    "padding": (_embedding(padding_idx=3, embeddings_initializer="ones"), "keys"),
    "padding_in_bags": (_embedding(combiner="mean", padding_idx=3, mask_zero=True), "bags"),
    "mask_zero": (_embedding(mask_zero=True), "keys"),
    "counts": (_embedding(counts="seen", embeddings_regularizer="l2", scale_grad_by_freq=True), "keys"),
    "sparse": (_embedding(combiner="sqrtn"), "sparse"),
    "strings": (_embedding(), "words"),
    "mixed_float16": (_embedding(dtype="mixed_float16"), "keys"),
    "collection": (_collection(False), ("key", "user", "bags", "small", "keys")),
    "collection_concat": (_collection(True), ("key", "user", "bags", "small", "keys")),
    "collection_side_by_side": (_alike(None, user="user", key="item"), ("user", "key")),
    "collection_pooled_side_by_side": (_alike("mean", keys="k", bags="item", small="k"), ("keys", "bags", "small")),
}

INPUTS = {
    "key": {"shape": [], "dtype": "int64"},
    "user": {"shape": [], "dtype": "int64"},
    "keys": {"shape": [4], "dtype": "int64"},
    "small": {"shape": [2], "dtype": "int64"},
    "bags": {"shape": [None], "dtype": "int64", "ragged": True},
    "sparse": {"shape": [6], "dtype": "int64", "sparse": True},
    "words": {"shape": [2], "dtype": "string"},
    "weights": {"shape": [4]},
}


def many_layers(rng):
    """A Functional model of all `LAYERS`, each of which makes an output."""
    inputs, outputs = {name: keras.Input(**spec, name=name) for name, spec in INPUTS.items()}, {}
    for name, (layer, takes) in LAYERS.items():
        if isinstance(layer, tse.EmbeddingCollection):
            output = layer({feature: inputs[feature] for feature in takes})
            outputs |= {name: output} if layer.concat else {f"{name}_{part}": x for part, x in output.items()}
        elif isinstance(takes, tuple):
            outputs[name] = layer(inputs[takes[0]], weights=inputs[takes[1]])
        else:
            outputs[name] = layer(inputs[takes])
    # A layer that uses the mask.
    outputs["mask_zero"] = keras.layers.GlobalAveragePooling1D()(outputs["mask_zero"])
    model = keras.Model(inputs, outputs)
    cells = np.argwhere(rng.random((BATCH, 6)) < 0.3)

    def make():
        return {
            "key": wide_keys(rng, BATCH),
            "user": wide_keys(rng, BATCH),
            "keys": wide_keys(rng, BATCH, 4) * (rng.random((BATCH, 4)) < 0.8),
            "small": rng.integers(0, V, (BATCH, 2)),
            "bags": ragged_keys(rng),
            "sparse": tf.SparseTensor(cells, wide_keys(rng, len(cells)), (BATCH, 6)),
            "words": tf.constant(rng.integers(0, 60, (BATCH, 2)).astype(str)),
            "weights": rng.random((BATCH, 4)).astype(np.float32),
        }

    trained(model, make())
    LAYERS["index_not_full"][0].embeddings.remove([0, 7, 8, 30])
    LAYERS["untouched"][0].embeddings.clear()
    return model, make()


def shared(rng):
    """One layer on two inputs, and two towers of one model."""
    layer = tse.Embedding(None, 4, seed=3)
    item, history = keras.Input([1], dtype="int64", name="item"), keras.Input([5], dtype="int64", name="history")
    dot = keras.layers.Dot(-1)([layer(item), layer(history)])
    inner = keras.Model({"item": item, "history": history}, {"score": keras.layers.Flatten()(dot), "item": layer(item)})
    outer = {name: keras.Input(x.shape[1:], dtype="int64", name=name) for name, x in inner.input.items()}
    model = keras.Model(outer, inner(outer))
    make = lambda: {"item": wide_keys(rng, BATCH, 1), "history": wide_keys(rng, BATCH, 5)}  # noqa: E731
    return trained(model, make()), make()


def sequential(rng):
    model = keras.Sequential(
        [
            keras.Input([3], dtype="int64", name="keys"),
            tse.Embedding(None, 4, combiner="sum", seed=2),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    return trained(model, wide_keys(rng, BATCH, 3)), wide_keys(rng, BATCH, 3)


class Subclassed(keras.Model):
    """Looks one layer up twice; `call` is a `tf.function` with Python's control flow on a tensor."""

    def __init__(self):
        super().__init__()
        self.table = tse.Embedding(None, 4, seed=6)
        self.words = keras.layers.StringLookup(vocabulary=["a", "b"])
        self.dense = keras.layers.Dense(2)
        self.table.build()
        self.dense.build(
            [None, 4]
        )  # here, because Keras' layers that are built inside of a tf.function are built twice

    @tf.function
    def call(self, inputs, training=False):
        x = tf.reduce_mean(self.table(inputs["keys"], training=training), 1) + self.table(inputs["key"])
        if tf.reduce_sum(x) > 1e9:
            x = x * 0.0
        return self.dense(x) + tf.cast(self.words(inputs["word"]), tf.float32)[:, tf.newaxis]


def subclassed(rng):
    make = lambda: {  # noqa: E731
        "keys": wide_keys(rng, BATCH, 3),
        "key": wide_keys(rng, BATCH),
        "word": tf.constant(["a", "b", "c"] * 4),
    }
    return trained(Subclassed(), make()), make()


class WithFunctions(keras.Model):
    """Calls the functions of the package, and reads a variable of its own."""

    def __init__(self):
        super().__init__()
        self.table = tse.EmbeddingVariable(4, seed=8)

    def call(self, inputs, training=False):
        each = tse.embedding_lookup(self.table, inputs["keys"], training=training, missing="zeros")
        pooled = tse.embedding_lookup_sparse(self.table, inputs["bags"], combiner="sqrtn", training=training)
        known = tf.cast(self.table.contains(inputs["keys"]), tf.float32)
        return {"each": tf.reduce_sum(each, 1), "pooled": pooled, "known": known}

    def build(self, input_shape=None):
        self.built = True


def with_functions(rng):
    make = lambda: {"keys": wide_keys(rng, BATCH, 3), "bags": ragged_keys(rng)}  # noqa: E731
    return trained(WithFunctions(), make()), make()


MODELS = {
    "many_layers": many_layers,
    "sequential": sequential,
    "shared": shared,
    "subclassed": subclassed,
    "with_functions": with_functions,
}


def flat_inputs(inputs, names):
    """Inputs as the arguments of a signature, by name."""
    if isinstance(inputs, dict):
        parts = inputs
    else:
        parts = dict(zip(names, inputs if isinstance(inputs, list) else [inputs], strict=True))
    return _flat(parts)


def flat_outputs(outputs):
    """Outputs as a signature returns them."""
    parts = outputs if isinstance(outputs, dict) else {f"output_{i}": x for i, x in enumerate(tf.nest.flatten(outputs))}
    return _flat(parts)


def _flat(parts):
    flat = {}
    for name, value in parts.items():
        if isinstance(value, tf.RaggedTensor):
            flat |= {name: value.values, f"{name}_row_splits": value.row_splits}
        elif isinstance(value, tf.SparseTensor):
            flat |= {name: value.values, f"{name}_indices": value.indices, f"{name}_dense_shape": value.dense_shape}
        else:
            flat[name] = value
    return {name: np.asarray(value) for name, value in flat.items()}
