"""W3, wide: 26 features with a table each, one key an example, sum-pooled, D = 16.

The cardinalities are made in the likeness of the Criteo click logs: a few tables of millions of rows, many of tens to
thousands, 21.7 million rows in all. Keys are Zipf(1.05) in each.
"""

from benchmarks import report, training
from benchmarks.training_task import TrainingTask

TITLE = "W3 wide: 26 features x 8192 examples, cardinalities 10 to 10M, sum-pooled"
DIM = 16
CARDINALITIES = (
    *(10_000_000, 5_000_000, 3_000_000, 2_000_000, 1_000_000),
    *(300_000, 150_000, 90_000, 40_000, 20_000, 15_000, 12_000, 10_000),
    *(7_000, 5_000, 3_000, 2_000, 1_500, 1_000, 600, 300, 100, 60, 25, 15, 10),
)
ENTRIES = [
    training.ours("slab"),
    training.ours("slab", "row_wise_adam"),
    training.ours("index"),
    training.ours("index", "row_wise_adam"),
    *training.PEERS,
]


def task(seed, quick):
    """The training step; quick: tables of at most a million rows."""
    cardinalities = tuple(min(rows, 1_000_000 if quick else rows) for rows in CARDINALITIES)
    return TrainingTask(cardinalities, DIM, batch=8192, length=1, combiner="sum", zipf=1.05, seed=seed)


def run(settings):
    """Measures at D = 16."""
    return training.measure(task(settings.seed, settings.quick), settings.chosen(ENTRIES), settings)


def show(results):
    """Prints the table."""
    report.print_training(TITLE, results)
