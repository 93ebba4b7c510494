"""Trains DIN, or a model beside it: `python examples/din/train.py --help`. Ends with one line `RESULT {json}`."""

import argparse
import functools
import json
import pathlib
import sys
import time

import keras

if not __package__:  # run as a script: make the package `din` importable from any working directory
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from din import data, metrics, model
from din.activations import ACTIVATIONS
from din.attention import ATTENTIONS
from din.dataset import batched

# Defaults by optimizer. The row-wise ones have the best mean GAUC of the study in README.md (Video Games, --split
# validation, two epochs, two seeds), keras_adam is Keras' default, sgd is as below, the others are untuned. Choose
# others on the validation split, never on the test.
LEARNING_RATES = {
    "row_wise_adam": 4e-3,
    "row_wise_adagrad": 1e-1,
    "adam": 1e-3,
    "sgd": 1.0,
    "keras_adam": 1e-3,
    "keras_adagrad": 1e-2,
}
# sgd trains as the authors' code does on Electronics, where a batch has 32 examples.
SGD_CLIP_NORM = 5.0
SGD_DECAY_RATE, SGD_DECAY_STEPS = 0.1, 336_000
# Fixed beforehand, never picked on the test. Click logs are read once: a second pass overfits them; the few rows of the
# Amazon files take two.
EPOCHS = {"generated": 1, "video-games": 2, "sports": 2, "prepared": 2}
EVALUATION_BATCH_SIZE = 1024


def positive(text):
    """An integer flag that must be at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def add_flag(parser, flag, help, **settings):
    """Adds a flag whose help ends with its default."""
    parser.add_argument(flag, help=help if "default" not in settings else f"{help} (%(default)s)", **settings)


def make_parser(description="Trains DIN on generated click logs or on Amazon data."):
    """The parser of the flags of data, model and training."""
    parser = argparse.ArgumentParser(description=description)
    add = functools.partial(add_flag, parser)
    on_off = argparse.BooleanOptionalAction
    add("--dataset", "what to train on", choices=data.NAMES, default="generated")
    add("--data-dir", "folder of the files of any dataset but generated")
    add("--split", "which examples are held out and evaluated", choices=data.SPLITS, default="test")
    add("--hash-ids", "give tables 64-bit hashes of the ids instead of the ids", action=on_off, default=False)
    add("--model", "how the history is seen; base pools it by its mean", choices=model.MODELS, default="din")
    add("--embedding", "layer of the tables", choices=("tse", "keras"), default="tse")
    add("--optimizer", "of tables and network", choices=tuple(LEARNING_RATES), default="row_wise_adam")
    add("--learning-rate", f"by default depends on the optimizer: {LEARNING_RATES}", type=float)
    add("--decay-rate", f"of the learning rate after each --decay-steps; for sgd {SGD_DECAY_RATE}", type=float)
    add("--decay-steps", f"for sgd {SGD_DECAY_STEPS}, the authors' on Electronics", type=positive)
    add("--clip-norm", f"bound on the norm of all gradients together; for sgd {SGD_CLIP_NORM}, else none", type=float)
    add("--mini-batch-regularization", "its strength, 0.01 in the paper; 0 is none", type=float, default=0.0)
    add("--auxiliary-weight", "of dien's auxiliary loss", type=float, default=1.0)
    add("--epochs", f"by default depends on the dataset: {EPOCHS}", type=positive)
    add("--batch-size", "examples of a step", type=positive, default=128)
    add("--seed", "of initial weights and shuffling; the data has its own", type=int, default=1)
    add("--embedding-dim", "width of each table", type=positive, default=64)
    add("--attention", "plain = the paper's unnormalised weights", choices=ATTENTIONS, default="softmax")
    add("--activation", "of the MLP", choices=ACTIVATIONS, default="dice")
    add("--hidden", "units of the MLP's hidden layers", type=positive, nargs="+", default=[80, 40])
    add("--batch-norm", "normalise history and candidate", action=on_off, default=True)
    add("--user-table", "give the MLP an embedding of the user id", action=on_off, default=False)
    add("--item-bias", "add a trained bias per item", action=on_off, default=True)
    add(
        "--evaluations-per-epoch",
        "where more than 1, the result has a curve and processor time",
        type=positive,
        default=1,
    )
    add("--verbose", "0 silent, 1 progress bar (on a terminal), 2 a line per epoch", type=int, choices=(0, 1, 2))
    return parser


def parse_arguments(arguments=None, parser=None):
    """The flags, with the defaults that depend on other flags filled in."""
    parser = parser or make_parser()
    options = parser.parse_args(arguments)
    if options.dataset != "generated" and options.data_dir is None:
        parser.error(f"--dataset {options.dataset} needs --data-dir")
    if options.optimizer.startswith("keras_") and options.embedding == "tse":
        parser.error(f"--optimizer {options.optimizer} cannot train tse tables, add --embedding keras")
    if options.embedding == "keras" and options.model == "wide-deep":
        parser.error("--model wide-deep needs --embedding tse: pairs of ids have no vocabulary")
    if options.embedding == "keras" and options.mini_batch_regularization:
        parser.error("--mini-batch-regularization needs --embedding tse")
    if options.optimizer == "sgd":
        if options.decay_rate is None:
            options.decay_rate = SGD_DECAY_RATE
        if options.decay_steps is None:
            options.decay_steps = SGD_DECAY_STEPS
        if options.clip_norm is None:
            options.clip_norm = SGD_CLIP_NORM
    if (options.decay_rate is None) != (options.decay_steps is None):
        parser.error("--decay-rate and --decay-steps need each other")
    if options.learning_rate is None:
        options.learning_rate = LEARNING_RATES[options.optimizer]
    if options.epochs is None:
        options.epochs = EPOCHS[options.dataset]
    if options.verbose is None:
        options.verbose = 1 if sys.stdout.isatty() else 2
    return options


def make_optimizer(name, learning_rate, clip_norm=None):
    """The optimizer of that name, for the tables and the dense layers alike."""
    if name == "keras_adam":
        return keras.optimizers.Adam(learning_rate, global_clipnorm=clip_norm)
    if name == "keras_adagrad":
        return keras.optimizers.Adagrad(learning_rate, global_clipnorm=clip_norm)
    import tf_sparse_emb as tse  # here, so that the Keras-only baselines run without it

    classes = {
        "row_wise_adam": tse.optimizers.RowWiseAdam,
        "row_wise_adagrad": tse.optimizers.RowWiseAdagrad,
        "adam": tse.optimizers.Adam,
        "sgd": tse.optimizers.SGD,
    }
    return classes[name](learning_rate, global_clipnorm=clip_norm)


def embedding_factory(kind, num_rows=None):
    """A function(column, dim, initializer, name) -> embedding layer, and the list that collects the layers it makes.

    kind "tse": dynamic tables, any int64 id. kind "keras": `num_rows[column]` rows, ids below that.
    """
    layers = []

    def make_embedding(column, dim, initializer, name):
        if kind == "tse":
            import tf_sparse_emb as tse

            layer = tse.Embedding(None, dim, embeddings_initializer=initializer, name=name)
        else:
            layer = keras.layers.Embedding(num_rows[column], dim, embeddings_initializer=initializer, name=name)
        layers.append(layer)
        return layer

    return make_embedding, layers


def table_sizes(kind, layers):
    """Rows and bytes of all tables."""
    if kind == "tse":
        rows = sum(int(layer.embeddings.size()) for layer in layers)
        return rows, sum(int(layer.embeddings.memory_bytes()) for layer in layers)
    shapes = [layer.embeddings.shape for layer in layers]
    return sum(rows for rows, _ in shapes), sum(4 * rows * dim for rows, dim in shapes)


class Evaluation(keras.callbacks.Callback):
    """AUC and GAUC of the held-out examples after each epoch or part of one, and the seconds spent in training alone.

    Attributes:
        auc, gauc: the last.
        train_seconds, cpu_seconds: float, without those of evaluation; the latter of all threads of the process.
        curve: of each evaluation the seconds of training before it, AUC and GAUC.
    """

    def __init__(self, dataset, split, published_protocol, per_epoch=1):
        super().__init__()
        self.examples = dataset.held_out
        self.batches = batched(dataset, dataset.held_out, EVALUATION_BATCH_SIZE)
        self.split = split
        self.published_protocol = published_protocol
        self.per_epoch = per_epoch
        self.train_seconds = self.cpu_seconds = 0.0
        self.curve = []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        """Evaluates where a part of the epoch ends; its last ends with the epoch."""
        steps = self.params["steps"]
        if batch + 1 < steps and (batch + 1) * self.per_epoch // steps > batch * self.per_epoch // steps:
            self.evaluate()

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates and prints the metrics."""
        self.evaluate()
        print(f"epoch {epoch + 1}: {self.split} AUC {self.auc:.4f}, GAUC {self.gauc:.4f}", flush=True)

    def evaluate(self):
        """Stops the clock, scores the held-out examples and starts it again."""
        self.train_seconds += time.perf_counter() - self.began
        self.cpu_seconds += time.process_time() - self.cpu_began
        users, labels = self.examples.users, self.examples.labels
        scores = self.scores()
        if self.published_protocol:
            # The published code counts a tie 0, the usual AUC one half: a figure is comparable only without ties.
            ties = metrics.count_ties(users, labels, scores)
            if ties:
                raise ValueError(f"{ties} users have equal logits for their positive and negative")
        self.auc = metrics.auc(labels, scores)
        self.gauc = metrics.gauc(users, labels, scores)
        self.curve.append([round(value, 5) for value in (self.train_seconds, self.auc, self.gauc)])
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def scores(self):
        """The logits of the held-out examples, [E]."""
        return self.model.predict(self.batches, verbose=0)[:, 0]


def load(options):
    """The dataset, and the rows that tables of --embedding keras need for it, None for others."""
    dataset, num_rows = data.load(options.dataset, options.data_dir, options.split), None
    if options.hash_ids:
        dataset = dataset.hashed()
    if options.embedding == "keras":
        dataset, num_rows = dataset.reindexed()
    print(
        f"{options.dataset}: {len(dataset.train)} training examples, {len(dataset.held_out)} {options.split} examples",
        flush=True,
    )
    return dataset, num_rows


def count_occurrences(dataset):
    """The `occurrences` of `model.build_model`: how often each item and category comes in the training examples."""
    from din.regularization import occurrences  # here, as tf_sparse_emb

    train = dataset.train
    return {
        "item": occurrences(dataset.log_items, train.items, train),
        "category": occurrences(dataset.log_categories, train.categories, train),
    }


def make_model(options, num_rows=None, occurrences=None):
    """The compiled model, and its embedding layers."""
    make_embedding, tables = embedding_factory(options.embedding, num_rows)
    learning_rate = options.learning_rate
    if options.decay_rate is not None:
        learning_rate = keras.optimizers.schedules.ExponentialDecay(
            learning_rate, options.decay_steps, options.decay_rate, staircase=True
        )
    network = model.build_model(
        make_embedding,
        model=options.model,
        embedding_dim=options.embedding_dim,
        attention=options.attention,
        activation=options.activation,
        hidden=options.hidden,
        batch_norm=options.batch_norm,
        user_table=options.user_table,
        item_bias=options.item_bias,
        auxiliary_weight=options.auxiliary_weight,
        regularization=options.mini_batch_regularization,
        occurrences=occurrences,
    )
    network.compile(
        optimizer=make_optimizer(options.optimizer, learning_rate, options.clip_norm),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return network, tables


def report(options, evaluation, tables, num_examples, more_settings=()):
    """Prints the result line of a training that has seen so many examples, and returns its content."""
    held_out, ceiling = evaluation.examples, {}
    if held_out.probabilities is not None:
        ceiling = {
            "ceiling_auc": metrics.auc(held_out.labels, held_out.probabilities),
            "ceiling_gauc": metrics.gauc(held_out.users, held_out.labels, held_out.probabilities),
        }
        print(
            f"{options.split} AUC {evaluation.auc:.4f} of at most {ceiling['ceiling_auc']:.4f}, the true probabilities'"
        )
    rows, size = table_sizes(options.embedding, tables)
    settings = ("dataset", "split", "hash_ids", "model", "embedding", "optimizer", "learning_rate", "epochs", "seed")
    result = {
        **{name: getattr(options, name) for name in (*settings, *more_settings)},
        "auc": round(evaluation.auc, 5),
        "gauc": round(evaluation.gauc, 5),
        **{name: round(value, 5) for name, value in ceiling.items()},
        "seconds": round(evaluation.train_seconds, 1),
        "examples_per_second": round(num_examples / evaluation.train_seconds),
        "table_rows": rows,
        "table_bytes": size,
    }
    if options.evaluations_per_epoch > 1:
        result["cpu_seconds"] = round(evaluation.cpu_seconds, 1)
        result["curve"] = evaluation.curve
    print("RESULT " + json.dumps(result), flush=True)
    return result


def main(arguments=None):
    """Trains, evaluates, prints the result line and returns its content."""
    options = parse_arguments(arguments)
    print(f"options: {vars(options)}")
    keras.utils.set_random_seed(options.seed)
    dataset, num_rows = load(options)
    occurrences = count_occurrences(dataset) if options.mini_batch_regularization else None
    network, tables = make_model(options, num_rows, occurrences)
    published_protocol = options.dataset != "generated"
    evaluation = Evaluation(dataset, options.split, published_protocol, options.evaluations_per_epoch)
    network.fit(
        batched(dataset, dataset.train, options.batch_size, shuffle_seed=options.seed),
        epochs=options.epochs,
        shuffle=False,  # the batches are in random order already
        verbose=options.verbose,
        callbacks=[evaluation],
    )
    return report(options, evaluation, tables, options.epochs * len(dataset.train))


if __name__ == "__main__":
    main()
