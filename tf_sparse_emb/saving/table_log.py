"""What has changed in a table since it was last saved."""

import weakref

from tf_sparse_emb.gen_ops import library


class TableLog:
    """A log of the rows of a table that change, for as long as it lives; cc/lib/change_log.h.

    Args:
        table: `TableResource`.
    """

    def __init__(self, table):
        self.table = table
        handle = table.resource_handle
        self._log = library.sparse_emb_embedding_table_open_log(handle)
        # Not at exit, when TensorFlow may be gone before.
        weakref.finalize(self, library.sparse_emb_embedding_table_close_log, handle, self._log).atexit = False

    def has_everything(self):
        """Whether the next save must be whole."""
        return bool(library.sparse_emb_embedding_table_changes(self.table.resource_handle, self._log).everything)

    def save(self, path, save, increment):
        """Writes the table, or what has changed in it, to a file; see the op EmbeddingTableSaveInChain."""
        library.sparse_emb_embedding_table_save_in_chain(
            self.table.resource_handle, str(path), self._log, save, increment=increment
        )

    def confirm(self):
        """Says that what `save` wrote is safe."""
        library.sparse_emb_embedding_table_confirm_save(self.table.resource_handle, self._log)

    def check(self, paths, saves):
        """Returns how many of the files are whole, from the first on, and what the matter is with the next."""
        whole, problem = library.sparse_emb_embedding_table_check_chain(
            self.table.resource_handle, [str(path) for path in paths], saves
        )
        return int(whole), problem.numpy().decode()

    def load(self, paths, saves):
        """Replaces the table's content by that of a whole file and its increments."""
        self.table.load_chain([str(path) for path in paths], saves, self._log)
