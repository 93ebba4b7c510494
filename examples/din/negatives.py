"""The negatives of the published Amazon preparation. Standard library and NumPy alone: `prepare.py` uses it too."""

import random

import numpy as np

NEGATIVES_SEED = 1234


def draw_negatives(sequences, num_items, seed=NEGATIVES_SEED):
    """Yields for each sequence int64 items that its user has not clicked, one per position, as the published code does.

    Users in order, each position in order: `neg = pos[0]; while neg in pos: neg = random.randint(0, num_items - 1)`.

    Raises:
        ValueError: if a user has clicked all items.
    """
    rng = random.Random(seed)
    for number, sequence in enumerate(sequences):
        clicked = set(sequence.tolist())
        if len(clicked) >= num_items:
            raise ValueError(f"sequence {number} holds all {num_items} items: no negative is left")
        drawn = []
        for _ in range(len(sequence)):
            negative = rng.randint(0, num_items - 1)
            while negative in clicked:
                negative = rng.randint(0, num_items - 1)
            drawn.append(negative)
        yield np.array(drawn, np.int64)
