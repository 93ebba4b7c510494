"""The embedding variable: a table of rows by key, as a Keras variable."""

import functools
import warnings

import keras
import numpy as np
import tensorflow as tf

from tf_sparse_emb import ops
from tf_sparse_emb.initializers import RowInitializer, choose_row_initializer, choose_seed, make_all_rows
from tf_sparse_emb.ops.keys import as_keys
from tf_sparse_emb.ops.tensors import as_tensor
from tf_sparse_emb.servers import servers_here
from tf_sparse_emb.sharded_table import ShardedTable
from tf_sparse_emb.snapshot import TableSnapshot, check_content
from tf_sparse_emb.table_arguments import (
    COUNTS,
    check_counts,
    check_flag,
    check_max_norm,
    check_max_rows,
    check_padding,
    check_positive,
    check_width,
    choose_storage,
)
from tf_sparse_emb.table_resource import TableResource, show_table
from tf_sparse_emb.trace_type import TableType
from tf_sparse_emb.update_rules import get_rule

_NO_LIMIT = 2**63 - 1


class EmbeddingVariable(keras.Variable):
    """A table of embedding rows by 64-bit key, as a Keras variable.

    A key's row is created when it is first inserted, with an initial value that is a function of (seed, key) alone. A
    row is `[embedding: D floats | optimizer state: S floats]` in one place in memory. Every int64 is a key.

    It is listed among a layer's variables and receives gradients as `tf.IndexedSlices`, which `tse.optimizers` apply
    in place. Towards Keras it is a float32 variable of the constant shape (0, D), whose `value` has no rows: the rows
    are in the table. `numpy()` and `assign`, and with them Keras' `get_weights` and `set_weights`, trade snapshots of
    the table (`tse.TableSnapshot`). Conversion to a tensor and Keras' own optimizers are refused.

    All methods may be called by several threads, all but `load`, `numpy`, `assign`, `export_chunks` in `tf.function`.

    >>> table = tse.EmbeddingVariable(8, seed=1)
    >>> rows = table.lookup([3, 2**60, 3], insert=True)
    >>> int(table.size())
    2

    Args:
        dim: int, D, the width of an embedding, at most 2^24.
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
        padding_key: int or None (default). Its row is zeros from the start and no update changes it; only `upsert`,
            `scatter_add` and `assign` do. Lookups do not insert it.
        max_norm: float or None (default). A row w that is looked up with norm(w) > max_norm is scaled by
            max_norm / (norm(w) + 1e-7): with `insert` in the table, without in the output alone.
        norm_type: float, default 2: p of that p-norm; inf is the greatest element.
        constraint: Keras constraint or None (default): `tse.optimizers` apply it to the rows that they have updated.
        counts: None (default), "seen" (how often a key came in training) or "clicked" (that, and the sum of its
            labels). Lookups for training count, `key_counts` reads.
        count_decay: float in (0, 1], default 1: what counts are multiplied by at every update of the table.
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
        padding_key=None,
        max_norm=None,
        norm_type=2.0,
        constraint=None,
        counts=None,
        count_decay=1.0,
        trainable=True,
        name="embeddings",
    ):
        check_width("dim", dim)
        check_positive("input_dim", input_dim, or_none=True)
        check_padding("padding_key", padding_key, input_dim)
        check_max_norm(max_norm, norm_type)
        check_counts(counts, count_decay)
        self.padding_key = padding_key
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.counts = counts
        self.count_decay = count_decay
        self.dim = int(dim)
        self.input_dim = input_dim
        self.storage = choose_storage(storage, input_dim)
        self.initializer = keras.initializers.get(initializer)
        seed = choose_seed(seed, self.initializer)
        self.max_rows = max_rows
        check_max_rows(max_rows, self.storage, input_dim)
        row_init = choose_row_initializer("initializer", self.initializer, self.storage)
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
        self.constraint = keras.constraints.get(constraint)
        all_rows = None
        if row_init is None:
            row_init = RowInitializer("constant", 0.0, 0.0)
            all_rows = functools.partial(make_all_rows, self.initializer, seed, (self.input_dim, self.dim))
        servers = servers_here()
        make_table = TableResource if servers is None else functools.partial(ShardedTable, servers)
        self.table = make_table(
            all_rows=all_rows,
            table_name=self.path,
            dim=self.dim,
            storage=self.storage,
            input_dim=-1 if self.input_dim is None else self.input_dim,
            max_rows=-1 if self.max_rows is None else self.max_rows,
            initializer=row_init.kind,
            initializer_a=row_init.a,
            initializer_b=row_init.b,
            seed=seed,
            has_padding=self.padding_key is not None,
            padding_key=self.padding_key or 0,
            max_norm=self.max_norm or 0.0,
            norm_type=self.norm_type,
            num_counts=self.num_counts,
            count_decay=self.count_decay,
        )
        self._track_trackable(self.table, "table")
        self._is_exported = False

    @property
    def seed(self):
        """The seed of the initial rows: that given or drawn, or that of what was loaded last."""
        return self.table.seed

    @property
    def shards(self):
        """The parts of the table, a list: one, or one for each parameter server."""
        return self.table.shards

    @property
    def servers(self):
        """The parameter servers that the table is spread over, or None."""
        return self.table.servers if isinstance(self.table, ShardedTable) else None

    @property
    def num_counts(self):
        """K, how many counts each row keeps."""
        return 0 if self.counts is None else COUNTS.index(self.counts) + 1

    def lookup(self, keys, insert=False, missing="initial"):
        """Returns the rows of keys, float32 `keys.shape + [D]`; see `tse.ops.embedding_lookup`."""
        return ops.embedding_lookup(self, keys, insert=insert, missing=missing)

    def read_rows(self, keys, with_state=False):
        """Returns the rows of keys [N] as they are in the table, float32 [N, D]: `max_norm` does not bound them.

        Args:
            keys: int32, int64 or string [N]; a key that is not there has its initial row and state.
            with_state: bool, default False. Rows are [N, D + S], with the optimizer's state.
        """
        check_flag("with_state", with_state)
        rows = self.table.read_rows(as_keys(keys))
        return rows if with_state else rows[:, : self.dim]

    def contains(self, keys):
        """Returns whether each key is in the table: bool, of the shape of keys."""
        keys = as_keys(keys)
        present = self.table.contains(tf.reshape(keys, [-1]))
        return tf.reshape(present, tf.shape(keys))

    def upsert(self, keys, rows):
        """Sets the embeddings of keys; the last of a repeated key wins.

        New rows get the initial optimizer state, rows that exist keep theirs.

        Args:
            keys: int32, int64 or string [N].
            rows: float32 [N, D].
        """
        return self.table.upsert(as_keys(keys), as_tensor(rows, "rows", "floats [N, D]", dtype=tf.float32))

    def scatter_add(self, keys, rows):
        """Adds to the embeddings of keys; a missing key gets its initial row first.

        Args:
            keys: int32, int64 or string [N]; what comes for a repeated key is summed in order.
            rows: float32 [N, D].
        """
        return self.table.scatter_add(as_keys(keys), as_tensor(rows, "rows", "floats [N, D]", dtype=tf.float32))

    def remove(self, keys):
        """Forgets keys [N] with their optimizer state; those that are not in the table are passed over."""
        return self.table.remove(as_keys(keys))

    def clear(self):
        """Forgets all keys."""
        return self.table.clear()

    def size(self):
        """Returns the number of rows, an int64 scalar tensor."""
        return self.table.size()

    def memory_bytes(self):
        """Returns the bytes of rows, optimizer state and index, an int64 scalar tensor."""
        return self.table.memory_bytes()

    def statistics(self):
        """Returns how full the table is and how well its keys are spread; reads the whole index.

        Returns:
            dict of scalar tensors. int64: rows; capacity, the rows that the index holds before it grows;
            max_probe_length, the most places of the index (slab: buckets of 12) that finding a key reads; row_bytes,
            of the embeddings; state_bytes, of the optimizer's state and the counts; index_bytes, of the index, the
            keys and room that is not in use. float64: load, rows / capacity; mean_probe_length.
        """
        rows, capacity, probes, max_probes, memory, row_bytes, state_bytes = tf.unstack(self.table.statistics(), num=7)
        return {
            "rows": rows,
            "capacity": capacity,
            "load": tf.math.divide_no_nan(tf.cast(rows, tf.float64), tf.cast(capacity, tf.float64)),
            "mean_probe_length": tf.math.divide_no_nan(tf.cast(probes, tf.float64), tf.cast(rows, tf.float64)),
            "max_probe_length": max_probes,
            "index_bytes": memory - row_bytes - state_bytes,
            "row_bytes": row_bytes,
            "state_bytes": state_bytes,
        }

    def add_counts(self, keys, amounts, keys_differ=False):
        """Adds to the counts of keys, which must differ; those that are not in the table are passed over.

        Args:
            keys: int32, int64 or string [N].
            amounts: float64 [N, K]: what to add to `seen`, and with counts "clicked" to that.
            keys_differ: bool, default False. The caller's word that no key comes twice; otherwise the op looks.
        """
        self._check_counts()
        amounts = as_tensor(amounts, "amounts", "floats [N, K]", dtype=tf.float64)
        return self.table.add_counts(as_keys(keys), amounts, keys_differ)

    def _check_counts(self):
        if self.counts is None:
            raise ValueError(f"table '{self.path}' counts nothing; make it with counts='seen' or 'clicked'")

    def key_counts(self, keys):
        """Returns the counts of keys, float64 `keys.shape + [K]`: seen, and with counts "clicked" that.

        With n_t what came in step t, the counts at step T are sum_t n_t count_decay^(T - t); a step is an update of the
        table by an optimizer. A key that is not in the table has zeros.
        """
        self._check_counts()
        keys = as_keys(keys)
        counts = self.table.key_counts(tf.reshape(keys, [-1]))
        return tf.reshape(counts, tf.concat([tf.shape(keys), [self.num_counts]], 0))

    def export(self, with_state=False, with_counts=False):
        """Returns all keys, int64 [V], and rows, float32 [V, D], in the storage's order.

        Args:
            with_state: bool, default False. Rows are [V, D + S], with the optimizer's state.
            with_counts: bool, default False. The counts, float64 [V, K], come third.
        """
        check_flag("with_counts", with_counts)
        return self._export(0, _NO_LIMIT, with_state)[: 3 if with_counts else 2]

    def export_chunk(self, cursor, max_rows, with_state=False, with_counts=False):
        """Returns a part of what `export` does: a table larger than a tensor can be walked, in `tf.function` too.

        >>> table = tse.EmbeddingVariable(4)
        >>> _ = table.lookup(range(100), insert=True)
        >>> cursor, rows = 0, 0
        >>> while cursor >= 0:
        ...     keys, _, cursor = table.export_chunk(cursor, 30)
        ...     rows += len(keys)
        >>> rows
        100

        Rows that come or go between two parts may be missed or come twice, and with them, in storages that move rows
        (all but "slab" and "index"), rows that stay. A part may be empty.

        Args:
            cursor: int64 scalar: 0 for the first part, then what the part before returned.
            max_rows: int64 scalar, how many rows at most (storage "unordered_map": a few more, the rest of a bucket).
            with_state, with_counts: as for `export`.

        Returns:
            keys, rows, counts if asked for, and the next cursor, -1 after the last row.
        """
        check_flag("with_counts", with_counts)
        chunk = self._export(cursor, max_rows, with_state)
        return (*chunk[: 3 if with_counts else 2], chunk[4])

    def export_chunks(self, max_rows, with_state=False, with_counts=False):
        """Yields what `export` returns in parts of at most `max_rows` rows, as `export_chunk` does; in eager mode."""
        check_positive("max_rows", max_rows)
        cursor = 0
        while cursor >= 0:
            *chunk, cursor = self.export_chunk(cursor, max_rows, with_state, with_counts)
            if len(chunk[0]) > 0:
                yield tuple(chunk)

    def _export(self, cursor, max_rows, with_state):
        """Keys, rows, counts, the rule of the state, and the next cursor."""
        check_flag("with_state", with_state)
        keys, rows, counts, rule, next_cursor = self.table.export(cursor, max_rows, with_state)
        if not with_state:
            rows = tf.ensure_shape(rows, [None, self.dim])
        return keys, rows, counts, rule, next_cursor

    def bind(self, rule, **initial_values):
        """Binds the table to an update rule, for `tse.ops.embedding_update`; optimizers do this when they are built.

        Every row gets the rule's state, at its initial value; a state that it had is dropped. The newest binding wins.
        But state that was loaded while the table had no optimizer is kept by the first that binds the same rule; if it
        is of another rule, a warning says that it is dropped.

        Args:
            rule: "sgd", "momentum", "adagrad", "row_wise_adagrad", "adagrad_decay", "adam", "adam_amsgrad",
                "row_wise_adam", "ftrl", "rmsprop", "rmsprop_momentum", "rmsprop_centered" or
                "rmsprop_centered_momentum"; the classes of `tse.optimizers` have their formulas.
            **initial_values: of those with an accumulator: initial_accumulator_value, default 0.

        Returns:
            int, which names this binding to `embedding_update` (of a table on servers: a tuple, for each).
        """
        state = get_rule(rule).initial_state(self.dim, initial_values)
        with tf.init_scope():
            binding, dropped = self.table.bind(rule, state)
            if dropped:
                warnings.warn(
                    f"table '{self.path}': the state of rule {dropped} that was restored with the rows is dropped, "
                    f"because the optimizer keeps that of rule {rule}",
                    stacklevel=2,
                )
            return binding

    @property
    def overwrite_with_gradient(self):
        """Always raises: Keras' own optimizers read this of every variable that they are given."""
        raise TypeError(
            f"variable '{self.path}' is an embedding table, which Keras' own optimizers cannot update: they would need "
            "a dense tensor of all its rows. Compile with one of tse.optimizers, e.g. "
            "tse.optimizers.RowWiseAdam(learning_rate=0.001); it trains the other variables as well. Under the policy "
            "mixed_float16, wrap it in tse.optimizers.LossScaleOptimizer, else Keras wraps it in its own"
        )

    @overwrite_with_gradient.setter
    def overwrite_with_gradient(self, value):
        if value:
            raise ValueError("an embedding table cannot be overwritten with its gradient")

    # Identity: Keras compares variables element by element.

    def __eq__(self, other):
        """Whether it is the same table."""
        return self is other

    def __hash__(self):
        """By identity, so that a table can be a key of a dict."""
        return id(self)

    def __repr__(self):
        """Names the table; its rows are not printed."""
        return (
            f"<EmbeddingVariable path={self.path}, dim={self.dim}, input_dim={self.input_dim}, "
            f"storage={self.storage}, seed={self.seed}>"
        )

    def numpy(self):
        """Returns the whole table as a `tse.TableSnapshot`; `get_weights` of a layer or model calls this."""
        keys, rows, counts, rule, _ = (tensor.numpy() for tensor in self._export(0, _NO_LIMIT, with_state=True))
        return TableSnapshot(keys, rows[:, : self.dim], rows[:, self.dim :], counts, rule.decode())

    def assign(self, value):
        """Replaces the table's content; `set_weights` of a layer or model calls this.

        Args:
            value: `tse.TableSnapshot`: the table holds its rows and no others. The optimizer's state comes with them if
                it is of the rule that the table is bound to, otherwise it begins anew. Or, for a table with input_dim,
                float [input_dim, D]: the rows of keys 0 to input_dim - 1, which keep their state.

        Raises:
            ValueError, TypeError: if it is not of these; the table is as before.
        """
        self.check_assignable(value)
        if isinstance(value, TableSnapshot):
            # A table that counts nothing, or something else, has no use for the snapshot's counts.
            counts = value.counts if value.counts.shape[1] == self.num_counts else np.zeros((len(value.keys), 0))
            self.table.restore(value.keys, np.concatenate([value.rows, value.state], 1), counts, value.rule)
        else:
            self.upsert(tf.range(self.input_dim, dtype=tf.int64), np.asarray(value, np.float32))
        return value

    def check_assignable(self, value):
        """Raises the ValueError or TypeError that `assign` would."""
        check_content(value, self.path, self.dim, self.input_dim)

    def save(self, path):
        """Writes the whole table, with the optimizer's state, the counts and the seed, to a file.

        The file is of one moment: what would change the table waits. It appears under its name when it is whole and on
        the disk; until then, and after an error, the file that was there is still there, and what a killed `save` has
        left beside it goes with the next. Checksums cover every byte.

        >>> table = tse.EmbeddingVariable(4, seed=1)
        >>> _ = table.lookup([7, 9], insert=True)
        >>> table.save("items.table")
        >>> again = tse.EmbeddingVariable(4)
        >>> again.load("items.table")
        >>> int(again.size())
        2

        Args:
            path: str or path, on a local file system.

        Raises:
            tf.errors.ResourceExhaustedError: if the disk is full.
            tf.errors.NotFoundError, tf.errors.UnavailableError: if the file cannot be made or written.
        """
        self.table.save(path)

    def load(self, path):
        """Replaces the table's content by that of a file which `save` wrote, in eager mode.

        The table then holds the rows of the file and no others (storage "index": missing rows have their initial
        values, unless the file is of such a table), of whatever storage, and the seed of the file. State is kept if the
        table is bound to its rule, or to none: then by the first optimizer of that rule. State of another rule is
        dropped, with a warning. Of the counts, those are kept that both have.

        All of the file is read and checked before the table changes: while it is read, a table that is not empty takes
        twice its memory. An error leaves the table as it was.

        Raises:
            tf.errors.DataLossError: if the file is damaged, cut off, or no such file.
            tf.errors.InvalidArgumentError: if its rows have another width, a key is outside [0, input_dim), or it was
                written by a newer version or on a machine of the other byte order.
            tf.errors.ResourceExhaustedError: if it has more rows than max_rows.
            tf.errors.NotFoundError: if there is no file.
        """
        self.table.load(path)

    # TensorFlow asks for the children first, then for the values. A SavedModel must have the value, which has no rows;
    # a checkpoint that MaxShardSizePolicy cuts would lose it, and could not be restored.

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        self._is_exported = save_type == "savedmodel"
        show_table(self.table, children, save_type)
        return children

    def _serialize_to_tensors(self):
        return super()._serialize_to_tensors() if self._is_exported else {}

    def __tf_tracing_type__(self, context):
        return TableType(self)

    # Whatever else reads or writes a variable as one tensor would lose the rows.

    def __array__(self, dtype=None, copy=None):
        """Raises: the rows are no dense tensor; `export` returns them."""
        raise TypeError(
            f"variable '{self.path}' is an embedding table, no array: what wants one (a legacy .h5 file, a layer "
            "that is not of this package) would lose the rows. Save models with tables in tse.Embedding or "
            "tse.EmbeddingCollection as .keras, .weights.h5, tf.train.Checkpoint or SavedModel, a table by save(path). "
            "export() returns keys and rows"
        )

    def __tf_tensor__(self, dtype=None, name=None):
        """Raises: the rows are no dense tensor; `lookup` reads them."""
        raise TypeError(f"variable '{self.path}' is an embedding table, no dense tensor; read rows with lookup(keys)")

    def __deepcopy__(self, memo):
        """Raises: a copy would share the table."""
        raise TypeError(f"variable '{self.path}' is an embedding table and cannot be copied")
