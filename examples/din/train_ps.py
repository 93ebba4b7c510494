"""Trains DIN on parameter servers: `python examples/din/train_ps.py --help`. Ends with one line `RESULT {json}`.

Without TF_CONFIG it starts a cluster of processes on this machine. With the TF_CONFIG of a chief it trains on that
cluster, whose workers and servers run `python -m tf_sparse_emb.distribute.server`.
"""

import os
import pathlib
import signal
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

if not __package__:  # run as a script: make the package `din` importable from any working directory
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import tf_sparse_emb as tse
from din import train
from din.dataset import batched

WIRE_DTYPES = ("float32", "float16", "bfloat16")


def parse_arguments(arguments=None):
    """The flags of train.py and those of the cluster."""
    parser = train.make_parser("Trains DIN on parameter servers: of TF_CONFIG, or started on this machine.")

    def add(flag, help, **settings):
        train.add_flag(parser, flag, help, **settings)

    add("--workers", "of the cluster on this machine", type=train.positive, default=2)
    add("--servers", "of the cluster on this machine", type=train.positive, default=2)
    add("--wire-dtype", "type of rows and gradients on their way", choices=WIRE_DTYPES, default="float32")
    add("--batches-dir", "folder which chief and workers see, for batches; by default a temporary one of this machine")
    add("--checkpoint-dir", "folder which chief and servers see: save there, and go on from what is there")
    add("--save-freq", "with --checkpoint-dir, save after so many steps as well", type=train.positive)
    options = train.parse_arguments(arguments, parser)
    if options.embedding != "tse":
        parser.error(f"--embedding {options.embedding} is for one machine: use train.py")
    if options.mini_batch_regularization or options.evaluations_per_epoch > 1:
        parser.error("--mini-batch-regularization and --evaluations-per-epoch are for one machine: use train.py")
    if "TF_CONFIG" in os.environ and options.batches_dir is None:
        parser.error("the cluster of TF_CONFIG needs --batches-dir")
    return options


def write_batches(batches, epochs, folder, num_parts):
    """Writes the batches of all epochs, batch i to part i % num_parts; returns what `read_batches` needs."""
    numbered = batches.repeat(epochs).enumerate()
    numbered.save(folder, shard_func=lambda number, _: number % num_parts)
    return numbered.element_spec


def read_batches(folder, element_spec, context):
    """The batches of a worker, in order. It runs on the worker, so that it is made of TensorFlow's ops alone."""

    def own_part(parts):
        return parts.shard(context.num_input_pipelines, context.input_pipeline_id).flat_map(lambda part: part)

    numbered = tf.data.Dataset.load(folder, element_spec, reader_func=own_part)
    return numbered.map(lambda _, batch: batch).prefetch(8)


class Evaluation(train.Evaluation):
    """As that of train.py, with the model on servers; and the number of steps."""

    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        """Counts the step."""
        self.steps += 1

    def scores(self):
        """The logits of the held-out examples, [E]."""
        score = tf.function(lambda inputs: self.model(inputs, training=False), reduce_retracing=True)
        return np.concatenate([score(inputs).numpy() for inputs, _ in self.batches])[:, 0]


def train_on(resolver, options):
    """Trains on a cluster as its chief, evaluates, prints the result line and returns its content."""
    cluster = resolver.cluster_spec().as_dict()
    options.workers, options.servers = len(cluster.get("worker", ())), len(cluster.get("ps", ()))
    print(f"options: {vars(options)}")
    strategy = tse.distribute.parameter_server_strategy(resolver, wire_dtype=options.wire_dtype)
    dataset, _ = train.load(options)
    keras.utils.set_random_seed(options.seed)
    with strategy.scope():
        network, tables = train.make_model(options)
    trainer = tse.distribute.ParameterServerTrainer(
        network, checkpoint_dir=options.checkpoint_dir, save_freq=options.save_freq or "epoch"
    )
    evaluation = Evaluation(dataset, options.split, published_protocol=options.dataset != "generated")
    batches = batched(dataset, dataset.train, options.batch_size, shuffle_seed=options.seed)
    with tempfile.TemporaryDirectory(dir=options.batches_dir) as folder:
        element_spec = write_batches(batches, options.epochs, folder, options.workers)
        trainer.fit(
            lambda context: read_batches(folder, element_spec, context),
            steps_per_epoch=len(batches),
            epochs=options.epochs,
            verbose=options.verbose,
            callbacks=[evaluation],
        )
    if not evaluation.steps:  # all of it is in the checkpoint
        evaluation.on_epoch_begin(options.epochs - 1)
        evaluation.on_epoch_end(options.epochs - 1)
    num_examples = evaluation.steps * options.batch_size
    return train.report(options, evaluation, tables, num_examples, ("workers", "servers", "wire_dtype"))


def main(arguments=None):
    """Trains as the chief of the cluster of TF_CONFIG, or of one that it starts; returns the exit code."""
    options = parse_arguments(arguments)
    if "TF_CONFIG" in os.environ:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        if resolver.task_type != "chief":
            print(f"error: TF_CONFIG must be that of the chief, got task type {resolver.task_type!r}", file=sys.stderr)
            return 2
        train_on(resolver, options)
        return 0
    # Not `with`: its processes end with this one, which takes leave of them before.
    cluster = tse.distribute.LocalCluster(options.workers, options.servers)
    train_on(cluster.resolver, options)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which removes the batches
    try:
        code = main()
    except tse.distribute.ServerLostError as lost:
        print(f"error: {lost}", file=sys.stderr, flush=True)
        os._exit(1)  # an orderly end would complain of the lost server once for each function that it has
    sys.exit(code)
