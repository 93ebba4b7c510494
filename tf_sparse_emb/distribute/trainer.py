"""`fit` and `evaluate` on a cluster of workers and parameter servers."""

import collections
import contextlib
import re

import keras
import tensorflow as tf

from tf_sparse_emb.distribute import steps
from tf_sparse_emb.distribute.progress import Progress
from tf_sparse_emb.saving import IncrementalCheckpoint
from tf_sparse_emb.servers import is_parameter_server_strategy
from tf_sparse_emb.table_arguments import check_path, check_positive, is_word

_PENDING = 4  # calls of a worker that are asked for beyond the one that it works on
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)  # of a process that has ended


class ServerLostError(RuntimeError):
    """A parameter server no longer answers: what it held is lost, but for what was saved."""


class ParameterServerTrainer:
    """Trains and evaluates a Keras model on the workers of a `tf.distribute.ParameterServerStrategy`.

    Training is asynchronous: each worker takes a batch of its own data, reads the variables and the rows that it needs
    from the servers, and sends gradients back, while other workers do the same. With one worker, one step follows the
    other and the result is that of one process, bit for bit.

    A worker that is lost is no loss: its steps are done by others, and it may come back. (A step whose worker is lost
    in its midst is done again, so that its gradients may count twice.) A server that is lost ends the training with a
    `ServerLostError`; run the program again, and `fit` goes on from the last save in `checkpoint_dir`. So it does
    if this process is lost.

    ```python
    def dataset_fn(context):  # runs on each worker
        files = tf.data.Dataset.list_files("/data/*.tfrecord", shuffle=False)
        files = files.shard(context.num_input_pipelines, context.input_pipeline_id)
        return tf.data.TFRecordDataset(files).map(parse).batch(1024)

    strategy = tse.distribute.parameter_server_strategy()
    with strategy.scope():
        model = make_model()
        model.compile(tse.optimizers.RowWiseAdam(0.001), "binary_crossentropy", metrics=["AUC"])
    trainer = tse.distribute.ParameterServerTrainer(model, checkpoint_dir="/shared/checkpoints", save_freq=1000)
    history = trainer.fit(dataset_fn, epochs=2, steps_per_epoch=10_000, validation_data=validation_fn)
    ```

    Args:
        model: a Keras model that was built and compiled in the strategy's scope. Its `train_step` and `test_step` must
            be Keras' own; its `call`, `compute_loss` and `compute_metrics` may be its own.
        steps_per_execution: int > 0, default 1: steps that a worker does at one call of this process, which costs about
            a millisecond. Callbacks see the last of each.
        checkpoint_dir: str, path or None (default). Where the model, its optimizer and the progress of `fit` are saved,
            by `tse.saving.IncrementalCheckpoint`: a folder that this process and all servers see under this path.
        save_freq: "epoch" (default) or int > 0: save after each epoch, or after so many steps as well.

    Raises:
        ValueError: if the model is not compiled, not made in the scope of such a strategy, or has steps of its own; or
            an argument is out of its range.
    """

    def __init__(self, model, *, steps_per_execution=1, checkpoint_dir=None, save_freq="epoch"):
        check_positive("steps_per_execution", steps_per_execution)
        if not is_word(save_freq, ("epoch",)):
            check_positive("save_freq", save_freq)
        self._strategy = _strategy_of(model)
        self._model = model
        self._steps_per_execution = steps_per_execution
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)
        self._num_workers = sum("/job:worker/" in device.name for device in tf.config.list_logical_devices("CPU"))
        self._train = steps.make_train_function(model, self._strategy, steps_per_execution)
        self._metrics = None
        self._progress = Progress()
        self._save_freq = save_freq
        self._checkpoint = None
        if checkpoint_dir is not None:
            self._checkpoint = IncrementalCheckpoint(
                check_path("checkpoint_dir", checkpoint_dir),
                model=model,
                optimizer=model.optimizer,
                progress=self._progress,
            )

    def fit(
        self,
        dataset_fn,
        *,
        steps_per_epoch,
        epochs=1,
        validation_data=None,
        validation_freq=1,
        callbacks=None,
        verbose="auto",
    ):
        """Trains the model, as `keras.Model.fit`.

        Args:
            dataset_fn: function of a `tf.distribute.InputContext`, which runs on each worker and returns its
                `tf.data.Dataset` of (x, y) or (x, y, sample_weight), in batches. `input_pipeline_id`, the number of the
                worker, is a tensor. The dataset is repeated for as long as it is needed; a worker that comes back
                begins it anew.
            steps_per_epoch: int > 0, steps of all workers together; a multiple of steps_per_execution.
            epochs: int > 0, default 1. Those that are in `checkpoint_dir` already are not done again.
            validation_data: None (default) or a function as for `evaluate`, which is called after epochs.
            validation_freq: int > 0, default 1: validate after every so many epochs.
            callbacks: list of `keras.callbacks.Callback`, or None. They run in this process; batches' logs are the
                metrics so far. Those that save the model as a file of Keras raise its error: use checkpoint_dir.
            verbose: "auto" (default, 1), 0, 1 or 2, as in Keras.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ServerLostError: if a server does not answer any more.
            ValueError: if an argument is out of its range.
        """
        for name, value in (
            ("steps_per_epoch", steps_per_epoch),
            ("epochs", epochs),
            ("validation_freq", validation_freq),
        ):
            check_positive(name, value)
        if steps_per_epoch % self._steps_per_execution:
            raise ValueError(
                f"steps_per_epoch must be a multiple of steps_per_execution = {self._steps_per_execution}, got "
                f"{steps_per_epoch}"
            )
        _check_function("dataset_fn", dataset_fn)
        if validation_data is not None:
            _check_function("validation_data", validation_data)
        verbose = 1 if verbose == "auto" else verbose
        model = self._model
        with _server_errors(self._checkpoint):
            self._restore()
            if not isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks = keras.callbacks.CallbackList(
                    callbacks,
                    add_history=True,
                    add_progbar=verbose != 0,
                    verbose=verbose,
                    epochs=epochs,
                    steps=steps_per_epoch,
                    model=model,
                )
            of_worker = self._dataset_function(dataset_fn)
            batches = iter(self._coordinator.create_per_worker_dataset(of_worker))
            model.stop_training = False
            callbacks.on_train_begin()
            logs = {}
            while self._progress.epoch < epochs and not model.stop_training:
                epoch = self._progress.epoch
                callbacks.on_epoch_begin(epoch)
                logs = self._train_epoch(batches, steps_per_epoch, callbacks)
                if validation_data is not None and (epoch + 1) % validation_freq == 0:
                    values = self.evaluate(validation_data, verbose=0)
                    logs |= {f"val_{name}": value for name, value in values.items()}
                self._progress.end_epoch()
                callbacks.on_epoch_end(epoch, logs)
                self._save()
            callbacks.on_train_end(logs)
        return model.history

    def _train_epoch(self, batches, steps_per_epoch, callbacks):
        """Does what is left of an epoch, and returns its metrics."""
        metrics = self._metrics = self._metrics or steps.MetricSums(self._model)
        metrics.reset()
        metrics.add(self._progress.metric_sums)
        pending, asked, last_save = collections.deque(), self._progress.step, self._progress.step
        while self._progress.step < steps_per_epoch and not self._model.stop_training:
            due = self._save_freq != "epoch" and asked - last_save >= self._save_freq
            if asked < steps_per_epoch and not due and len(pending) < (1 + _PENDING) * self._num_workers:
                callbacks.on_train_batch_begin(asked + self._steps_per_execution - 1)
                pending.append(self._coordinator.schedule(self._train, args=(batches,)))
                asked += self._steps_per_execution
                continue
            if pending:
                metrics.add(self._fetch(pending.popleft()))
                self._progress.end_steps(self._steps_per_execution, metrics.sums)
                callbacks.on_train_batch_end(self._progress.step - 1, metrics.results())
            if due and not pending:
                self._save()
                last_save = self._progress.step
        self._coordinator.join()
        return metrics.results()

    def evaluate(self, dataset_fn, *, verbose="auto", num_shards=None):
        """Computes the loss and the metrics on all of a dataset, each example once.

        Args:
            dataset_fn: function of a `tf.distribute.InputContext`, which returns the part `input_pipeline_id` of
                `num_input_pipelines` of a finite dataset. A part is evaluated by any worker, and again if it is lost.
            verbose: "auto" (default), 0 or 1: print the result.
            num_shards: int > 0 or None (default: the number of workers): in how many parts.

        Returns:
            dict of name -> float.
        """
        _check_function("dataset_fn", dataset_fn)
        check_positive("num_shards", num_shards, or_none=True)
        num_shards = num_shards or self._num_workers
        with _server_errors(self._checkpoint):
            self._dataset_function(dataset_fn)
            evaluate = steps.make_test_function(self._model, self._strategy, dataset_fn, num_shards)
            metrics = steps.MetricSums(self._model)
            parts = [
                self._coordinator.schedule(evaluate, args=(tf.constant(shard, tf.int64),))
                for shard in range(num_shards)
            ]
            for part in parts:
                metrics.add(self._fetch(part))
            self._coordinator.join()
        results = metrics.results()
        if verbose not in (0, False):
            print(" - ".join(f"{name}: {value:.4f}" for name, value in results.items()))
        return results

    def _fetch(self, value):
        """What a step returned. Where its worker ends before all of it has come here, another does the step again."""
        try:
            return value.fetch()
        except _LOST as error:
            if "/job:ps/" in error.message:
                raise
            self._coordinator.join()  # raises what else may have failed
            return value.fetch()

    def _dataset_function(self, dataset_fn):
        """A graph that makes the dataset of the worker that runs it; sees to the metrics."""
        make = tf.function(lambda: dataset_fn(steps.input_context(self._num_workers, None)).repeat())
        make = make.get_concrete_function()
        steps.make_metrics(self._model, self._strategy, make.structured_outputs.element_spec)
        return make

    def _restore(self):
        """Goes on from the last save, if there is one and this is the first `fit`."""
        if self._checkpoint is None or self._progress.is_under_way:
            return
        restored = self._checkpoint.restore()
        if restored is not None:
            print(
                f"going on from {restored.path}: epoch {self._progress.epoch + 1}, step {self._progress.step}",
                flush=True,
            )

    def _save(self):
        if self._checkpoint is not None:
            self._coordinator.join()
            self._checkpoint.save()


def _strategy_of(model):
    """The strategy of a model, which it and its optimizer must be fit for."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}")
    strategy = model.distribute_strategy
    if not is_parameter_server_strategy(strategy):
        raise ValueError(
            "model must be made in the scope of a tf.distribute.ParameterServerStrategy, got one of "
            f"{type(strategy).__name__}"
        )
    if not model.compiled or model.optimizer is None:
        raise ValueError(f"model '{model.name}' must be compiled with an optimizer and a loss")
    if not model.built:
        raise ValueError(f"model '{model.name}' must be built: call it on a batch, or give it inputs, in the scope")
    for method in ("train_step", "test_step"):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise ValueError(
                f"model '{model.name}' has a {method} of its own, which would update metrics on the servers: override "
                "compute_loss and compute_metrics instead"
            )
    if model.jit_compile is True:
        raise ValueError("jit_compile=True is not possible on a cluster of parameter servers: compile without it")
    return strategy


def _check_function(name, value):
    if not callable(value):
        raise ValueError(
            f"{name} must be a function of a tf.distribute.InputContext that returns a tf.data.Dataset, got "
            f"{type(value).__name__}"
        )


@contextlib.contextmanager
def _server_errors(checkpoint):
    """Turns what TensorFlow says of a server that is gone into a `ServerLostError`."""
    try:
        yield
    except _LOST as error:
        lost = re.search(r"/job:ps/replica:\d+/task:\d+", error.message)
        if lost is None:
            raise
        ending = (
            "what it held is lost, because nothing is saved: give checkpoint_dir"
            if checkpoint is None or checkpoint.latest is None
            else f"start it again, and run this program again: it goes on from '{checkpoint.latest}'"
        )
        raise ServerLostError(f"parameter server {lost[0]} does not answer any more; {ending}") from error
