"""What each argument of each public function, class and method may be, and calls to spoil an argument of.

A new public name or argument without a line here fails test_bad_arguments.py.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf
from argument_kinds import (
    FREE,
    KINDS,
    D,
    batch_of_keys,
    is_int,
    name_of_config,
    name_of_table,
    never,
    no_keys,
    one_of,
    only_none,
    op_flag,
    part_of_export,
    path,
    positive_int,
    rows_or_nan,
    text,
    vector_of_keys,
)

import tf_sparse_emb as tse

# What functions that are named after TensorFlow's call in errors as all others do.
KEYS_AND_WEIGHTS = {"sp_keys": "keys", "sp_weights": "weights"}


NO_FILE = {"path": "path|there is no no_such"}
CONTENT = {"source": "rows come from|rows of|keys of|path must be|there is no no_such"}


class Call:
    """A public function, and good arguments of it.

    Args:
        function: callable.
        good: dict of the arguments that are always given.
        table: the table that a refused call must not have changed, or None.
        kinds: dict of argument -> kind, where it is not that of KINDS.
        says: dict of argument -> what errors call it.
    """

    def __init__(self, function, good=None, table=None, kinds=None, says=None):
        self.function, self.good, self.table = function, good or {}, table
        self.kinds, self.says = KINDS | (kinds or {}), says or {}

    @property
    def arguments(self):
        parameters = inspect.signature(self.function).parameters.values()
        return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def calls(folder):
    """{public name: Call}"""
    table = tse.EmbeddingVariable(D, seed=1, name="item", counts="seen")
    table.bind("sgd")
    table.lookup(np.arange(10), insert=True)
    file = str(folder / "saved.table")
    table.save(file)
    npz = str(folder / "rows.npz")
    tse.interchange.export_table(table, npz)
    exported = folder / "serving"
    exported.mkdir()
    (exported / "something").touch()
    snapshot = table.numpy()
    model = keras.Sequential([keras.Input([2], dtype="int64"), tse.Embedding(None, D, combiner="sum")])
    sparse = tf.SparseTensor([[0, 0]], tf.constant([3], tf.int64), [1, 1])
    rows, grads = np.ones((2, D), np.float32), np.ones((2, D), np.float32)
    pair, inverse = np.array([3, 5]), np.array([0, 1], np.int32)
    splits = np.array([0, 2])
    on = {"table": table}
    layer = {"input_dim": None, "output_dim": D}
    config = [tse.TableConfig("item", None, D)]
    features = [tse.FeatureConfig("a", "item")]
    found = {
        "tse.Embedding": Call(tse.Embedding, layer),
        "tse.Embedding.from_pretrained": Call(
            tse.Embedding.from_pretrained,
            {"weights": rows},
            kinds={"weights": never, "keys": lambda value: value is None or vector_of_keys(value)},
        ),
        "tse.EmbeddingCollection": Call(tse.EmbeddingCollection, {"tables": config, "features": features}),
        "tse.TableConfig": Call(tse.TableConfig, {"name": "item", **layer}, kinds={"name": name_of_config}),
        "tse.FeatureConfig": Call(
            tse.FeatureConfig, {"name": "a", "table": "item"}, kinds={"name": name_of_config, "table": text}
        ),
        "tse.EmbeddingVariable": Call(tse.EmbeddingVariable, {"dim": D, "storage": "slab"}),
        "tse.TableSnapshot": Call(
            tse.TableSnapshot,
            {"keys": pair, "rows": rows},
            kinds=dict.fromkeys(("keys", "rows", "state", "counts", "rule"), FREE),
        ),
        "tse.check": Call(tse.check, {"tables": table}, table),
        "tse.embedding_lookup": Call(tse.embedding_lookup, {"variable": table, "keys": pair}, table),
        "tse.embedding_lookup_sparse": Call(
            tse.embedding_lookup_sparse,
            {"variable": table, "sp_keys": sparse},
            table,
            kinds={"combiner": one_of("mean", "sum", "sqrtn", "max")},
            says=KEYS_AND_WEIGHTS,
        ),
        "tse.safe_embedding_lookup_sparse": Call(
            tse.safe_embedding_lookup_sparse,
            {"variable": table, "sp_keys": sparse},
            table,
            kinds={"combiner": one_of("mean", "sum", "sqrtn", "max")},
            says=KEYS_AND_WEIGHTS,
        ),
        "tse.export_for_serving": Call(
            tse.export_for_serving,
            {"model": model, "path": exported},
            kinds={"path": FREE, "missing": one_of(None, "initial", "zeros")},
            says={"missing": "missing|path must not exist"},  # it does, so that good arguments cost nothing
        ),
        "tse.initializers.UniformUnitScaling": Call(
            tse.initializers.UniformUnitScaling,
            {"input_size": 10},
            kinds={"seed": FREE},  # Keras', which a table checks
        ),
        "tse.ops.embedding_key_dedup": Call(tse.ops.embedding_key_dedup, {"keys": pair}, kinds={"keys": batch_of_keys}),
        "tse.ops.embedding_lookup": Call(tse.ops.embedding_lookup, {**on, "keys": pair}, table),
        "tse.ops.embedding_dedup_lookup": Call(
            tse.ops.embedding_dedup_lookup, {**on, "keys": pair}, table, kinds={"keys": batch_of_keys}
        ),
        "tse.ops.embedding_duplicate": Call(
            tse.ops.embedding_duplicate,
            {"rows": rows, "inverse": inverse},
            kinds={
                "rows": rows_or_nan,
                "inverse": no_keys,
                "weights": only_none,
                "row_splits": only_none,
                "combiner": one_of(None),
            },
        ),
        "tse.ops.embedding_max_pool": Call(
            tse.ops.embedding_max_pool,
            {"rows": rows, "inverse": inverse, "row_splits": splits},
            kinds={"rows": rows_or_nan},
            says={"inverse": "inverse|row_splits must go from 0 to 0, the number of values"},
        ),
        "tse.ops.embedding_grad_reduce": Call(
            tse.ops.embedding_grad_reduce,
            {"grad": grads, "keys": pair},
            kinds={
                "grad": rows_or_nan,
                "keys": vector_of_keys,
                "inverse": only_none,
                "num_unique": only_none,
                "weights": only_none,
                "row_splits": only_none,
                "combiner": one_of(None),
            },
            # Where two do not match, the error is about one of them.
            says={
                "keys": "keys|inverse|grad must have size",
                "inverse": "inverse|keys",
                "num_unique": "num_unique|keys",
            },
        ),
        "tse.ops.embedding_update": Call(
            tse.ops.embedding_update,
            {**on, "keys": pair, "grads": grads, "rule": "sgd", "learning_rate": 0.1},
            table,
            kinds={"keys": vector_of_keys, "check_finite": op_flag},
            says={"keys": "keys|grads must have size", "binding": "binding|bound to another optimizer"},
        ),
        "tse.saving.IncrementalCheckpoint": Call(
            tse.saving.IncrementalCheckpoint, {"directory": str(folder / "chain"), "table": table}
        ),
        "tse.interchange.export_table": Call(tse.interchange.export_table, {**on, "path": str(folder / "out.npz")}),
        "tse.interchange.import_table": Call(
            tse.interchange.import_table, {**on, "source": npz}, table, kinds={"name": name_of_table}, says=CONTENT
        ),
        "tse.interchange.read_table": Call(
            tse.interchange.read_table, {"path": npz}, kinds={"path": never, "table": name_of_table}, says=NO_FILE
        ),
        "tse.interchange.read_tables": Call(
            tse.interchange.read_tables, {"path": npz}, kinds={"path": never}, says=NO_FILE
        ),
        "tse.interchange.rows_of": Call(tse.interchange.rows_of, {"content": table}, kinds={"content": FREE}),
        "tse.distribute.LocalCluster": Call(
            tse.distribute.LocalCluster,
            {"workers": 1, "servers": 1, "start": False},
            kinds={"workers": lambda v: is_int(v, 1, 1000), "servers": lambda v: is_int(v, 1, 1000)},
        ),
        "tse.distribute.parameter_server_strategy": Call(
            tse.distribute.parameter_server_strategy,
            {"cluster_resolver": tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec({}))},
        ),
        "tse.distribute.ParameterServerTrainer": Call(tse.distribute.ParameterServerTrainer, {"model": model}),
    }
    methods = {
        "lookup": {"keys": pair},
        "read_rows": {"keys": pair},
        "contains": {"keys": pair},
        "upsert": {"keys": pair, "rows": rows},
        "scatter_add": {"keys": pair, "rows": rows},
        "remove": {"keys": pair},
        "clear": {},
        "size": {},
        "memory_bytes": {},
        "statistics": {},
        "add_counts": {"keys": pair, "amounts": np.ones((2, 1))},
        "key_counts": {"keys": pair},
        "export": {},
        "export_chunk": {"cursor": 0, "max_rows": 4},
        "export_chunks": {"max_rows": 4},
        "bind": {"rule": "sgd"},
        "numpy": {},
        "assign": {"value": snapshot},
        "check_assignable": {"value": snapshot},
        "save": {"path": file},
        "load": {"path": file},
    }
    for name, good in methods.items():
        kinds = {"path": path if name == "save" else never, "max_rows": positive_int}
        if name == "export_chunk":
            kinds["max_rows"] = part_of_export
        says = {"path": "path|cannot open 'no_such'", "value": "can be assigned"}
        if "rows" in good or "amounts" in good:
            kinds |= {"keys": vector_of_keys, "rows": rows_or_nan}
            says["keys"] = "keys|(rows|amounts) must have size"
        elif name in ("read_rows", "remove"):
            kinds["keys"] = batch_of_keys
        method = getattr(table, name)
        if name == "export_chunks":
            method = _all_chunks(method)
        found[f"tse.EmbeddingVariable.{name}"] = Call(method, good, table, kinds=kinds, says=says)
    for module, prefix in ((tse.optimizers, "tse.optimizers"), (tse.legacy, "tse.legacy")):
        for name in module.__all__:
            if name not in ("Embedding", "EmbeddingCollection", "SparseOptimizer", "LossScaleOptimizer"):
                found[f"{prefix}.{name}"] = Call(getattr(module, name))
    found["tse.optimizers.SparseOptimizer"] = Call(tse.optimizers.SparseOptimizer, {"learning_rate": 0.1})
    found["tse.legacy.SparseOptimizer"] = Call(tse.legacy.SparseOptimizer, {"learning_rate": 0.1})
    found["tse.optimizers.LossScaleOptimizer"] = Call(
        tse.optimizers.LossScaleOptimizer, {"inner_optimizer": tse.optimizers.SGD()}
    )
    found["tse.legacy.Embedding"] = Call(tse.legacy.Embedding, layer)
    found["tse.legacy.EmbeddingCollection"] = Call(
        tse.legacy.EmbeddingCollection, {"tables": config, "features": features}
    )
    return found


def _all_chunks(method):
    def export_chunks(max_rows, with_state=False, with_counts=False):
        return list(method(max_rows, with_state, with_counts))

    return export_chunks


# Results, which are not made by users, and TensorFlow's own classes, whose arguments it checks.
WITHOUT_CALLS = {
    "tse.ExportedTable",
    "tse.ops.DedupLookup",
    "tse.ops.KeyDedup",
    "tse.saving.Restored",
    "tse.interchange.RowChunk",
    "tse.interchange.RowSource",
    "tse.distribute.ServerLostError",
    "tse.distribute.MirroredStrategy",
    "tse.distribute.MultiWorkerMirroredStrategy",
}
MODULES = {"tse": tse} | {
    f"tse.{name}": getattr(tse, name)
    for name in ("distribute", "initializers", "interchange", "legacy", "ops", "optimizers", "saving")
}


def public_names():
    """The public names that can be called, and the methods of tables that are not Keras'."""
    names = {
        f"{prefix}.{name}"
        for prefix, module in MODULES.items()
        for name in module.__all__
        if callable(getattr(module, name))
    }
    own = {
        f"tse.EmbeddingVariable.{name}"
        for name, member in vars(tse.EmbeddingVariable).items()
        if not name.startswith("_") and inspect.isfunction(member)
    }
    return (names | own | {"tse.Embedding.from_pretrained"}) - WITHOUT_CALLS
