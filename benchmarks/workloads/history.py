"""W1, history: 4096 x 40 keys, Zipf(1.05) over a million, embedded one by one; the mean over 40 is taken outside."""

from benchmarks import report, training
from benchmarks.training_task import TrainingTask

TITLE = "W1 history: 4096 x 40 keys, Zipf 1.05 over 1M, unpooled"
ENTRIES = [
    training.ours("slab"),
    training.ours("slab", "row_wise_adam"),
    training.ours("index"),
    training.ours("index", "row_wise_adam"),
    *training.PEERS,
]


def task(dim, seed, combiner=None):
    """The training step, every row existing."""
    return TrainingTask((1_000_000,), dim, batch=4096, length=40, combiner=combiner, zipf=1.05, seed=seed)


def run(settings):
    """Measures at each width."""
    entries = settings.chosen(ENTRIES)
    return [result for dim in settings.dims for result in training.measure(task(dim, settings.seed), entries, settings)]


def show(results):
    """Prints the table."""
    report.print_training(TITLE, results)
