"""The table behind an embedding variable, as TensorFlow tracks and saves it."""

import contextlib
import contextvars
import json
import shutil
import tempfile
import uuid
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.table_arguments import check_path
from tf_sparse_emb.table_rows import TableRows

_left_out = contextvars.ContextVar("tables_left_out", default=False)


@contextlib.contextmanager
def tables_left_out():
    """Within it this thread's `tf.train.Checkpoint`s do not see the tables of variables."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def fill(table, options, values):
    """Creates those rows of an index table that are missing; `table` has the methods of `TableRows`.

    Args:
        options: the attributes of the op EmbeddingTable.
        values: None, or the initial rows [input_dim, D].
    """
    input_dim, dim = options["input_dim"], options["dim"]
    chunk = max(1, (1 << 22) // dim)
    for start in range(0, input_dim, chunk):
        keys = tf.range(start, min(start + chunk, input_dim), dtype=tf.int64)
        keys = keys[~table.contains(keys)]
        if values is None:
            # Not a lookup, which would bound the norms of rows.
            table.scatter_add(keys, tf.zeros([tf.size(keys), dim]))
            continue
        rows = tf.gather(values, keys)
        if options["has_padding"]:
            rows = tf.where((keys == options["padding_key"])[:, tf.newaxis], 0.0, rows)
        table.upsert(keys, rows)


def warn_of_loss(table, report, source):
    """Warns of state that a load has dropped, and of an initializer that is another."""
    if report["initial_state"] and not report["kept_state"]:
        warnings.warn(
            f"table '{table.name}' is bound to rule {report['bound_rule'] or 'none'}: the state of rule "
            f"{report['rule']} in {source} is dropped, and the optimizer begins with fresh state",
            stacklevel=5,
        )
    if report["other_initial"] and not table.has_all_rows:
        mine, theirs = (
            f"{initial['initializer']}({initial['initializer_a']:g}, {initial['initializer_b']:g})"
            for initial in (table.options, report)
        )
        warnings.warn(
            f"table '{table.name}' begins new rows by {mine}, the table in {source} by {theirs}: new keys will have "
            "other rows than they would have had there",
            stacklevel=5,
        )


class TableResource(TableRows, tf.saved_model.experimental.TrackableResource):
    """A C++ table and the means to make it again.

    It hangs on its variable by the name `table`, so checkpoints find it by its place in the object graph. The table
    has no name of its own and lives as long as its handle: neither two variables nor a SavedModel that is loaded twice
    ever share one.

    `checkpoint_saver.py` keeps it in checkpoints, `ExportedTable` in SavedModels; neither needs memory in proportion to
    the table.

    Args:
        all_rows: None or a callable that returns the initial rows [input_dim, D] of an index table whose rows are not
            made one at a time.
        count_decay: float, see `tse.EmbeddingVariable`.
        device: str, a CPU, in whose memory the table lives.
        **options: the attributes of the op EmbeddingTable.

    Attributes:
        device: str.
        seed: int, of the initial rows; that of what was loaded last.
    """

    def __init__(self, *, all_rows=None, count_decay, device="CPU:0", **options):
        super().__init__(device=device)
        self.device = device
        self._all_rows, self._count_decay, self._options = all_rows, count_decay, options
        self._exported = lambda: None
        # The handle is made when it is first asked for; were that while a function is traced, it would be the graph's.
        with tf.init_scope():
            _ = self.resource_handle
            if options["storage"] == "index":
                self._fill()

    @property
    def seed(self):
        """The seed of the initial rows."""
        return self._options["seed"]

    @property
    def options(self):
        """The attributes of the op EmbeddingTable, a dict."""
        return self._options

    @property
    def name(self):
        """The name for error messages."""
        return self._options["table_name"]

    @property
    def shards(self):
        """Itself: the table is in one place."""
        return [self]

    @property
    def has_all_rows(self):
        """Whether every key has a row from the start, so that one that has none was removed."""
        return self._options["storage"] == "index"

    def set_seed(self, seed):
        """Says what the seed of the initial rows is in C++."""
        self._options = {**self._options, "seed": seed}

    def _fill(self):
        fill(self, self._options, None if self._all_rows is None else self._all_rows())

    def save(self, path, *, with_state=True, durable=True):
        """Writes the table to a file; see the op EmbeddingTableSave."""
        return library.sparse_emb_embedding_table_save(
            self.resource_handle, check_path("path", path), with_state=with_state, durable=durable
        )

    def load(self, path):
        """Replaces the table's content by that of a file, in eager mode."""
        report = library.sparse_emb_embedding_table_load(self.resource_handle, check_path("path", path), "")
        self.take(json.loads(report.numpy()), f"'{path}'")

    def check(self, path):
        """Raises the error that `load` would raise for how the file begins."""
        library.sparse_emb_embedding_table_load(self.resource_handle, str(path), "", only_check=True)

    def saved_blocks(self, block_bytes):
        """Yields the bytes of the file that `save` writes, in arrays of so many; the op EmbeddingTableStartSave."""
        with tf.init_scope():  # whoever asks for a block may be tracing a function
            save = library.sparse_emb_embedding_table_start_save(self.resource_handle, block_bytes=block_bytes)
        try:
            while True:
                with tf.init_scope():
                    block = np.frombuffer(library.sparse_emb_embedding_table_next_block(save), np.uint8)
                if not block.size:
                    return
                yield block
                del block  # its memory is that of a block to come
        finally:
            del save  # the table is locked as long as it is there, and an error keeps what a function has

    def load_blocks(self, blocks, *, source, only_check=False):
        """Does what `load` does, or only `check`, with the bytes of a file in arrays of any size.

        An error of `blocks` leaves the table as it was.
        """
        with tf.init_scope():
            load = library.sparse_emb_embedding_table_start_load(self.resource_handle, source, only_check=only_check)
        try:
            for block in blocks:
                with tf.init_scope():
                    if not library.sparse_emb_embedding_table_give_block(load, block):
                        break
            with tf.init_scope():
                report = library.sparse_emb_embedding_table_finish_load(load)
                if not only_check:
                    self.take(json.loads(report.numpy()), source)
        finally:
            del load

    def load_chains(self, paths, saves, log, **share):
        """Replaces the rows by those of saved files, and returns the report; see the op EmbeddingTableLoadChains."""
        report = library.sparse_emb_embedding_table_load_chains(self.resource_handle, paths, saves, log, **share)
        return json.loads(report.numpy())

    def save_bundle(self, prefix, key):
        """Writes the table to a checkpoint file; see the op EmbeddingTableSaveBundle."""
        return library.sparse_emb_embedding_table_save_bundle(self.resource_handle, prefix, key)

    def load_bundle(self, prefix, key):
        """Replaces the table's content by that in a checkpoint."""
        report = library.sparse_emb_embedding_table_load_bundle(self.resource_handle, prefix, key)
        if tf.is_tensor(report) and hasattr(report, "numpy"):
            self.take(json.loads(report.numpy()), f"checkpoint '{prefix.numpy().decode()}'")
        return report

    def exported(self):
        """What stands for the table in SavedModels: the same for all who ask while one is written.

        Keras' export asks before TensorFlow does, and two would be two tables in the SavedModel.
        """
        exported = self._exported()
        if exported is None:
            exported = ExportedTable(self)
            self._exported = weakref.ref(exported)
        return exported

    def take(self, report, source, had_all_rows=False):
        """Makes what was loaded, of which an op reports, this table's own.

        Args:
            report: dict.
            source: str, what it was loaded from.
            had_all_rows: bool. What it was saved from had them; a file that is of an index table says so itself.
        """
        self.set_seed(report["seed"])
        had_all_rows = had_all_rows or report["storage"] == "index"
        if self.has_all_rows and not (had_all_rows and report["input_dim"] == self._options["input_dim"]):
            self._fill()
        warn_of_loss(self, report, source)

    def _create_resource(self, session_name=""):
        return library.sparse_emb_embedding_table(
            count_decay=tf.constant(self._count_decay, tf.float64), session_name=session_name, **self._options
        )


class _RowsAsset(tf.saved_model.Asset):
    """The file of a table, written when a SavedModel takes it: who only looks for what there is pays nothing."""

    def __init__(self, table, path):
        super().__init__(str(path))
        self._write = lambda: table.save(path, with_state=False, durable=False)

    def _export_to_saved_model_graph(self, *args, **kwargs):
        # In a thread of its own, because in this one ops go into the graph of the SavedModel.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._write).result()
        return super()._export_to_saved_model_graph(*args, **kwargs)


class ExportedTable(tf.saved_model.experimental.TrackableResource):
    """A table as a SavedModel has it: its rows are an asset, which is read when the SavedModel is loaded.

    It stands in the table's place while a SavedModel is written. The optimizer's state is left out.
    """

    def __init__(self, table):
        super().__init__(device="CPU:0")
        self._table = table
        folder = tempfile.mkdtemp(prefix="tf_sparse_emb_")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._rows = _RowsAsset(table, Path(folder, "embeddings.table"))

    @property
    def resource_handle(self):
        """That of the table, or in the graph of the SavedModel the one made there."""
        return self._table.resource_handle if self._resource_handle is None else self._resource_handle

    def _create_resource(self):
        # Anonymous in the function by which a SavedModel is loaded in Python. Sessions run this op in every run of
        # their graph, and must find the same table again.
        in_function = tf.compat.v1.get_default_graph().building_function
        return self._table._create_resource("" if in_function else f"{self._table.name}_{uuid.uuid4().hex}")

    def _initialize(self):
        library.sparse_emb_embedding_table_load(self.resource_handle, self._rows.asset_path, "")

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        return {**super()._trackable_children(save_type, **kwargs), "rows": self._rows}


def show_table(table, children, save_type):
    """Puts what stands for a variable's table, if anything does, among the children that TensorFlow sees."""
    if _left_out.get():
        children.pop("table", None)
    elif save_type == "savedmodel":
        children["table"] = table.exported()
