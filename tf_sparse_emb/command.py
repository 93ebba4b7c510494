"""The command `python -m tf_sparse_emb`: looks into, converts, compares and merges files of tables."""

import argparse
import contextlib
import json
import re
import sys

import keras
import numpy as np
import tensorflow as tf

from tf_sparse_emb.interchange.formats import format_of, read_table, read_tables, write_table
from tf_sparse_emb.interchange.rows import RowSource, TableSource
from tf_sparse_emb.variable import EmbeddingVariable

EQUAL, DIFFERENT, FAILED, INTERRUPTED = 0, 1, 2, 130

_PATHS = """paths:
  rows.npz               arrays keys [V], rows [V, D], state [V, S]
  rows.npy               a matrix: the rows of keys 0 to V - 1
  rows.parquet           columns key, row, state (needs pyarrow)
  PREFIX                 PREFIX-keys and PREFIX-values, the raw files of TensorFlow Recommenders Addons
  model.weights.h5       the matrices in Keras' weights (read only)
  model/ckpt-7           a TensorFlow checkpoint; or the folder of a CheckpointManager (read only)
  item.table             a table's own file (read only)
  FOLDER                 what an IncrementalCheckpoint has saved, or FOLDER/save-00000007 of it (read only)
  FOLDER                 an export of tse.export_for_serving (read only)
Where a path holds several tables, PATH::TABLE is one of them.

exit codes: 0 done, or equal; 1 different; 2 an error; 130 interrupted
"""


class _Progress(RowSource):
    """A source that shows on stderr how far it has been walked."""

    def __init__(self, source, quiet):
        vars(self).update(vars(source))
        self._source, self._quiet = source, quiet

    def chunks(self, max_rows=None):
        bar, done = None, 0
        if not self._quiet and sys.stderr.isatty():
            print(self.name, file=sys.stderr)
            bar = keras.utils.Progbar(self.num_rows, unit_name="row")
        for chunk in self._source.chunks(max_rows):
            yield chunk
            done += len(chunk.keys)
            if bar is not None:
                # Keras' bar is for stdout, where a command has its results.
                with contextlib.redirect_stdout(sys.stderr):
                    bar.update(done)


def _open(path, args):
    path, _, table = path.partition("::")
    return _Progress(read_table(path, table or None), args.quiet)


def inspect(args):
    """Prints what a path holds."""
    path, _, table = args.path.partition("::")
    tables = {table: read_table(path, table)} if table else read_tables(path)
    found = []
    for name, source in tables.items():
        facts = {"table": name or None, "rows": source.num_rows, "dim": source.dim}
        facts |= {"state": f"{source.rule} [{source.state_width}]"} if source.state_width else {}
        facts |= source.details
        if not args.brief:
            facts |= _scan(_Progress(source, args.quiet))
        found.append({name: value for name, value in facts.items() if value is not None})
    if args.json:
        print(json.dumps(found, indent=1))
        return EQUAL
    if not found:
        print("no tables")
    for facts in found:
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    return EQUAL


def _scan(source):
    least, greatest, zeros, squares, top = None, None, 0, 0.0, 0.0
    for chunk in source.chunks():
        if not len(chunk.keys):
            continue
        low, high = int(chunk.keys.min()), int(chunk.keys.max())
        least, greatest = (low, high) if least is None else (min(least, low), max(greatest, high))
        zeros += int((~chunk.rows.any(1)).sum())
        squares += float(np.square(chunk.rows, dtype=np.float64).sum())
        top = max(top, float(np.abs(chunk.rows).max()))
    elements = max(1, source.num_rows * source.dim)
    return {
        "least_key": least,
        "greatest_key": greatest,
        "rows_of_zeros": zeros,
        "root_mean_square": float(f"{(squares / elements) ** 0.5:.6g}"),
        "greatest_element": float(f"{top:.6g}"),
    }


def export(args):
    """Writes a table in another format."""
    source = _open(args.source, args)
    format = format_of(args.target, args.format)
    if not args.with_state:
        source.state_width, source.rule = 0, ""
    elif not source.state_width or format == "raw":
        raise ValueError(f"--with-state needs a source with a state and a target that takes it, got {source.name}")
    write_table(args.target, source, format)
    print(f"{source.num_rows} rows of width {source.dim} written to {args.target}")
    return EQUAL


def diff(args):
    """Compares two tables by key."""
    ours, theirs = _open(args.first, args), _open(args.second, args)
    if ours.num_rows and theirs.num_rows and ours.dim != theirs.dim:
        print(f"widths differ: {ours.dim} and {theirs.dim}")
        return DIFFERENT
    table = _as_table(theirs)
    only_first = changed = 0
    greatest, at = 0.0, None
    for chunk in ours.chunks():
        present = table.contains(chunk.keys).numpy()
        only_first += int((~present).sum())
        if not present.any():
            continue
        keys = chunk.keys[present]
        errors = np.abs(chunk.rows[present].astype(np.float64) - table.lookup(keys).numpy()).max(1)
        changed += int((errors > args.tolerance).sum())
        if errors.max() > greatest:
            greatest, at = float(errors.max()), int(keys[errors.argmax()])
    only_second = theirs.num_rows - (ours.num_rows - only_first)
    print(f"only in the first: {only_first}, only in the second: {only_second}, of different rows: {changed}")
    if at is not None:
        print(f"the greatest difference of an element is {greatest:.6g}, at key {at}")
    return DIFFERENT if only_first or only_second or changed else EQUAL


def merge(args):
    """Writes the rows of several tables to one."""
    format_of(args.target, args.format)
    sources = [_open(path, args) for path in args.sources]
    widths = {source.dim for source in sources if source.num_rows}
    if len(widths) > 1:
        raise ValueError(f"tables to merge must be of one width, got {sorted(widths)}")
    table = EmbeddingVariable(widths.pop() if widths else sources[0].dim, initializer="zeros", name="merged")
    repeated = 0
    for source in sources:
        for chunk in source.chunks():
            present = table.contains(chunk.keys).numpy()
            repeated += int(present.sum())
            if present.any() and args.repeated == "error":
                raise ValueError(f"key {chunk.keys[present][0]} of {source.name} has come before; see --repeated")
            new = np.ones_like(present) if args.repeated == "last" else ~present
            table.upsert(chunk.keys[new], chunk.rows[new])
    write_table(args.target, _Progress(TableSource(table), args.quiet), args.format)
    print(f"{int(table.size())} rows written to {args.target}, {repeated} keys came more than once")
    return EQUAL


def _as_table(source):
    """A table in memory, to be asked by key."""
    table = EmbeddingVariable(source.dim, initializer="zeros", name="second")
    for chunk in source.chunks():
        table.upsert(chunk.keys, chunk.rows)
    if int(table.size()) != source.num_rows:
        raise ValueError(f"keys of {source.name} must differ, got {source.num_rows - int(table.size())} more than once")
    return table


def _parser():
    parser = argparse.ArgumentParser(
        "python -m tf_sparse_emb",
        description=__doc__.splitlines()[0],
        epilog=_PATHS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(function, **kwargs):
        command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__, **kwargs)
        command.set_defaults(function=function)
        return command

    command = add(inspect)
    command.add_argument("path")
    command.add_argument("--brief", action="store_true", help="do not read the rows")
    command.add_argument("--json", action="store_true", help="print JSON")
    formats = {"choices": ("npz", "parquet", "raw"), "help": "of TARGET; default: by its end"}
    command = add(export)
    command.add_argument("source")
    command.add_argument("target")
    command.add_argument("--format", **formats)
    command.add_argument("--with-state", action="store_true", help="the optimizer's state too")
    command = add(diff)
    command.add_argument("first")
    command.add_argument("second", help="is held in memory")
    command.add_argument("--tolerance", type=float, default=0.0, help="absolute, of an element; default 0")
    command = add(merge)
    command.add_argument("target")
    command.add_argument("sources", nargs="+")
    command.add_argument("--format", **formats)
    command.add_argument(
        "--repeated", choices=("last", "first", "error"), default="last", help="whose row a key of several keeps"
    )
    return parser


def main(arguments=None):
    """Runs the command and returns its exit code."""
    args = _parser().parse_args(arguments)
    try:
        return args.function(args)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, TypeError, RuntimeError, ImportError, OSError, tf.errors.OpError) as error:
        # TensorFlow says which op it was, before and after.
        message = re.sub(r"^\{\{.*?\}\} | \[Op:.*\]$", "", str(error))
        print(f"python -m tf_sparse_emb: {message}", file=sys.stderr)
        return FAILED
