"""W2, bag: the keys of W1, mean-pooled inside the layer where the contestant has that (ours, PyTorch, FBGEMM)."""

from benchmarks import report, training
from benchmarks.workloads import history

TITLE = "W2 bag: 4096 x 40 keys, Zipf 1.05 over 1M, mean-pooled"
ENTRIES = history.ENTRIES


def run(settings):
    """Measures at each width."""
    entries = settings.chosen(ENTRIES)
    tasks = [history.task(dim, settings.seed, combiner="mean") for dim in settings.dims]
    return [result for task in tasks for result in training.measure(task, entries, settings)]


def show(results):
    """Prints the table."""
    report.print_training(TITLE, results)
