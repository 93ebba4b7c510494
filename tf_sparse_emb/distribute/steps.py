"""What workers do at a call: steps of training, or the evaluation of a part of the data.

Keras' metrics are sums that their variables hold. On servers, workers that read, add and write would lose each other's
parts; so a step returns what it would add to them, and the trainer sums that up.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_sparse_emb.gen_ops import library


def input_context(num_parts, part):
    """The `tf.distribute.InputContext` of a part of the data; part None: the number of the worker that this runs on."""
    return tf.distribute.InputContext(
        num_input_pipelines=num_parts,
        input_pipeline_id=library.sparse_emb_task_index() if part is None else part,
        num_replicas_in_sync=1,
    )


def make_metrics(model, strategy, element_spec):
    """Creates the variables of metrics, which Keras does when it first sees what they are of."""

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def once(data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = model(x)
        model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    with strategy.scope():
        once.get_concrete_function(element_spec)  # traced, and not called


class MetricSums:
    """The sums that a model's metrics are made of."""

    def __init__(self, model):
        variables = model.metrics_variables
        self.sums = [np.zeros(v.shape, v.dtype) for v in variables]

        @tf.function
        @tf.autograph.experimental.do_not_convert
        def results(*sums):
            with keras.StatelessScope(state_mapping=list(zip(variables, sums, strict=True))):
                return model.get_metrics_result()

        self._results = results

    def reset(self):
        """Begins anew."""
        self.sums = [np.zeros_like(total) for total in self.sums]

    def add(self, sums):
        """Adds what steps have returned; nothing if that is empty."""
        if len(sums):
            self.sums = [mine + np.asarray(more, mine.dtype) for mine, more in zip(self.sums, sums, strict=True)]

    def results(self):
        """The metrics, dict of name -> float."""
        return {name: float(value) for name, value in self._results(*map(tf.constant, self.sums)).items()}


def _loss_and_sums(model, data, training):
    """The loss of a batch, and what it adds to the metrics."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    takes_training = "training" in inspect.signature(model.call).parameters
    y_pred = model(x, training=training) if takes_training else model(x)
    arguments = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
    if "training" in inspect.signature(model.compute_loss).parameters:
        arguments["training"] = training
    loss = model.compute_loss(**arguments)
    variables = model.metrics_variables
    zeros = [(v, tf.zeros(v.shape, v.dtype)) for v in variables]
    with keras.StatelessScope(state_mapping=zeros) as scope:
        batch = tf.shape(next(value for value in tf.nest.flatten(x) if value is not None))[0]
        for metric in model.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=batch)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return loss, [scope.get_current_value(v) for v in variables]


def make_train_function(model, strategy, num_steps):
    """A function of a worker's iterator, which does steps and returns what they add to the metrics."""

    @tf.autograph.experimental.do_not_convert
    def step(data):
        with tf.GradientTape() as tape:
            loss, sums = _loss_and_sums(model, data, training=True)
            loss = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return sums

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def train(batches):
        # Not a loop of the graph, which an optimizer's merge_call cannot be in.
        sums = [strategy.run(step, args=(next(batches),))]
        for _ in range(1, num_steps):
            with tf.control_dependencies(sums[-1]):
                sums.append(strategy.run(step, args=(next(batches),)))
        return [tf.add_n(of_steps) for of_steps in zip(*sums, strict=True)]

    return train


def make_test_function(model, strategy, dataset_fn, num_parts):
    """A function of the number of a part of the data, which returns what that adds to the metrics."""

    @tf.autograph.experimental.do_not_convert
    def step(data):
        return _loss_and_sums(model, data, training=False)[1]

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def test(part):
        # Not `for`, by which the steps would be tf.data's, which does not reach the servers.
        batches = iter(dataset_fn(input_context(num_parts, part)))

        def add_next(batch, *sums):
            more = strategy.run(step, args=(batch.get_value(),))
            return batches.get_next_as_optional(), *map(tf.add, sums, more)

        sums = [tf.zeros(v.shape, v.dtype) for v in model.metrics_variables]
        return tf.while_loop(lambda batch, *_: batch.has_value(), add_next, [batches.get_next_as_optional(), *sums])[1:]

    return test
