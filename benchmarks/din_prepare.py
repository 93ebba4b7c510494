"""What `python -m examples.din.prepare` needs: seconds and peak memory on generated raw files.

    python benchmarks/din_prepare.py --reviews 500000 2000000 5000000 --memory 64

Reviews come in random order from an eighth as many users, on a fortieth as many items by Zipf(0.8), with 300 characters
of text each; the metadata describe twice the items, as Python literals. Peak memory is the process' greatest resident
size (wait4), the interpreter and NumPy included. Each result is checked: each user is there with all clicks.
"""

import argparse
import gzip
import os
import pathlib
import random
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
BLOCK = 100_000


def write_raw(folder, num_reviews, seed=1):
    """Writes the files; returns the number of users with five reviews, and of their reviews."""
    rng = np.random.default_rng(seed)
    num_users, num_items = num_reviews // 8, num_reviews // 40
    mass = np.cumsum(np.arange(1, num_items + 1) ** -0.8)
    text = "".join(random.Random(seed).choices("abcdefgh ", k=300))
    clicks = np.zeros(num_users, np.int64)
    with gzip.open(folder / "reviews_Generated.json.gz", "wt", compresslevel=1) as file:
        for first in range(0, num_reviews, BLOCK):
            count = min(BLOCK, num_reviews - first)
            users = rng.integers(num_users, size=count)
            items = np.minimum(np.searchsorted(mass / mass[-1], rng.random(count)), num_items - 1)
            times = rng.integers(10**9, 14 * 10**8, size=count)
            clicks += np.bincount(users, minlength=num_users)
            file.writelines(
                f'{{"reviewerID": "A{user:012d}", "asin": "B{item:09d}", "reviewText": "{text}", "overall": 5.0, '
                f'"unixReviewTime": {seconds}}}\n'
                for user, item, seconds in zip(users, items, times, strict=True)
            )
    with gzip.open(folder / "meta_Generated.json.gz", "wt", compresslevel=1) as file:
        file.writelines(
            f"{{'asin': 'B{item:09d}', 'title': '{text}', 'categories': [['All', 'Category {item % 500}']]}}\n"
            for item in rng.permutation(2 * num_items)
        )
    return int(np.sum(clicks >= 5)), int(clicks[clicks >= 5].sum())


def measure(raw, prepared, memory):
    """Prepares in a process of its own: seconds, and its peak memory in MB."""
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "examples" / "din" / "prepare.py"), str(raw), str(prepared)]
    process = os.posix_spawn(sys.executable, [*command, "--memory", str(memory)], os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"prepare.py failed with status {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main():
    """Prints a row for each number of reviews."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, nargs="+", default=[500_000, 2_000_000, 5_000_000])
    parser.add_argument("--memory", type=int, nargs="+", default=[64, 256], help="of prepare.py, megabytes")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples"))
    from din import prepare

    rows = ["| reviews | raw files, MB | `--memory` | seconds | peak memory, MB |", "|---|---|---|---|---|"]
    for num_reviews in options.reviews:
        with tempfile.TemporaryDirectory() as folder:
            raw = pathlib.Path(folder, "raw")
            raw.mkdir()
            expected = write_raw(raw, num_reviews)
            size = sum(path.stat().st_size for path in raw.iterdir()) / 1e6
            for memory in options.memory:
                prepared = pathlib.Path(folder, f"prepared{memory}")
                seconds, peak = measure(raw, prepared, memory)
                manifest = prepare.read_manifest(prepared)
                assert (manifest["users"], manifest["clicks"]) == expected, manifest
                rows.append(f"| {num_reviews:,} | {size:,.0f} | {memory} | {seconds:.0f} | {peak:.0f} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
