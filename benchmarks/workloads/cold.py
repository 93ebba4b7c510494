"""W4, cold memory: 10 million rows, 65,536 different keys a step, uniform, D = 64: no row of a step is in a cache."""

from benchmarks import report, training
from benchmarks.training_task import TrainingTask

TITLE = "W4 cold memory: 65,536 distinct keys of 10M rows"
DIM = 64
ENTRIES = [
    training.ours("slab", "row_wise_adam"),
    training.ours("index", "row_wise_adam"),
    training.TORCH_ADAM,
    training.ours("slab"),
    training.FBGEMM_ADAGRAD,
]


def task(seed, quick):
    """The training step, every row existing; quick: of 2 million rows."""
    rows = 2_000_000 if quick else 10_000_000
    return TrainingTask((rows,), DIM, batch=65_536, length=1, combiner=None, zipf=None, seed=seed)


def run(settings):
    """Measures at D = 64."""
    return training.measure(task(settings.seed, settings.quick), settings.chosen(ENTRIES), settings)


def show(results):
    """Prints the table."""
    report.print_training(TITLE, results)
