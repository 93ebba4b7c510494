"""What the machine's memory can do, measured by `limits.cc`: the limits that the report holds results against."""

import functools
import pathlib
import subprocess

SOURCE = pathlib.Path(__file__).with_name("limits.cc")


class Limits:
    """Rates measured on demand, once each. Of pages of 4 KiB and huge pages, those that are faster for this."""

    def __init__(self, build_dir, threads, table_bytes):
        self.threads = threads
        self.table_bytes = table_bytes
        self._program = pathlib.Path(build_dir) / "limits"
        if not self._program.exists() or self._program.stat().st_mtime < SOURCE.stat().st_mtime:
            self._program.parent.mkdir(parents=True, exist_ok=True)
            command = ["g++", "-std=c++17", "-O3", "-mavx2", "-pthread", "-o", self._program, SOURCE]
            subprocess.run(command, check=True)

    @functools.cached_property
    def copy_gb_per_second(self):
        """Bytes read and written by a copy, in GB/s."""
        return 1 / self._measure("copy")

    @functools.cache  # noqa: B019, an instance lives as long as the run
    def read_ns(self, row_bytes):
        """Nanoseconds to read a row of so many bytes at a random place, all threads together."""
        return self._measure("read", row_bytes)

    @functools.cache  # noqa: B019
    def update_ns(self, row_bytes):
        """The same to read and write it."""
        return self._measure("update", row_bytes)

    def milliseconds(self, traffic):
        """How long the traffic of `least_traffic` takes at these rates."""
        (read, read_width), (updated, updated_width) = traffic["read"], traffic["updated"]
        streamed = traffic["streamed"] / self.copy_gb_per_second
        return (streamed + read * self.read_ns(read_width) + updated * self.update_ns(updated_width)) / 1e6

    def measured(self):
        """All rates so far, for the results."""
        return {
            "threads": self.threads,
            "table_bytes": self.table_bytes,
            "nanoseconds": {" ".join(map(str, what)): ns for what, ns in self._rates.items()},
        }

    def _measure(self, *what):
        def run(huge_pages):
            arguments = [self.threads, self.table_bytes, int(huge_pages), *what]
            return float(subprocess.check_output([self._program, *map(str, arguments)]))

        self._rates[what] = min(run(True), run(False))
        return self._rates[what]

    @functools.cached_property
    def _rates(self):
        return {}
