"""What a contestant can say of its own process."""

import os

import numpy as np


def resident_bytes():
    """The memory of this process that is in RAM."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def key_of(numbers):
    """A different int64 for each number, spread over all of int64: an odd multiplier is a bijection mod 2^64."""
    return (numbers.astype("uint64") * np.uint64(0x9E3779B97F4A7C15)).astype("int64")
