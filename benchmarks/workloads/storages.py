"""W8, storages: our four hash tables and the index table on W1, W4, W5 and W6, and against the size of the table."""

from benchmarks import report, training
from benchmarks.training_task import TrainingTask
from benchmarks.workloads import cold, growth, history, serving

TITLE = "W8 storages"
STORAGES = ("slab", "open_addressing", "chained", "unordered_map", "index")
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
DIM = 32


def run(settings):
    """Measures all parts; W4 on 2 million rows, so that all fit into memory side by side; quick: fewer sizes."""

    def parts():
        yield "history", training.measure(history.task(DIM, settings.seed), _entries("row_wise_adagrad"), settings)
        yield "cold", training.measure(cold.task(settings.seed, quick=True), _entries("row_wise_adam"), settings)
        for rows in SIZES[::2] if settings.quick else SIZES:
            task = TrainingTask((rows,), DIM, batch=4096, length=40, combiner="mean", zipf=1.05, seed=settings.seed)
            yield "size", training.measure(task, _entries("row_wise_adagrad"), settings)
        yield "growth", growth.run(settings, growth.STORAGES)
        yield "serving", serving.run(settings, STORAGES, [settings.threads])

    return [{"part": part, **result} for part, results in parts() for result in results]


def _entries(rule):
    return [training.ours(storage, rule) for storage in STORAGES]


def show(results):
    """Prints a table for each part."""
    of_part = {part: [result for result in results if result["part"] == part] for part in ("history", "cold", "growth")}
    report.print_training(f"{TITLE} on {history.TITLE}", of_part["history"])
    report.print_training(f"{TITLE} on W4 with 2M rows", of_part["cold"])
    sizes = [result for result in results if result["part"] == "size"]
    for rows in dict.fromkeys(result["rows"] for result in sizes):
        same_size = [result for result in sizes if result["rows"] == rows]
        report.print_training(f"{TITLE} on W2 with {rows:,} rows", same_size)
    growth.show(of_part["growth"], f"{TITLE} on {growth.TITLE}")
    serving.show([result for result in results if result["part"] == "serving"], f"{TITLE} on {serving.TITLE}")
