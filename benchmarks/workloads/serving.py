"""W6, serving: lookups alone, of 26 features, D = 16, beside tf.gather; each in a tf.function of its own.

Of two forms: 26 columns of keys of one table of a million rows (`tse.Embedding`, one tf.gather), and 26 tables of
100,000 rows (`tse.EmbeddingCollection`, 26 tf.gather and a concat). A call from Python costs some tens of microseconds
whatever it does; "in graph" is the time of a lookup in a loop within one tf.function.
"""

import sys

import numpy as np

from benchmarks.contest import contestants, interleave
from benchmarks.report import print_noise, print_table

TITLE = "W6 serving: lookups of 26 features"
DIM, FEATURES = 16, 26
ROWS = {1: 1_000_000, FEATURES: 100_000}
CALLS = {1: 400, 64: 300, 4096: 30}  # of a burst, by batch


def run(settings, storages=("slab", "index"), threads=None):
    """Measures each form with each number of threads."""
    counts = threads or sorted({1, settings.threads})
    return [result for count in counts for tables in ROWS for result in _measure(settings, storages, count, tables)]


def _measure(settings, storages, threads, tables):
    arguments = {"python": sys.executable, "peer": "serving", "threads": threads, "rows": ROWS[tables], "dim": DIM}
    arguments |= {"features": FEATURES, "tables": tables}
    makers = {"tf.gather": {**arguments, "kind": "Gather"}}
    makers |= {f"tse {storage}": {**arguments, "kind": "Ours", "storage": storage} for storage in storages}
    results = []
    with contestants(makers, settings) as running:
        right = []
        for contestant in running:
            wrong = contestant.call("check")
            if wrong:
                settings.note_failure(f"{contestant.name} is not timed: {wrong}")
            else:
                right.append(contestant)
        for batch, calls in CALLS.items():

            def burst(contestant, batch=batch, calls=calls):
                return contestant.call("run", steps=calls + 20, batch=batch, seed=1)[20:]

            timed = interleave(right, settings.rounds, burst)
            loops = {one.name: [] for one in right}
            for _ in range(3):
                for one in right:
                    loops[one.name].append(one.call("run_loop", steps=calls, batch=batch, seed=2))
            for name, of_one in timed.items():
                times = np.array(of_one["steps"])[:, 0]
                results.append(
                    {
                        "contestant": name,
                        "tables": tables,
                        "threads": threads,
                        "batch": batch,
                        "calls": len(times),
                        "p50_us": 1e3 * float(np.percentile(times, 50)),
                        "p99_us": 1e3 * float(np.percentile(times, 99)),
                        "in_graph_us": 1e3 * float(np.median(loops[name])),
                        "others": of_one["others"],
                    }
                )
    return results


def show(results, title=TITLE):
    """Prints the table."""
    columns = [("", 22), ("tables", 7), ("thr", 4), ("batch", 7), ("p50 us", 10), ("/ gather", 10), ("p99 us", 10)]
    columns += [("/ gather", 10), ("in graph us", 13), ("/ gather", 10)]
    rows = []
    for result in results:
        same = ("tables", "threads", "batch")
        gather = next(
            one for one in results if one["contestant"] == "tf.gather" and all(one[key] == result[key] for key in same)
        )
        row = [result["contestant"], *(str(result[key]) for key in same)]
        for key in ("p50_us", "p99_us", "in_graph_us"):
            row += [f"{result[key]:.1f}", f"{result[key] / gather[key]:.2f}"]
        rows.append(row)
    print_table(title, columns, rows)
    print_noise(results)
