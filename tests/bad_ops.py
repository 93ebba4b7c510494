"""Calls every raw op with every argument spoilt in every way, as a program: a crash is one of this process.

python bad_ops.py FOLDER prints a line before each call, so that one which ends the process is known, and at last a line
of JSON: how many calls there were, and what was wrong with those that were not refused as they must be.
"""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_sparse_emb as tse
from tf_sparse_emb.gen_ops import library

D, KEYS = 3, 10
INT64 = np.iinfo(np.int64)


class Setting:
    """A table under row-wise Adagrad, and good arguments for every op."""

    def __init__(self, folder):
        self.table = tse.EmbeddingVariable(D, seed=1, name="item", counts="seen")
        self.binding = self.table.bind("row_wise_adagrad")
        self.table.lookup(np.arange(KEYS), insert=True)
        self.handle = self.table.table.resource_handle
        self.log = library.sparse_emb_embedding_table_open_log(self.handle)
        path, chain, prefix = (str(folder / name) for name in ("table", "chain", "checkpoint"))
        self.table.save(path)
        library.sparse_emb_embedding_table_save_in_chain(self.handle, chain, self.log, "first", increment=False)
        library.sparse_emb_embedding_table_confirm_save(self.handle, self.log)
        library.sparse_emb_embedding_table_save_bundle(self.handle, prefix, "item")
        self.before = self.content()
        # Of tables of their own, which they lock.
        content = tf.constant(np.fromfile(path, np.uint8))
        other = [tse.EmbeddingVariable(D, name="other", counts="seen").table.resource_handle for _ in range(2)]
        save = library.sparse_emb_embedding_table_start_save(self.handle, block_bytes=1 << 20)
        given, load = (library.sparse_emb_embedding_table_start_load(handle, "blocks") for handle in other)
        library.sparse_emb_embedding_table_give_block(given, content)
        keys, unique = tf.constant([3, 5, 3], tf.int64), tf.constant([3, 5], tf.int64)
        rows, grads = tf.ones([2, D]), tf.ones([3, D])
        inverse, splits = tf.constant([0, 1, 0]), tf.constant([0, 1, 3], tf.int64)
        table, anchor = {"table": self.handle}, tf.zeros([0, D])
        chains = {"paths": [[chain]], "saves": [["first"]], "server": 0, "num_servers": 1}
        bags = {"row_splits": [splits], "weights": [tf.ones([3])], "combiner": "mean"}
        parts = [tf.constant([0, 2]), tf.constant([1])]
        self.arguments = {
            "library_version": {},
            "task_index": {},
            "embedding_bags": {
                "keys": [keys, keys],
                "row_splits": [splits],
                "names": ["a", "b"],
                "kinds": ["each", "ragged"],
                "skipped": [3],
                "skipped_counts": [1, 0],
                "max_lengths": [2, 2],
                "input_dims": [10, 10],
                "with_splits": True,
                "with_kept": True,
            },
            "embedding_dedup_lookup": {
                "tables": [self.handle, self.handle],
                "keys": keys,
                "feature_splits": [splits],
                "anchors": [anchor, anchor],
                "feature_tables": [0, 1],
                "insert": True,
                "missing": "initial",
            },
            "embedding_duplicate": {"rows": rows, "inverse": inverse, **bags},
            "embedding_row_products": {"rows": rows, "inverse": inverse, "row_splits": splits, "grad": rows},
            "embedding_grad_reduce": {"grad": rows, "inverse": inverse, "num_unique": tf.constant(2), **bags},
            "embedding_grad_reduce_by_key": {"keys": [keys, unique], "grads": [grads, rows]},
            "embedding_key_dedup": {"keys": keys, "feature_splits": [splits], "tables": [0, 1]},
            "embedding_lookup": {
                "tables": [self.handle, self.handle],
                "keys": keys,
                "table_splits": [splits],
                "anchors": [anchor, anchor],
                "insert": True,
                "missing": "initial",
                "keys_differ": False,
            },
            "embedding_max_pool": {"rows": rows, "inverse": inverse, "row_splits": splits},
            "embedding_max_pool_grad": {
                "grad": rows,
                "argmax": tf.zeros([2, D], tf.int32),
                "num_unique": tf.constant(2),
            },
            "embedding_partition": {"keys": keys, "table_splits": [splits], "num_servers": 2, "num_tables": 2},
            "embedding_partition_rows": {"rows": grads, "positions": parts},
            "embedding_stitch_rows": {
                "parts": [rows, tf.ones([1, D])],
                "positions": parts,
                "keys": keys,
                "table_splits": [],
                "anchors": [anchor],
                "keys_differ": False,
            },
            "embedding_table": {
                "count_decay": tf.constant(1.0, tf.float64),
                "table_name": "item",
                "dim": D,
                "storage": "slab",
                "input_dim": 10,
                "max_rows": 10,
                "initializer": "uniform",
                "initializer_a": -0.1,
                "initializer_b": 0.1,
                "seed": 1,
                "has_padding": True,
                "padding_key": 0,
                "max_norm": 1.0,
                "norm_type": 2.0,
                "num_counts": 1,
                "session_name": "",
            },
            "embedding_table_bind": {**table, "initial_state": tf.constant([0.0]), "rule": "row_wise_adagrad"},
            "embedding_table_size": table,
            "embedding_table_memory_bytes": table,
            "embedding_table_contains": {**table, "keys": keys},
            "embedding_table_statistics": table,
            "embedding_table_check": {**table, "finite": True, "server": 0, "num_servers": 1},
            "embedding_table_count": {
                **table,
                "keys": unique,
                "amounts": tf.ones([2, 1], tf.float64),
                "keys_differ": False,
            },
            "embedding_table_key_counts": {**table, "keys": keys},
            "embedding_table_read_rows": {**table, "keys": keys},
            "embedding_table_scatter_add": {**table, "keys": keys, "rows": grads},
            "embedding_table_upsert": {**table, "keys": keys, "rows": grads},
            "embedding_table_remove": {**table, "keys": keys},
            "embedding_table_clear": table,
            "embedding_table_export": {
                **table,
                "cursor": tf.constant(0, tf.int64),
                "max_rows": tf.constant(4, tf.int64),
                "with_state": True,
            },
            "embedding_table_restore": {
                **table,
                "keys": unique,
                "rows": tf.ones([2, D + 1]),
                "counts": tf.ones([2, 1], tf.float64),
                "rule": "row_wise_adagrad",
            },
            "embedding_table_open_log": table,
            "embedding_table_close_log": {**table, "log": self.log},
            "embedding_table_changes": {**table, "log": self.log},
            "embedding_table_save_in_chain": {
                **table,
                "path": chain + "-2",
                "log": self.log,
                "save": "second",
                "increment": True,
                "durable": False,
            },
            "embedding_table_confirm_save": {**table, "log": self.log},
            "embedding_table_check_chains": {**table, **chains},
            "embedding_table_load_chains": {**table, "log": self.log, **chains},
            "embedding_table_save": {**table, "path": path + "-2", "with_state": True, "durable": False},
            "embedding_table_load": {**table, "path": path, "source": "", "only_check": False},
            "embedding_table_start_save": {**table, "block_bytes": 1 << 20},
            "embedding_table_next_block": {"save": save},
            "embedding_table_start_load": {**table, "source": "blocks", "only_check": False},
            "embedding_table_give_block": {"load": load, "block": content},
            "embedding_table_finish_load": {"load": given},
            "embedding_table_save_bundle": {**table, "prefix": prefix + "-2", "key": "item"},
            "embedding_table_load_bundle": {**table, "prefix": prefix, "key": "item"},
            "embedding_update": {
                "tables": [self.handle],
                "keys": unique,
                "table_splits": [],
                "grads": rows,
                "hypers": tf.constant([0.1, 1e-8, 0.0]),
                "step": tf.constant(1, tf.int64),
                "rule": "row_wise_adagrad",
                "bindings": [self.binding],
                "keys_differ": False,
                "check_finite": True,
            },
            "embedding_check_finite": {
                "keys": unique,
                "table_splits": [],
                "grads": rows,
                "table_names": ["item"],
            },
        }

    def content(self):
        return self.table.numpy()


def raw_ops():
    """{name: function} of all ops of the library."""
    names = [name for name in dir(library._loaded) if name.startswith("sparse_emb_") and "eager_fallback" not in name]
    return {name.removeprefix("sparse_emb_"): getattr(library, name) for name in names}


def spoilt_tensor(value):
    """(how, value) of a tensor spoilt, and whether it must be refused."""
    value = tf.convert_to_tensor(value)
    if value.dtype == tf.resource:
        yield "a resource of another kind", tf.Variable(1.0).handle, True
        yield "no resource", tf.constant(1.0), True
        yield "None", None, True
        return
    array = value.numpy()
    for dtype in (tf.float16, tf.float64, tf.int8, tf.uint64, tf.bool, tf.complex64, tf.string):
        if dtype != value.dtype:
            yield f"of {dtype.name}", tf.zeros(value.shape, dtype), True
    yield "None", None, True
    yield "an object", object(), True
    yield "ragged", tf.ragged.constant([[1], [1, 2]]), True
    yield "sparse", tf.sparse.from_dense(tf.ones([2, 2])), True
    for rank in range(4):
        if rank != value.shape.rank:
            yield f"of rank {rank}", tf.zeros([1] * rank, value.dtype), True
    if value.shape.rank:
        yield "empty", value[:0], False
        yield "a row too few", value[1:], False
        yield "a row too many", tf.concat([value, value[:1]], 0), False
    if value.shape.rank == 2 and value.dtype == tf.float32:
        yield "a column too many", tf.concat([value, value[:, :1]], 1), False
        yield "no columns", value[:, :0], False
        yield "of no rows of 2^62 columns", tf.zeros([0, 2**62]), False
        yield "of 2^62 rows of no columns", tf.zeros([2**62, 0]), False
    bad = {
        tf.float32: (np.nan, np.inf, -np.inf, 3e38),
        tf.float64: (np.nan, -np.inf, -1.0, 1e300),
        tf.int64: (INT64.min, INT64.max, -1, 2**32),
        tf.int32: (-(2**31), 2**31 - 1, -1, 7),
        tf.string: (b"", b"\0", b"no_such", b"/", b"x" * 100_000, b"\xff\xfe"),
    }
    for element in bad.get(value.dtype, ()):
        spoilt = np.array(array, object if value.dtype == tf.string else None)
        spoilt[...] = element
        yield f"all {element!r:.20}", tf.constant(spoilt, value.dtype), False
        if spoilt.ndim == 1 and spoilt.size > 1:
            spoilt = np.array(array)
            spoilt[-1] = element
            yield f"the last {element!r:.20}", tf.constant(spoilt, value.dtype), False


ATTRIBUTES = [
    None,
    object(),
    "no_such",
    "",
    "\0",
    b"\xff",
    -1,
    0,
    7,
    2**31,
    2**62,
    2**63,
    -(2**63),
    1.5,
    np.nan,
    np.inf,
]
ATTRIBUTES += [1e39, True, [], [1], ["a"], [None], [[1]], [-1, 2**62], {}, tf.float32]


_MISSING = object()
# Inputs, where other ops have attributes.
_STRING_INPUTS = {"": ("path", "save", "source", "prefix", "key"), "embedding_table_restore": ("rule",)}


def is_tensor(value):
    return tf.is_tensor(value) or (isinstance(value, list) and bool(value) and isinstance(value[0], list))


def is_tensors(value):
    return isinstance(value, list) and bool(value) and tf.is_tensor(value[0])


def spoilt(name, op, good):
    """(how, argument, its value or _MISSING, whether that must be refused)."""
    for parameter in inspect.signature(op).parameters.values():
        if parameter.default is parameter.empty and parameter.name in good:
            yield "not given", parameter.name, _MISSING, True
    yield "an unknown attribute", "no_such", 1, True
    for argument, value in good.items():
        if is_tensor(value) or (isinstance(value, str) and argument in _STRING_INPUTS.get(name, _STRING_INPUTS[""])):
            for how, bad, refuse in spoilt_tensor(value):
                yield how, argument, bad, refuse
        elif is_tensors(value):
            yield "not a list", argument, value[0], False
            yield "no element", argument, [], False
            yield "twice as many", argument, value + value, False
            for how, bad, refuse in spoilt_tensor(value[-1]):
                yield f"the last {how}", argument, [*value[:-1], bad], refuse
        else:
            for bad in ATTRIBUTES:
                # TensorFlow itself has no memory for so many outputs.
                if name != "embedding_partition" or not isinstance(bad, int) or bad < 8:
                    yield f"{bad!r:.20}", argument, bad, False


REFUSALS = (TypeError, ValueError, tf.errors.OpError, OverflowError)


def problem_of(setting, op, arguments, refuse):
    """What is wrong with how the op takes these arguments, or None; and whether it has refused them."""
    try:
        op(**arguments)
    except REFUSALS as error:
        if len(str(error)) < 10:
            return f"says only {str(error)!r}", True
        if setting.content() != setting.before:
            return f"has changed the table: {error}", True
        return None, True
    except BaseException as error:  # the kind matters, whatever it is
        return f"raises {type(error).__name__}: {error}", True
    return ("is not refused" if refuse else None), False


def main(folder):
    setting, ops = Setting(folder), raw_ops()
    result = {"calls": 0, "refused": 0, "problems": [], "ops": sorted(ops), "known": sorted(setting.arguments)}
    for name, op in ops.items():
        op(**setting.arguments.get(name, {}))  # works
        setting = Setting(folder)
        for how, argument, value, refuse in spoilt(name, op, setting.arguments.get(name, {})):
            what = f"{name}: {argument} {how}"
            print(what, flush=True)
            arguments = {**setting.arguments.get(name, {}), argument: value}
            arguments = {k: v for k, v in arguments.items() if v is not _MISSING}
            problem, refused = problem_of(setting, op, arguments, refuse)
            result["calls"] += 1
            result["refused"] += refused
            if problem:
                result["problems"].append(f"{what} {problem}")
            try:
                tse.check(setting.table, finite=False)
            except tf.errors.DataLossError as error:
                result["problems"].append(f"{what} has left the table damaged: {error}")
            if setting.content() != setting.before:
                setting = Setting(folder)
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
