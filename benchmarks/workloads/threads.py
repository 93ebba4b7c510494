"""W9, threads: W1 to W4 with one thread and with all."""

import dataclasses

from benchmarks import report, training
from benchmarks.workloads import cold, history, wide

TITLE = "W9 threads: W1 to W4 on one thread and on more"
DIM = 32  # of W1 and W2
ADAGRAD = (training.ours("slab"), training.ours("index"), training.FBGEMM_ADAGRAD, training.TORCH_ADAGRAD)
ADAM = (training.ours("slab", "row_wise_adam"), training.ours("index", "row_wise_adam"))


def run(settings):
    """Measures each workload, the numbers of threads side by side."""
    workloads = {
        "history": (history.task(DIM, settings.seed), ADAGRAD),
        "bag": (history.task(DIM, settings.seed, combiner="mean"), ADAGRAD),
        "wide": (wide.task(settings.seed, settings.quick), ADAGRAD),
        "cold": (cold.task(settings.seed, settings.quick), ADAM),
    }
    results = []
    for name, (task, entries) in workloads.items():
        both = [
            dataclasses.replace(entry, name=f"{entry.name}, {threads} thr", threads=threads)
            for entry in settings.chosen(entries)
            for threads in (1, settings.threads)
        ]
        results += [{"part": name, **result} for result in training.measure(task, both, settings)]
    return results


def show(results):
    """Prints a table for each workload, and how much faster more threads are."""
    for part in dict.fromkeys(result["part"] for result in results):
        of_part = [result for result in results if result["part"] == part]
        report.print_training(f"{TITLE}: {part}", of_part)
        one_thread = {result["contestant"].rsplit(",", 1)[0]: result for result in of_part if result["threads"] == 1}
        for result in of_part:
            name = result["contestant"].rsplit(",", 1)[0]
            if result["threads"] > 1 and name in one_thread:
                speedup = one_thread[name]["median_ms"] / result["median_ms"]
                print(f"  {name}: {result['threads']} threads {speedup:.2f} times as fast as one")
