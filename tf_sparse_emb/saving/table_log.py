"""What has changed in a table since it was last saved."""

import _thread
import contextlib
import weakref
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from tf_sparse_emb.gen_ops import library
from tf_sparse_emb.sharded_table import ShardedTable


class TableLog:
    """A log of the rows of a table that change, for as long as it lives; cc/lib/change_log.h.

    Of a table that is spread over servers, each has one of its own, and writes and reads files of its own, all at once.

    Args:
        table: `TableResource` or `ShardedTable`.
    """

    def __init__(self, table):
        self.table = table
        self._logs = [None] * len(table.shards)
        self._logs = self._on_each(_open)
        for shard, log in zip(table.shards, self._logs, strict=True):
            # Not at exit, when TensorFlow may be gone before.
            weakref.finalize(self, _close_aside, shard.resource_handle, log).atexit = False

    @property
    def num_servers(self):
        """How many files the table has in a save."""
        return len(self._logs)

    def has_everything(self):
        """Whether the next save must be whole."""
        return any(
            self._on_each(
                lambda s, shard, log: bool(
                    library.sparse_emb_embedding_table_changes(shard.resource_handle, log).everything
                )
            )
        )

    def save(self, paths, saves, increment):
        """Writes the table, or what has changed in it, to a file for each server; see EmbeddingTableSaveInChain."""
        # What another host has written, no fsync of this one reaches.
        durable = isinstance(self.table, ShardedTable)

        def write(s, shard, log):
            library.sparse_emb_embedding_table_save_in_chain(
                shard.resource_handle, paths[s], log, saves[s], increment=increment, durable=durable
            )

        self._on_each(write)

    def confirm(self):
        """Says that what `save` wrote is safe."""
        self._on_each(lambda s, shard, log: library.sparse_emb_embedding_table_confirm_save(shard.resource_handle, log))

    def check(self, paths, saves):
        """Checks what `load` would read.

        Args:
            paths, saves: lists, for each server that the table was saved from, of a list of str, as of `load`.

        Returns:
            whole: int, how many files of each are whole, from the first on.
            problem: str, what the matter is with the next.
        """

        def read(s, shard, log):
            whole, problem = library.sparse_emb_embedding_table_check_chains(
                shard.resource_handle, paths, saves, server=s, num_servers=self.num_servers
            )
            return int(whole), problem.numpy().decode()

        return min(self._on_each(read), key=lambda result: result[0])

    def load(self, paths, saves, had_all_rows):
        """Replaces the table's content by that of whole files and the increments of each, each server reading its own.

        Args:
            paths: list, for each server that the table was saved from, of a list of str, the files.
            saves: the same, the names of the saves that they must be of.
            had_all_rows: bool, as for `TableResource.take`.
        """

        def read(s, shard, log):
            return shard.load_chains(paths, saves, log, server=s, num_servers=self.num_servers)

        reports = self._on_each(read)
        self.table.take(reports[0], f"'{paths[0][0]}'", had_all_rows)

    def _on_each(self, call):
        """Calls call(s, shard s, its log) for all at the same time; returns what they return, or raises the first."""

        def call_there(s):
            shard = self.table.shards[s]
            with tf.device(shard.device):
                return call(s, shard, self._logs[s])

        if self.num_servers == 1:
            return [call_there(0)]
        with ThreadPoolExecutor(self.num_servers) as pool:
            return list(pool.map(call_there, range(self.num_servers)))


def _open(s, shard, log):
    return int(library.sparse_emb_embedding_table_open_log(shard.resource_handle))


def _close_aside(handle, log):
    # Python collects garbage at any time: while this thread traces a function, holds TensorFlow's lock of its graph, or
    # takes the blocks of a save that has locked the table. So another one closes, made without a lock of `threading`.
    with contextlib.suppress(RuntimeError):  # the interpreter ends, or the system has no more threads
        _thread.start_new_thread(_close, (handle, log))


def _close(handle, log):
    # A server that is gone has no logs.
    with contextlib.suppress(tf.errors.OpError):
        library.sparse_emb_embedding_table_close_log(handle, log)
