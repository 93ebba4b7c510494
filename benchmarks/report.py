"""Tables of results on stdout."""

from benchmarks.contest import QUIET_CORES


def print_table(title, columns, rows):
    """Prints rows, lists of str, under columns (name, width); the first column is left-aligned."""
    print(f"\n{title}")
    for row in [[name for name, _ in columns], *rows]:
        cells = [f"{cell:{'<' if number == 0 else '>'}{columns[number][1]}}" for number, cell in enumerate(row)]
        print("".join(cells).rstrip())


def print_training(title, results):
    """Prints the results of training steps.

    "/ slab" and "/ index" are the time over that of our table of that storage, of the same family of rules (Adam or
    Adagrad), width and threads. GB/s is what the step must move at least over its time, "limit" the time that this
    takes at the measured rates of the memory.
    """
    columns = [("", 38), ("D", 4), ("thr", 4), ("ms", 9), ("cpu ms", 9), ("/ slab", 8), ("/ index", 8)]
    columns += [("ns/key", 9), ("GB/s", 7), ("limit ms", 10), ("/ limit", 8)]
    rows = []
    for result in results:
        noisy = "~" if result["others"] >= QUIET_CORES else ""
        ratios = [_ratio(result, results, storage) for storage in ("slab", "index")]
        rows.append(
            [
                result["contestant"],
                str(result["dim"]),
                str(result["threads"]),
                noisy + f"{result['median_ms']:.2f}",
                f"{result['median_cpu_ms']:.2f}",
                *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
                f"{result['ns_per_key']:.1f}",
                f"{result['gb_per_second']:.1f}",
                f"{result['limit_ms']:.2f}",
                f"{result['median_ms'] / result['limit_ms']:.1f}",
            ]
        )
    print_table(title, columns, rows)
    print_noise(results)


def print_noise(results):
    """Says whether the machine was quiet."""
    others = max((result["others"] for result in results), default=0.0)
    if others >= QUIET_CORES:
        print(f"~ not quiet: other processes used up to {others:.1f} cores meanwhile. Read no more than the order.")


def _ratio(result, results, storage):
    """The result's time over that of our storage."""
    same = ("dim", "threads", "family")
    for other in results:
        if other["ours"] and other["storage"] == storage and all(other[key] == result[key] for key in same):
            return result["median_ms"] / other["median_ms"]
    return None
