"""TensorFlow's mirrored strategies, as the `fit` of Keras 3 needs them."""

import tensorflow as tf


class _ReducesWhatKerasAsks:
    """`reduce` of what Keras 3 gives it, and TensorFlow's own refuses (github.com/keras-team/keras/issues/20585).

    To build a model `fit` reduces a batch, of which it uses shapes and dtypes alone: a structure, which
    `MultiWorkerMirroredStrategy` does not take, and strings and ragged tensors, which no strategy takes. And it reduces
    scalars over axis 0 where workers are many.
    """

    def reduce(self, reduce_op, value, axis):
        """Reduces values of replicas, as in TensorFlow; of strings and composite tensors it returns a replica's."""
        if isinstance(value, (dict, list, tuple)):
            return tf.nest.map_structure(lambda part: self.reduce(reduce_op, part, axis), value)
        local = self.experimental_local_results(value)[0]
        if isinstance(local, (tf.RaggedTensor, tf.SparseTensor)) or getattr(local, "dtype", None) == tf.string:
            return local
        return super().reduce(reduce_op, value, None if len(getattr(local, "shape", (0,))) == 0 else axis)


class MirroredStrategy(_ReducesWhatKerasAsks, tf.distribute.MirroredStrategy):
    """`tf.distribute.MirroredStrategy`, under which Keras 3's `fit` takes string, ragged and sparse keys too.

    Each step splits a batch among the devices of this process. They share the tables of the process, each of which is
    updated once a step, by the summed gradients of all.

    >>> strategy = tse.distribute.MirroredStrategy(["CPU:0"])
    >>> with strategy.scope():
    ...     model = keras.Sequential([keras.Input([3], dtype="int64"), tse.Embedding(None, 8, combiner="mean")])
    ...     model.compile(tse.optimizers.RowWiseAdam(0.001), "mse")

    Args:
        devices: list of str or None (default): all GPUs, or else the CPU.
        cross_device_ops: `tf.distribute.CrossDeviceOps` or None (default).
    """


class MultiWorkerMirroredStrategy(_ReducesWhatKerasAsks, tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy`, under which Keras 3's `fit`, `evaluate` and `predict` run.

    Under TensorFlow's own they fail, for every model. Each of the processes that `TF_CONFIG` names runs the same
    program; each step splits a batch among them. Each has all rows that have come so far, and updates them by the
    gradients of all workers: the tables are equal after every step.

    To be made before any other use of TensorFlow in the process.

    >>> def make_model():
    ...     with tse.distribute.MultiWorkerMirroredStrategy().scope():
    ...         model = keras.Sequential([keras.Input([3], dtype="int64"), tse.Embedding(None, 8, seed=1)])
    ...         model.compile(tse.optimizers.RowWiseAdam(0.001), "mse")
    ...     return model

    Args:
        cluster_resolver: `tf.distribute.cluster_resolver.ClusterResolver` or None (default): that of `TF_CONFIG`.
        communication_options: `tf.distribute.experimental.CommunicationOptions` or None (default).
    """
