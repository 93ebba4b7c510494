"""Tables out to the files of others, and in from them."""

from tf_sparse_emb.interchange.formats import read_table, read_tables
from tf_sparse_emb.interchange.rows import RowChunk, RowSource, rows_of
from tf_sparse_emb.interchange.transfer import export_table, import_table

__all__ = ["RowChunk", "RowSource", "export_table", "import_table", "read_table", "read_tables", "rows_of"]
