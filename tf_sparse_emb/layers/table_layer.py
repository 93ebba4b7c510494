"""What layers with tables share: how they present themselves to Keras."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_sparse_emb import keras_files
from tf_sparse_emb.snapshot import TableSnapshot
from tf_sparse_emb.variable import EmbeddingVariable


class _ParameterCount(int):
    """A number of parameters, which `model.summary()` prints with the table's rows and bytes."""

    def __new__(cls, count, rows, num_bytes):
        """Makes the number."""
        self = super().__new__(cls, count)
        self.rows, self.bytes = rows, num_bytes
        return self

    def __format__(self, spec):
        """Adds rows and bytes to the number."""
        return f"{int(self):{spec}} ({self.rows:,} rows, {_readable(self.bytes)})"


def _readable(num_bytes):
    for unit in ("B", "KB", "MB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GB"


class TableLayerParts:
    """What layers with tables have, to be inherited beside a layer of Keras, or of tf_keras.

    That gives `_output_dtype`, `_tables` and `_adopt`, which makes new tables weights of the layer.
    """

    def _check_output_dtype(self):
        if not tf.as_dtype(self._output_dtype).is_floating:
            raise ValueError(f"dtype must be a float dtype or a policy of one, got {self._output_dtype!r}")

    def _insert(self, training):
        """Whether a call inserts keys."""
        if training is not None and not isinstance(training, (bool, int, np.bool_)):
            raise TypeError(f"training must be a bool or None, got {type(training).__name__}")
        return bool(training) and self.trainable

    def count_params(self):
        """Returns the number of elements of the embeddings that the tables hold now, rows x D."""
        rows = [int(table.size()) for table in self._tables]
        count = sum(size * table.dim for size, table in zip(rows, self._tables, strict=True))
        return _ParameterCount(count, sum(rows), sum(int(table.memory_bytes()) for table in self._tables))

    def set_weights(self, weights):
        """Replaces the tables' content by what `get_weights` returned.

        Args:
            weights: list of one `tse.TableSnapshot` for each table; or float [input_dim, D] for one with input_dim.
        """
        if not self.built:
            raise ValueError(f"layer '{self.name}' has no weights before it is built")
        if not isinstance(weights, (list, tuple)) or len(weights) != len(self._tables):
            came = len(weights) if isinstance(weights, (list, tuple)) else type(weights).__name__
            raise ValueError(f"weights must be a list of {len(self._tables)}, the content of each table, got {came}")
        values = [value if isinstance(value, TableSnapshot) else np.asarray(value) for value in weights]
        for table, value in zip(self._tables, values, strict=True):
            table.check_assignable(value)
        for table, value in zip(self._tables, values, strict=True):
            table.assign(value)


class _AwaitedAssets(keras.losses.Loss):
    """The tables of a layer whose variables are loaded, and whose assets are not.

    From a `.keras` file that has lost all of its assets Keras loads none, and does not call `load_assets`. But it loads
    what hangs on a layer after the layer, if it is of a kind that may have a state. That this is a loss, which is the
    plainest of those kinds, means nothing.
    """

    def __init__(self):
        super().__init__(name="awaited_assets")
        self.layer, self.tables = "", []

    def load_own_variables(self, store):
        """Is called when the layer's assets, if the file has any, were loaded."""
        if self.tables:
            raise _lost(self.layer, self.tables[0])


def _lost(layer, table):
    return ValueError(f"layer '{layer}': the file has lost the rows of table '{table}'")


class TableLayer(TableLayerParts, keras.layers.Layer):
    """Base of the layers that look keys up in `EmbeddingVariable`s."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The ops have no XLA kernels; Keras' jit_compile falls back and says so.
        self.supports_jit = False
        # Weights and labels of a call keep their bits under a mixed policy; the output is cast.
        self.autocast = False
        self._was_called = False
        self._awaited_assets = _AwaitedAssets()
        self._check_output_dtype()

    def __call__(self, *args, **kwargs):
        """Calls the layer, as every Keras layer."""
        self._was_called = True
        return super().__call__(*args, **kwargs)

    @property
    def compute_dtype(self):
        """The dtype of the output; until the layer is first called, of its input.

        Keras' Sequential asks the first layer for it when it builds a model without `keras.Input`, and makes the keys
        of that dtype: floats would lose their bits before they arrive.
        """
        return self._output_dtype if self._was_called else "int64"

    @property
    def input_dtype(self):
        """What Keras makes of floats among a call's arguments."""
        return self._output_dtype

    @property
    def _output_dtype(self):
        return super().compute_dtype

    @property
    def _tables(self):
        return [variable for variable in self.variables if isinstance(variable, EmbeddingVariable)]

    def _adopt(self, tables):
        # After they became attributes: Keras files a variable under trainable or not for good when it is assigned.
        for table in tables:
            table.trainable = self.trainable

    # For a `.keras` file Keras calls load_assets as well, after load_own_variables.

    def save_own_variables(self, store):
        """Saves the tables, with the optimizer's state, counts and seed, and the other variables of a subclass."""
        for table in self._tables:
            keras_files.save_table(table.table, store, table.name)
        for i, variable in enumerate(self._other_variables):
            store[str(i)] = variable

    def load_own_variables(self, store):
        """Restores what `save_own_variables` saved; an error leaves each table as it was."""
        if not self.built:
            raise ValueError(f"layer '{self.name}' has no tables to load before it is built")
        for table in self._tables:
            keras_files.check_table(table.table, store, table.name, self.name)
        others = self._other_variables
        if missing := [str(i) for i in range(len(others)) if str(i) not in store]:
            raise ValueError(f"layer '{self.name}': the file has no variable {missing[0]} of {len(others)}")
        awaited = [table.name for table in self._tables if keras_files.waits_for_asset(store, table.name)]
        self._awaited_assets.layer, self._awaited_assets.tables = self.name, awaited
        for table in self._tables:
            keras_files.load_table(table.table, store, table.name)
        for i, variable in enumerate(others):
            variable.assign(store[str(i)])

    def load_assets(self, dir_path):
        """Restores the tables of a `.keras` file."""
        awaited, self._awaited_assets.tables = self._awaited_assets.tables, []
        paths = {}
        for table in self._tables:
            if table.name not in awaited:
                continue
            path = paths[table] = Path(dir_path or "", keras_files.asset_name(table.name))
            if dir_path is None or not path.exists():
                raise _lost(self.name, table.name)
            table.table.check(path)
        for table, path in paths.items():
            table.table.load(path)

    @property
    def _other_variables(self):
        """What Keras would save of a subclass that has made variables of its own."""
        own = self._trainable_variables + self._non_trainable_variables
        return [variable for variable in own if not isinstance(variable, EmbeddingVariable)]
