"""The datasets by name: readers, negative sampling and the leave-one-out protocol of the DIN paper."""

import gzip
import pathlib
import random

import numpy as np

from din import amazon_raw, generator
from din.dataset import Dataset, Examples

NEGATIVES_SEED = 1234
GENERATOR_SEED = 2018
NAMES = ("generated", "video-games", "sports", "amazon-raw")
SPLITS = ("test", "validation")


def load(name, data_dir=None, split="test"):
    """The dataset `name`, with the examples of `split` held out and the training examples that precede them.

    The data, the negatives included, is the same in every run, whatever the seed of the training.
    """
    if name not in NAMES:
        raise ValueError(f"dataset must be one of {', '.join(NAMES)}, got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if name == "generated":
        return generator.generate(GENERATOR_SEED, validation=split == "validation")
    if data_dir is None:
        raise ValueError(f"dataset {name!r} needs a data_dir")
    if name == "video-games":
        return leave_one_out(*read_video_games(data_dir), split=split, max_length=90)
    if name == "sports":
        return leave_one_out(*read_sports(data_dir), split=split)
    return leave_one_out(*amazon_raw.read(data_dir), split=split)


def read_video_games(data_dir):
    """Reads `amazon_video_games_user_item_day.tsv.gz` (lines user, item, day) and its item_cate.txt.gz.

    Returns: sequences, a list of int64 items (from 0) in time order for each user; item_categories int64 [items].
    """
    data_dir = pathlib.Path(data_dir)
    path = data_dir / "amazon_video_games_user_item_day.tsv.gz"
    categories = _read_categories(data_dir / "amazon_video_games_item_cate.txt.gz")
    rows = np.array(_int_lines(path, width=3), np.int64)
    users, items = rows[:, 0], rows[:, 1]
    _check_items(path, items, len(categories))
    if np.any(np.diff(users) < 0):
        raise ValueError(f"{path}, line {np.flatnonzero(np.diff(users) < 0)[0] + 2}: users must ascend")
    return np.split(items, np.flatnonzero(np.diff(users)) + 1), categories


def read_sports(data_dir):
    """Reads `amazon_sports_5core_seq.txt.gz` (a line of items, from 1, per user) and its item_cate.txt.gz.

    Returns: sequences, a list of int64 items (from 0) in time order for each user; item_categories int64 [items].
    """
    data_dir = pathlib.Path(data_dir)
    path = data_dir / "amazon_sports_5core_seq.txt.gz"
    categories = _read_categories(data_dir / "amazon_sports_5core_item_cate.txt.gz")[1:]  # line 0 is the padding
    sequences = [np.array(items, np.int64) - 1 for items in _int_lines(path)]
    _check_items(path, np.concatenate(sequences), len(categories))
    return sequences, categories


def sample_negatives(sequences, num_items, seed=NEGATIVES_SEED):
    """One item per position that its user has not clicked, drawn exactly as in the published preparation.

    Users in order, each position in order: `neg = pos[0]; while neg in pos: neg = random.randint(0, num_items - 1)`.
    """
    rng = random.Random(seed)
    negatives = []
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
        negatives.append(np.array(drawn, np.int64))
    return negatives


def leave_one_out(sequences, item_categories, split="test", max_length=None):
    """The published protocol: each user's last click is the test pair, the clicks 1, 2, ... before it are trained on.

    Every position after the first gives two examples, the click and its negative, whose history is what stands before.
    With split "validation" the last position is put aside and the one before it is held out. Positions from
    `max_length` on are not used, though negatives are drawn for them. All ids are shifted by one: 0 is the padding.
    """
    negatives = sample_negatives(sequences, len(item_categories))
    lengths = np.array([len(sequence) for sequence in sequences])
    used = lengths if max_length is None else np.minimum(lengths, max_length)
    held_out_position = used - 1 if split == "test" else used - 2

    user = np.repeat(np.arange(len(sequences)), lengths)
    start = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(lengths.sum()) - start
    clicks = np.concatenate(sequences)
    unclicked = np.concatenate(negatives)

    def pairs(selected):
        """The examples [positive, negative, positive, ...] of the selected positions."""
        items = np.stack([clicks[selected], unclicked[selected]], axis=1).reshape(-1)
        return Examples(
            users=np.repeat(user[selected] + 1, 2),
            items=items + 1,
            categories=item_categories[items] + 1,
            starts=np.repeat(start[selected], 2),
            lengths=np.repeat(position[selected], 2),
            labels=np.tile(np.array([1, 0], np.float32), len(items) // 2),
        )

    return Dataset(
        log_items=clicks + 1,
        log_categories=item_categories[clicks] + 1,
        train=pairs((position >= 1) & (position < held_out_position[user])),
        held_out=pairs((position >= 1) & (position == held_out_position[user])),
    )


def _int_lines(path, width=None):
    """The lines of a gzip text file as lists of integers, `width` of them where it is given."""
    rows = []
    with gzip.open(path, "rt", encoding="ascii") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                rows.append([int(field) for field in line.split()])
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if not rows[-1] or width not in (None, len(rows[-1])):
                raise ValueError(f"{path}, line {number}: must hold {width or 'some'} integers, got {line!r}")
    if not rows:
        raise ValueError(f"{path} is empty")
    return rows


def _read_categories(path):
    return np.array(_int_lines(path, width=1), np.int64)[:, 0]


def _check_items(path, items, num_items):
    if items.min() < 0 or items.max() >= num_items:
        raise ValueError(f"{path}: an item is outside the {num_items} items of the category file")
