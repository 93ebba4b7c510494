"""The embedding layer."""

import keras
import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.initializers import choose_seed
from tf_sparse_emb.ops.embedding_duplicate import COMBINERS
from tf_sparse_emb.ops.embedding_lookup import check_missing
from tf_sparse_emb.ops.keys import as_keys, check_key_dtype
from tf_sparse_emb.variable import EmbeddingVariable, check_positive, choose_storage


@keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Embedding(keras.layers.Layer):
    """Turns keys into embeddings: `keras.layers.Embedding` for any 64-bit key.

    With `training=True`, as in `fit`, a key that comes for the first time gets a row. Otherwise (`evaluate`,
    `predict`, a plain call) nothing is inserted, and a missing key reads as its initial row, the one it would get, or
    as zeros. A frozen layer (`trainable=False`) inserts nothing either.

    The layer may be called any number of times in a step; gradients add up. It needs one of `tse.optimizers`.

    >>> model = keras.Sequential([keras.Input([3], dtype="int64"), tse.Embedding(None, 8, combiner="mean")])
    >>> model(np.array([[1, 2**40, -7]])).shape
    TensorShape([1, 8])

    Args:
        input_dim: int, the size of the vocabulary: keys are in [0, input_dim). None: any int64 is a key.
        output_dim: int, D, the width of an embedding.
        embeddings_initializer: Keras initializer by name or instance, default "uniform". With input_dim None: Zeros,
            Ones, Constant, RandomUniform, RandomNormal, TruncatedNormal or `tse.initializers.UniformUnitScaling`.
        combiner: None (default), or "sum", "mean" or "sqrtn" to pool the last axis of the keys.
        storage: None (default: "index" where input_dim is given, else "slab"), "slab", "open_addressing", "chained",
            "unordered_map" or "index"; see `tse.EmbeddingVariable`.
        seed: int or None, of the initial rows. None draws one, which `get_config` then holds.
        max_rows: int or None (default): the table never holds more rows; an insert beyond that is an error.
        missing: "initial" (default) or "zeros": what a missing key reads as when it is not inserted.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer. Rows are float32; the output is of the policy's
            compute dtype.

    Input: int32, int64 or string (its 64-bit fingerprint) of any shape. Floats, the default of `keras.Input`, are
    refused: they would lose bits. A Keras model casts its input to the dtype of its `keras.Input` before a layer sees
    it; a Sequential model without one gets an input of int64 from this layer, so strings need
    `keras.Input(shape, dtype="string")`.

    Output: `keys.shape + [D]`, or with a combiner `keys.shape[:-1] + [D]`.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: if keys are of another dtype.
        tf.errors.InvalidArgumentError: if a key is outside [0, input_dim).
        tf.errors.ResourceExhaustedError: if a batch would take the table beyond max_rows.
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        embeddings_initializer="uniform",
        combiner=None,
        storage=None,
        seed=None,
        max_rows=None,
        missing="initial",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive("input_dim", input_dim, or_none=True)
        check_positive("output_dim", output_dim)
        check_positive("max_rows", max_rows, or_none=True)
        if combiner is not None and combiner not in COMBINERS:
            raise ValueError(f"combiner must be None or one of {', '.join(COMBINERS)}, got {combiner!r}")
        check_missing(missing)
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.combiner = combiner
        self.storage = choose_storage(storage, input_dim)
        self.seed = choose_seed(seed, self.embeddings_initializer)
        self.max_rows = max_rows
        self.missing = missing
        # The ops have no XLA kernels; Keras' jit_compile falls back and says so.
        self.supports_jit = False

    def build(self, input_shape=None):
        """Creates the table, `self.embeddings`."""
        if self.built:
            return
        self.embeddings = EmbeddingVariable(
            self.output_dim,
            input_dim=self.input_dim,
            initializer=self.embeddings_initializer,
            storage=self.storage,
            seed=self.seed,
            max_rows=self.max_rows,
        )
        # After the attribute: Keras files a variable under trainable or not for good when it is assigned.
        self.embeddings.trainable = self.trainable
        self.built = True

    def call(self, inputs, training=None):
        """Looks keys up; see the class."""
        keys = self._keys(inputs)
        unique_keys, inverse, _ = ops.embedding_key_dedup(tf.reshape(keys, [-1]))
        rows = ops.embedding_lookup(
            self.embeddings, unique_keys, insert=bool(training) and self.trainable, missing=self.missing
        )
        shape, static_shape = tf.shape(keys), keys.shape
        if self.combiner is None:
            values = ops.embedding_duplicate(rows, inverse)
        else:
            shape, static_shape = shape[:-1], static_shape[:-1]
            bag_size = tf.shape(keys, out_type=tf.int64)[-1]
            row_splits = tf.range(tf.cast(tf.reduce_prod(shape), tf.int64) + 1) * bag_size
            values = ops.embedding_duplicate(rows, inverse, row_splits=row_splits, combiner=self.combiner)
        values = tf.reshape(values, tf.concat([shape, [self.output_dim]], 0))
        values = tf.ensure_shape(values, static_shape + [self.output_dim])
        return tf.cast(values, self.compute_dtype)

    @property
    def _keys_name(self):
        return f"keys of layer '{self.name}'"

    def _keys(self, inputs):
        keys = as_keys(inputs, self._keys_name)
        if self.combiner is not None and keys.shape.rank == 0:
            raise ValueError(f"combiner {self.combiner!r} pools the last axis of the keys, got a scalar")
        return keys

    @property
    def compute_dtype(self):
        """The dtype of the output; until the layer is built, of its input.

        Keras' Sequential asks the first layer for it when it builds a model without `keras.Input`, and makes the keys
        of that dtype: floats would lose their bits before they arrive.
        """
        return super().compute_dtype if self.built else "int64"

    @property
    def input_dtype(self):
        """What Keras makes of floats among a call's arguments."""
        return super().compute_dtype

    def compute_output_spec(self, inputs, training=None):
        """Returns the symbolic output for symbolic keys."""
        check_key_dtype(tf.as_dtype(inputs.dtype), self._keys_name)
        if self.combiner is not None and len(inputs.shape) < 2:
            raise ValueError(
                f"combiner {self.combiner!r} pools the last axis of the keys, which must be [batch, ..., keys], "
                f"got shape {tuple(inputs.shape)}"
            )
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output for keys of `input_shape`."""
        input_shape = tuple(input_shape)
        return (*(input_shape if self.combiner is None else input_shape[:-1]), self.output_dim)

    def get_config(self):
        """Returns the constructor's arguments; the seed is the one in use."""
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "combiner": self.combiner,
            "storage": self.storage,
            "seed": self.seed,
            "max_rows": self.max_rows,
            "missing": self.missing,
        }

    def save_own_variables(self, store):
        """Raises: saving tables in Keras' files is not supported yet."""
        self.embeddings.numpy()

    def load_own_variables(self, store):
        """Raises: saving tables in Keras' files is not supported yet."""
        self.embeddings.numpy()
