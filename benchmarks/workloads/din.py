"""W10, DIN: the model of examples/din, trained by `fit` from its input pipeline, on our tables and on Keras' layers.

A generated log of a million items and a million users (a thousand categories), D = 32, histories of 1 to 50 clicks,
batch 1024, the user's embedding and the item's bias in the model. With --data-dir the Amazon Video Games data too,
where the tables are tiny. Before it times, the loss of the first batch must be the same for all, from equal weights.
"""

import sys

import numpy as np

from benchmarks.contest import contestants, interleave
from benchmarks.report import print_noise, print_table

TITLE = "W10 DIN, end to end"
DIM, BATCH = 32, 1024
SIZES = {"user": 1_000_000, "item": 1_000_000, "category": 1_000}
ENTRIES = {
    "tse slab, row-wise Adagrad": ("tse", "row_wise_adagrad"),
    "tse slab, row-wise Adam": ("tse", "row_wise_adam"),
    "Keras Adagrad": ("keras", "keras_adagrad"),
    "Keras Adam": ("keras", "keras_adam"),
}


def run(settings):
    """Measures on the generated log, and on the data of --data-dir."""
    logs = {"1M items, 1M users": {"seed": settings.seed, "sizes": SIZES, "examples": 100 * BATCH}}
    if settings.data_dir:
        logs["Video Games"] = {"data_dir": settings.data_dir}
    return [result for name, log in logs.items() for result in _measure(settings, name, log)]


def _measure(settings, log_name, log):
    arguments = {"python": sys.executable, "peer": "din", "kind": "Din", "threads": settings.threads}
    arguments |= {"dim": DIM, "batch": BATCH, "log": log}
    makers = {
        name: {**arguments, "embedding": embedding, "optimizer": optimizer}
        for name, (embedding, optimizer) in ENTRIES.items()
        if embedding == "tse" or settings.peers is None or "keras_layers" in settings.peers
    }
    with contestants(makers, settings) as running:
        losses = {one.name: one.call("loss") for one in running}
        for name, loss in losses.items():
            if not np.isclose(loss, next(iter(losses.values())), rtol=1e-4):
                settings.note_failure(f"{name} is not timed: its first loss is {loss}, others' {losses}")
        right = [one for one in running if np.isclose(losses[one.name], next(iter(losses.values())), rtol=1e-4)]
        for one in right:
            one.call("run", steps=3)
        steps = 10 if settings.quick else 25
        timed = interleave(right, settings.rounds // 2, lambda one: one.call("run", steps=steps))
    return [
        {
            "contestant": name,
            "log": log_name,
            "threads": settings.threads,
            "step_ms": float(np.mean(np.array(of_one["steps"])[:, 0])),
            "examples_per_second": 1e3 * BATCH / float(np.mean(np.array(of_one["steps"])[:, 0])),
            "others": of_one["others"],
            "times_ms": np.round(np.array(of_one["steps"])[:, 0], 4).tolist(),
        }
        for name, of_one in timed.items()
    ]


def show(results):
    """Prints the table; "/ it" is how many times as many examples ours of the same family (Adam or Adagrad) trains."""
    columns = [("", 30), ("log", 20), ("examples/s", 12), ("ms a step", 11), ("ours / it", 11)]
    rows = []
    for result in results:
        family = "Adam" if "Adam" in result["contestant"] else "Adagrad"
        ours = [
            one["examples_per_second"]
            for one in results
            if one["contestant"] == f"tse slab, row-wise {family}" and one["log"] == result["log"]
        ]
        ratio = f"{ours[0] / result['examples_per_second']:.2f}" if ours else ""
        rows.append(
            [
                result["contestant"],
                result["log"],
                f"{result['examples_per_second']:,.0f}",
                f"{result['step_ms']:.1f}",
                ratio,
            ]
        )
    print_table(TITLE, columns, rows)
    print_noise(results)
