"""W5, growth: an empty table takes new keys in batches of 65,536, with lookups that insert. D = 16, row-wise Adagrad.

A row is 4 (D + 1) bytes; what a table needs beyond that (keys, index, room that is not in use) is counted after every
batch: its greatest value is that after the index has grown, its least that at full load.
"""

import sys

import numpy as np

from benchmarks.contest import contestants, interleave
from benchmarks.report import print_noise, print_table

TITLE = "W5 growth: new keys into an empty table, in batches of 65,536"
DIM, BATCH, BURST = 16, 65_536, 8
ROW_BYTES = 4 * (DIM + 1)
STORAGES = ("slab", "open_addressing", "chained", "unordered_map")


def run(settings, storages=("slab",)):
    """Grows tables to 10 million rows, three times over; quick: to 2 million, once."""
    bursts, repeats = (4, 1) if settings.quick else (19, 3)
    runs = {storage: [] for storage in storages}
    for _ in range(repeats):
        makers = {
            storage: {
                **{"python": sys.executable, "peer": "growth", "kind": "Growth", "threads": settings.threads},
                **{"storage": storage, "dim": DIM, "batch": BATCH},
            }
            for storage in storages
        }
        with contestants(makers, settings) as running:
            timed = interleave(running, bursts, lambda one: one.call("run", steps=BURST), again=False)
            for contestant in running:
                wrong = contestant.call("check")
                if wrong:
                    settings.note_failure(f"{contestant.name}: {wrong}")
                    continue
                resident = contestant.call("resident_per_row")
                runs[contestant.name].append(_measured(timed[contestant.name], resident))
    return [
        {
            "contestant": f"tse {storage}",
            "storage": storage,
            "rows": bursts * BURST * BATCH,
            "threads": settings.threads,
            **{key: float(np.median([one[key] for one in of_storage])) for key in of_storage[0] if key != "times_ms"},
            "times_ms": [one["times_ms"] for one in of_storage],
        }
        for storage, of_storage in runs.items()
        if of_storage
    ]


def _measured(timed, resident_per_row):
    times, _, bytes_per_row = np.transpose(timed["steps"])
    # Below a million rows a table's fixed costs count too much.
    grown = bytes_per_row[-(len(bytes_per_row) * 9 // 10) :] - ROW_BYTES
    return {
        "inserts_per_second": 1e3 * BATCH * len(times) / times.sum(),
        "median_ms": np.median(times),
        "worst_ms": times.max(),
        "worst_by_median": times.max() / np.median(times),
        "beyond_row_most": grown.max(),
        "beyond_row_least": grown.min(),
        "beyond_row_end": grown[-1],
        "resident_beyond_row": resident_per_row - ROW_BYTES,
        "others": timed["others"],
        "times_ms": np.round(times, 4).tolist(),
    }


def show(results, title=TITLE):
    """Prints the table."""
    columns = [("", 26), ("rows", 12), ("M inserts/s", 13), ("median ms", 11), ("worst ms", 10), ("/ median", 10)]
    columns += [("B/row beyond it: most", 23), ("least", 7), ("at end", 8), ("of RSS", 8)]
    rows = [
        [
            result["contestant"],
            f"{result['rows']:,}",
            f"{result['inserts_per_second'] / 1e6:.2f}",
            f"{result['median_ms']:.2f}",
            f"{result['worst_ms']:.1f}",
            f"{result['worst_by_median']:.1f}",
            f"{result['beyond_row_most']:.1f}",
            f"{result['beyond_row_least']:.1f}",
            f"{result['beyond_row_end']:.1f}",
            f"{result['resident_beyond_row']:.1f}",
        ]
        for result in results
    ]
    print_table(title, columns, rows)
    print_noise(results)
