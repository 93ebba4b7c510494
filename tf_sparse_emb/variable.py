"""The embedding variable: a table of rows by key, as a Keras variable."""

import keras
import numpy as np
import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.initializers import DYNAMIC_INITIALIZERS, RowInitializer, all_rows, choose_seed, row_initializer
from tf_sparse_emb.ops.keys import as_keys
from tf_sparse_emb.update_rules import get_rule

STORAGES = ("unordered_map", "open_addressing", "chained", "slab", "index")

_NOT_SAVED = (
    "the rows of an embedding table cannot be saved in this format yet, and would be lost. Take them with "
    "`keys, rows = layer.embeddings.export()`, put them back with `layer.embeddings.upsert(keys, rows)`"
)


def check_positive(name, value, or_none=False):
    """Raises a ValueError unless `value` is a positive int (or None, where that is allowed)."""
    if or_none and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
        raise ValueError(f"{name} must be a positive int{' or None' if or_none else ''}, got {value!r}")


def choose_storage(storage, input_dim):
    """The storage of a table: by default `index` where input_dim bounds the keys, else `slab`.

    Raises:
        ValueError: if the storage is unknown, or `index` has no input_dim.
    """
    if storage is None:
        return "slab" if input_dim is None else "index"
    if storage not in STORAGES:
        raise ValueError(f"storage must be None or one of {', '.join(STORAGES)}, got {storage!r}")
    if storage == "index" and input_dim is None:
        raise ValueError("storage 'index' is an array of input_dim rows and needs input_dim, got None")
    return storage


class EmbeddingVariable(keras.Variable):
    """A table of embedding rows by 64-bit key, as a Keras variable.

    A key's row is created when it is first inserted, with an initial value that is a function of (seed, key) alone. A
    row is `[embedding: D floats | optimizer state: S floats]` in one place in memory. Every int64 is a key.

    It is listed among a layer's variables and receives gradients as `tf.IndexedSlices`, which `tse.optimizers` apply
    in place. Towards Keras it is a float32 variable of the constant shape (0, D), whose `value` has no rows: the rows
    are in the table. `numpy()`, `assign`, conversion to a tensor and Keras' own optimizers are refused.

    All methods work in eager mode and in `tf.function`, and are safe to call from several threads.

    >>> table = tse.EmbeddingVariable(8, seed=1)
    >>> rows = table.lookup([3, 2**60, 3], insert=True)
    >>> int(table.size())
    2

    Args:
        dim: int, D, the width of an embedding.
        input_dim: int or None (default). Keys must be in [0, input_dim); None: any int64.
        initializer: Keras initializer, by name or instance, default "uniform" (from -0.05 to 0.05). A dynamic table
            takes Zeros, Ones, Constant, RandomUniform, RandomNormal, TruncatedNormal and
            `tse.initializers.UniformUnitScaling`, because each row is made by itself. The storage "index" takes any
            (evaluated now, for all rows; a key that is removed later reads as zeros if it is none of these).
        storage: "slab" (an open-addressing index over rows that never move; the default), "open_addressing",
            "chained", "unordered_map", or "index" (an array of input_dim rows; the default where input_dim is given).
            An index table holds all its rows from the start.
        seed: int or None. None takes the initializer's seed if it was given one, else draws one from Keras.
        max_rows: int or None (default): the table never holds more rows.
        trainable: bool, default True.
        name: str, default "embeddings".

    Raises:
        ValueError: if an argument is out of its range.

    Source: the flow of XDL's and DeepRec's embedding variables; a table per key as in Monolith (Liu et al., 2022).
    """

    def __init__(
        self,
        dim,
        *,
        input_dim=None,
        initializer="uniform",
        storage=None,
        seed=None,
        max_rows=None,
        trainable=True,
        name="embeddings",
    ):
        check_positive("dim", dim)
        check_positive("input_dim", input_dim, or_none=True)
        check_positive("max_rows", max_rows, or_none=True)
        self.dim = int(dim)
        self.input_dim = input_dim
        self.storage = choose_storage(storage, input_dim)
        self.initializer = keras.initializers.get(initializer)
        self.seed = choose_seed(seed, self.initializer)
        self.max_rows = max_rows
        if self.storage == "index" and max_rows is not None and max_rows < input_dim:
            raise ValueError(f"max_rows must be at least input_dim = {input_dim} for storage 'index', got {max_rows}")
        row_init = row_initializer(self.initializer)
        if row_init is None and self.storage != "index":
            raise ValueError(
                f"initializer must be one of {', '.join(DYNAMIC_INITIALIZERS)} for a table whose rows are made one at "
                f"a time (storage {self.storage!r}), got {type(self.initializer).__name__}"
            )
        # The variable's value has no rows: it is what gradients flow to, and tells Keras the width. autocast=False: a
        # mixed-precision policy must not cast it.
        super().__init__(
            lambda shape, dtype: tf.zeros(shape, dtype),
            shape=(0, self.dim),
            dtype="float32",
            trainable=trainable,
            autocast=False,
            name=name,
        )
        with tf.init_scope():
            self.table_handle = self._create_table(row_init or RowInitializer("constant", 0.0, 0.0))
            if self.storage == "index":
                self._fill(row_init)

    def _create_table(self, row_init):
        with tf.device("CPU:0"):
            return library.sparse_emb_embedding_table(
                table_name=self.path,
                dim=self.dim,
                storage=self.storage,
                input_dim=-1 if self.input_dim is None else self.input_dim,
                max_rows=-1 if self.max_rows is None else self.max_rows,
                initializer=row_init.kind,
                initializer_a=row_init.a,
                initializer_b=row_init.b,
                seed=self.seed,
            )

    def _fill(self, row_init):
        """Creates all rows of an index table."""
        values = None if row_init else all_rows(self.initializer, self.seed, (self.input_dim, self.dim))
        chunk = max(1, (1 << 22) // self.dim)
        for start in range(0, self.input_dim, chunk):
            keys = tf.range(start, min(start + chunk, self.input_dim), dtype=tf.int64)
            if values is None:
                self.lookup(keys, insert=True)
            else:
                self.upsert(keys, values[start : start + chunk])

    def lookup(self, keys, insert=False, missing="initial"):
        """Returns the rows of keys, float32 `keys.shape + [D]`; see `tse.ops.embedding_lookup`."""
        return ops.embedding_lookup(self, keys, insert=insert, missing=missing)

    def contains(self, keys):
        """Returns whether each key is in the table: bool, of the shape of keys."""
        keys = as_keys(keys)
        present = library.sparse_emb_embedding_table_contains(self.table_handle, tf.reshape(keys, [-1]))
        return tf.reshape(present, tf.shape(keys))

    def upsert(self, keys, rows):
        """Sets the embeddings of keys; the last of a repeated key wins.

        New rows get the initial optimizer state, rows that exist keep theirs.

        Args:
            keys: int32, int64 or string [N].
            rows: float32 [N, D].
        """
        return library.sparse_emb_embedding_table_upsert(self.table_handle, as_keys(keys), rows)

    def remove(self, keys):
        """Forgets keys [N] with their optimizer state; those that are not in the table are passed over."""
        return library.sparse_emb_embedding_table_remove(self.table_handle, as_keys(keys))

    def clear(self):
        """Forgets all keys."""
        return library.sparse_emb_embedding_table_clear(self.table_handle)

    def size(self):
        """Returns the number of rows, an int64 scalar tensor."""
        return library.sparse_emb_embedding_table_size(self.table_handle)

    def memory_bytes(self):
        """Returns the bytes of rows, optimizer state and index, an int64 scalar tensor."""
        return library.sparse_emb_embedding_table_memory_bytes(self.table_handle)

    def export(self, with_state=False):
        """Returns all keys, int64 [V], and rows, float32 [V, D], in the storage's order.

        Args:
            with_state: bool, default False. Rows are [V, D + S], with the optimizer's state.
        """
        return tuple(library.sparse_emb_embedding_table_export(self.table_handle, with_state=with_state))

    def bind(self, rule, **initial_values):
        """Binds the table to an update rule, for `tse.ops.embedding_update`; optimizers do this when they are built.

        Every row gets the rule's state, at its initial value; a state that it had is dropped. The newest binding wins.

        Args:
            rule: "sgd", "row_wise_adagrad" (state: accumulator [1]) or "row_wise_adam" (momentum [D], velocity [1]).
            **initial_values: row_wise_adagrad: initial_accumulator_value, default 0.

        Returns:
            int, which names this binding to `embedding_update`.
        """
        state = get_rule(rule).initial_state(self.dim, initial_values)
        with tf.init_scope():
            initial_state = tf.constant(state, tf.float32, shape=[len(state)])
            return int(library.sparse_emb_embedding_table_bind(self.table_handle, initial_state, rule=rule))

    @property
    def overwrite_with_gradient(self):
        """Always raises: Keras' own optimizers read this of every variable that they are given."""
        raise TypeError(
            f"variable '{self.path}' is an embedding table, which Keras' own optimizers cannot update: they would need "
            "a dense tensor of all its rows. Compile with one of tse.optimizers, e.g. "
            "tse.optimizers.RowWiseAdam(learning_rate=0.001); it trains the other variables as well. Not inside Keras' "
            "LossScaleOptimizer, which the policy mixed_float16 adds: use mixed_bfloat16"
        )

    @overwrite_with_gradient.setter
    def overwrite_with_gradient(self, value):
        if value:
            raise ValueError("an embedding table cannot be overwritten with its gradient")

    def __repr__(self):
        """Names the table; its rows are not printed."""
        return (
            f"<EmbeddingVariable path={self.path}, dim={self.dim}, input_dim={self.input_dim}, "
            f"storage={self.storage}, seed={self.seed}>"
        )

    # Whatever reads or writes a variable as one tensor would lose the rows.

    def numpy(self):
        """Raises: the rows are no dense tensor; `export` returns them."""
        raise TypeError(f"variable '{self.path}': {_NOT_SAVED}")

    def __array__(self, *args, **kwargs):
        """Raises: the rows are no dense tensor; `export` returns them."""
        return self.numpy()

    def __tf_tensor__(self, dtype=None, name=None):
        """Raises: the rows are no dense tensor; `lookup` reads them."""
        raise TypeError(f"variable '{self.path}' is an embedding table, no dense tensor; read rows with lookup(keys)")

    def __deepcopy__(self, memo):
        """Raises: a copy would share the table."""
        raise TypeError(f"variable '{self.path}' is an embedding table and cannot be copied")

    def assign(self, value):
        """Raises: the rows are no dense tensor; `upsert` sets them."""
        raise TypeError(f"variable '{self.path}' is an embedding table; set its rows with upsert(keys, rows)")

    def _serialize_to_tensors(self):
        self.numpy()

    def _restore_from_tensors(self, restored_tensors):
        self.numpy()

    def _export_to_saved_model_graph(self, *args, **kwargs):
        self.numpy()
