"""A table among the weights of a layer of tf_keras."""

import tensorflow as tf

# By this class tf_keras knows weights that are not one array each, such as the vocabularies of its own layers; its
# get_weights and set_weights, of layers and models, leave the content to them. It has no public name.
from tf_keras.src.engine.base_layer_utils import TrackableWeightHandler


def refuse_saving(table):
    """Raises: in tf_keras no format saves the rows yet."""
    raise TypeError(
        f"variable '{table.path}': the rows of an embedding table cannot be saved by tf_keras yet, and would be lost. "
        "Save them with `layer.embeddings.save(path)`, which `load(path)` reads, or take them with "
        "`keys, rows = layer.embeddings.export()` and put them back with `layer.embeddings.upsert(keys, rows)`"
    )


class TableWeight(tf.Variable, tf.__internal__.types.Tensor, TrackableWeightHandler):
    """What tf_keras lists as the trainable weight in place of an `EmbeddingVariable`, which is one of Keras 3.

    It has the handle of the table's own zero-row `tf.Variable`, and so its gradient. The optimizers of `tse.legacy`
    update the table instead. What else reads or writes a variable is refused, or is given snapshots.

    Args:
        table: `tse.EmbeddingVariable`.
    """

    num_tensors = 1
    trainable = True  # a layer of tf_keras that is frozen lists its trainable weights elsewhere

    def __init__(self, table):
        self.table = table

    # What a tape, a layer and a strategy ask of a variable.

    def _should_act_as_resource_variable(self):
        """Its existence tells TensorFlow that there is a handle."""

    @property
    def handle(self):
        """The handle of the table's own variable."""
        return self.table.value.handle

    @property
    def name(self):
        """The path of the table."""
        return f"{self.table.path}:0"

    @property
    def shape(self):
        """(0, D)."""
        return self.table.value.shape

    @property
    def dtype(self):
        """float32."""
        return self.table.value.dtype

    @property
    def synchronization(self):
        """That of the table's own variable."""
        return self.table.value.synchronization

    @property
    def aggregation(self):
        """That of the table's own variable."""
        return self.table.value.aggregation

    @property
    def _distribute_strategy(self):
        return self.table.value._distribute_strategy

    def __eq__(self, other):
        """Whether it is the same."""
        return self is other

    def __hash__(self):
        """By identity."""
        return id(self)

    def __repr__(self):
        """Names the table."""
        return f"<TableWeight of {self.table!r}>"

    # The content: get_weights makes a snapshot of each "tensor", set_weights gives it back.

    def get_tensors(self):
        """Returns the table, whose `numpy()` is a `tse.TableSnapshot`."""
        return [self.table]

    def set_weights(self, weights):
        """Replaces the table's content, as `EmbeddingVariable.assign` does."""
        (value,) = weights
        self.table.assign(value)

    def assign(self, value, **kwargs):
        """Replaces the table's content, as `EmbeddingVariable.assign` does."""
        return self.table.assign(value)

    # tf_keras' own optimizers ask for one of these two before they change anything; those of tse.legacy do not.

    @property
    def device(self):
        """Always raises."""
        self._refuse_optimizer()

    @property
    def _unique_id(self):
        self._refuse_optimizer()

    def _refuse_optimizer(self):
        raise TypeError(
            f"variable '{self.table.path}' is an embedding table, which only the optimizers of tse.legacy can update "
            "in a model of tf_keras: others would need a dense tensor of all its rows. Compile with one of them, e.g. "
            "tse.legacy.RowWiseAdam(learning_rate=0.001); it trains the other variables as well"
        )

    # Whatever else reads or writes a variable as one tensor would lose the rows.

    def numpy(self):
        """Raises: the rows are no dense array, and would be lost where one is stored."""
        refuse_saving(self.table)

    def __array__(self, *args, **kwargs):
        """Raises: the rows are no dense array."""
        refuse_saving(self.table)

    def value(self):
        """Raises: the rows are no dense tensor."""
        return self.__tf_tensor__()

    def read_value(self):
        """Raises: the rows are no dense tensor."""
        return self.__tf_tensor__()

    def __tf_tensor__(self, dtype=None, name=None):
        """Raises: the rows are no dense tensor."""
        return self.table.__tf_tensor__(dtype, name)

    def _serialize_to_tensors(self):
        refuse_saving(self.table)

    def _restore_from_tensors(self, restored_tensors):
        refuse_saving(self.table)

    def _export_to_saved_model_graph(self, *args, **kwargs):
        refuse_saving(self.table)
