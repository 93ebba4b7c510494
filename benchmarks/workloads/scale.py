"""W7, scale: 100 million keys, D = 16, row-wise Adagrad: filled in batches, then trained on 65,536 of them a step."""

import os
import sys

import numpy as np

from benchmarks.contest import contestants
from benchmarks.report import print_table

TITLE = "W7 scale: 100 million keys, D = 16, row-wise Adagrad"
DIM, BATCH, ROWS = 16, 65_536, 100_000_000
NEEDED = 14 * 2**30  # 100 bytes a row, and what the index takes twice while it grows


def run(settings, rows=None):
    """Measures, if the machine has the memory; quick: 10 million keys."""
    rows = rows or (ROWS // 10 if settings.quick else ROWS)
    available = _available_bytes()
    needed = NEEDED * rows // ROWS
    if available < needed:
        print(f"scale is left out: it needs {needed / 2**30:.1f} GiB of free memory, got {available / 2**30:.1f}")
        return []
    maker = {"python": sys.executable, "peer": "growth", "kind": "Growth", "threads": settings.threads}
    maker |= {"storage": "slab", "dim": DIM, "batch": BATCH}
    with contestants({"tse slab": maker}, settings) as running:
        if not running:
            return []
        table = running[0]
        inserts = []
        while len(inserts) * BATCH < rows:
            inserts += table.call("run", steps=64)
        wrong = table.call("check")
        if wrong:
            settings.note_failure(wrong)
            return []
        table.call("train", steps=3)
        steps = np.array(table.call("train", steps=30))[:, 0]
        resident = table.call("resident_per_row")
    times = np.array(inserts)[:, 0]
    return [
        {
            "contestant": "tse slab",
            "rows": len(times) * BATCH,
            "threads": settings.threads,
            "inserts_per_second": 1e3 * BATCH * len(times) / times.sum(),
            "worst_insert_ms": times.max(),
            "median_insert_ms": float(np.median(times)),
            "step_ms": float(np.median(steps)),
            "bytes_per_row": inserts[-1][2],
            "resident_per_row": resident,
            "times_ms": np.round(steps, 4).tolist(),
        }
    ]


def _available_bytes():
    with open("/proc/meminfo") as lines:
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return min(kilobytes * 1024, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def show(results):
    """Prints the table."""
    columns = [("", 12), ("rows", 13), ("M inserts/s", 13), ("median ms", 11), ("worst ms", 10), ("step ms", 9)]
    columns += [("B/row", 8), ("of RSS", 8)]
    rows = [
        [
            result["contestant"],
            f"{result['rows']:,}",
            f"{result['inserts_per_second'] / 1e6:.2f}",
            f"{result['median_insert_ms']:.2f}",
            f"{result['worst_insert_ms']:.1f}",
            f"{result['step_ms']:.2f}",
            f"{result['bytes_per_row']:.1f}",
            f"{result['resident_per_row']:.1f}",
        ]
        for result in results
    ]
    print_table(TITLE, columns, rows)
