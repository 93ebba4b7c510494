"""The layers of `tf_sparse_emb.layers`, on `tf_keras.layers.Layer`."""

import keras
import tensorflow as tf
import tf_keras

from tf_sparse_emb.layers.embedding import EmbeddingParts
from tf_sparse_emb.layers.embedding_collection import EmbeddingCollectionParts
from tf_sparse_emb.layers.table_layer import TableLayerParts
from tf_sparse_emb.legacy.table_weight import TableWeight, refuse_saving


class TableLayer(TableLayerParts, tf_keras.layers.Layer):
    """Base of the layers that look keys up in `EmbeddingVariable`s."""

    def __init__(self, **kwargs):
        for argument in ("input_shape", "batch_input_shape"):
            if argument in kwargs:
                raise ValueError(
                    f"{argument} would make an input of floats, which cannot hold keys; begin the model with "
                    f"tf_keras.Input(shape, dtype='int64'), got {argument}={kwargs[argument]!r}"
                )
        # autocast: weights and labels of a call keep their bits under a mixed policy; the output is cast.
        super().__init__(autocast=False, **kwargs)
        self._table_weights = []
        self._check_output_dtype()

    @property
    def _output_dtype(self):
        return self.compute_dtype

    @property
    def _tables(self):
        return [weight.table for weight in self._table_weights]

    def _adopt(self, tables):
        self._table_weights = [TableWeight(table) for table in tables]

    def save_own_variables(self, store):
        """Raises: saving tables is not supported yet."""
        for table in self._tables:
            refuse_saving(table)

    def load_own_variables(self, store):
        """Raises: saving tables is not supported yet."""
        self.save_own_variables(store)


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class Embedding(EmbeddingParts, TableLayer):
    """`tse.Embedding` as a layer of tf_keras: the same arguments, inputs and outputs.

    It needs one of the optimizers of `tse.legacy`. Models may be Functional, Sequential or subclassed, with plain
    `compile`, `fit`, `evaluate` and `predict`; in a loop of your own, its entry in `trainable_variables` has the
    gradient. `get_weights` and `set_weights` of the layer and the model trade a `tse.TableSnapshot`, so `EarlyStopping`
    keeps the rows. Saving in any format of tf_keras is an error, because the rows would be lost;
    `layer.embeddings.save(path)` and `tse.saving.IncrementalCheckpoint(directory, table=layer.embeddings)` save the
    table.

    >>> import tf_keras
    >>> layer = tse.legacy.Embedding(None, 8, combiner="mean")
    >>> model = tf_keras.Sequential([tf_keras.Input([3], dtype="int64"), layer, tf_keras.layers.Dense(1)])
    >>> model.compile(tse.legacy.RowWiseAdam(0.001), "mse")
    >>> history = model.fit(np.array([[1, 2**40, -7]]), np.array([1.0]), verbose=0)
    >>> int(layer.embeddings.size())
    3

    Args:
        input_dim, output_dim, and the others: as for `tse.Embedding`. Initializers, regularizers and constraints may be
            of Keras or of tf_keras.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer of tf_keras.

    Call arguments and output: as of `tse.Embedding`. A Sequential model without an `Input` takes keys as they come.

    Attributes:
        embeddings: the `tse.EmbeddingVariable`, once the layer is built.

    Raises:
        ValueError: if an argument is out of its range; for input_shape, which would make an input of floats.
        TypeError, tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError: as `tse.Embedding`.
    """

    def build(self, input_shape=None):
        """Creates the table, `self.embeddings`."""
        with keras.name_scope(self.name):
            super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output for keys of `input_shape`, a `tf.TensorShape`."""
        return tf.TensorShape(super().compute_output_shape(input_shape))


@tf_keras.saving.register_keras_serializable(package="tf_sparse_emb")
class EmbeddingCollection(EmbeddingCollectionParts, TableLayer):
    """`tse.EmbeddingCollection` as a layer of tf_keras: the same arguments, inputs and outputs.

    See `tse.legacy.Embedding` for what differs in a model of tf_keras.

    >>> layer = tse.legacy.EmbeddingCollection(
    ...     [tse.TableConfig("item", None, 8), tse.TableConfig("country", 200, 4)],
    ...     [tse.FeatureConfig("item", "item"), tse.FeatureConfig("country", "country")],
    ...     concat=True,
    ... )
    >>> layer({"item": np.array([1, 2]), "country": np.array([3, 4])}).shape
    TensorShape([2, 12])

    Args:
        tables, features, concat, missing: as for `tse.EmbeddingCollection`.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer of tf_keras.

    Call arguments, output and errors: as of `tse.EmbeddingCollection`.

    Attributes:
        tables: dict of table name -> `tse.EmbeddingVariable`, once the layer is built.
    """

    def build(self, input_shape=None):
        """Creates the tables, `self.tables`."""
        with keras.name_scope(self.name):
            super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the `tf.TensorShape` of the output, or a dict of them, for a dict of the shapes of keys."""
        shapes = super().compute_output_shape({name: tuple(shape) for name, shape in input_shape.items()})
        if self.concat:
            return tf.TensorShape(shapes)
        return {name: tf.TensorShape(shape) for name, shape in shapes.items()}
