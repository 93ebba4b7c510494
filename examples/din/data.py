"""The datasets by name: readers, negative sampling and the leave-one-out protocol of the DIN paper."""

import array
import pathlib

import numpy as np

from din import generator, prepare
from din.dataset import Dataset, Examples
from din.lines import MalformedFile, TextFile
from din.negatives import draw_negatives

GENERATOR_SEED = 2018
NAMES = ("generated", "video-games", "sports", "prepared")
SPLITS = ("test", "validation")
CHECKSUMS = "SHA256SUMS"


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
    prepared = prepare.read(data_dir)
    return leave_one_out(prepared.sequences, prepared.item_categories, split=split, negatives=prepared.negatives)


def read_video_games_clicks(data_dir):
    """Reads `amazon_video_games_user_item_day.tsv.gz` (lines user, item, day) and its item_cate.txt.gz.

    Returns: users, items (from 0) and days int64 [L], by user and in time order; item_categories int64 [items].
    """
    categories = _read_categories(data_dir, "amazon_video_games_item_cate.txt.gz")
    file = TextFile(pathlib.Path(data_dir, "amazon_video_games_user_item_day.tsv.gz"))
    columns = [array.array("q") for _ in range(3)]
    last_user, last_day = -1, 0
    for where, (user, item, day) in _integers(file, ("user", "item", "day")):
        if user < last_user:
            raise MalformedFile(f"{where}: users must ascend, got {user} after {last_user}")
        if user == last_user and day < last_day:
            raise MalformedFile(f"{where}: the days of a user must ascend, got {day} after {last_day}")
        _check_item(where, item, len(categories))
        for column, value in zip(columns, (user, item, day), strict=True):
            column.append(value)
        last_user, last_day = user, day
    _check_sum(file)
    return *(np.array(column, np.int64) for column in columns), categories


def read_video_games(data_dir):
    """The same without the days.

    Returns: sequences, a list of int64 items (from 0) in time order for each user; item_categories int64 [items].
    """
    users, items, _, categories = read_video_games_clicks(data_dir)
    return np.split(items, np.flatnonzero(np.diff(users)) + 1), categories


def read_sports(data_dir):
    """Reads `amazon_sports_5core_seq.txt.gz` (a line of items, from 1, per user) and its item_cate.txt.gz.

    Returns: sequences, a list of int64 items (from 0) in time order for each user; item_categories int64 [items].
    """
    categories = _read_categories(data_dir, "amazon_sports_5core_item_cate.txt.gz")[1:]  # line 0 is the padding
    file = TextFile(pathlib.Path(data_dir, "amazon_sports_5core_seq.txt.gz"))
    sequences = []
    for where, items in _integers(file):
        for item in items:
            _check_item(where, item, len(categories), first=1)
        sequences.append(np.array(items, np.int64) - 1)
    _check_sum(file)
    return sequences, categories


def sample_negatives(sequences, num_items):
    """A list of what `draw_negatives` yields."""
    return list(draw_negatives(sequences, num_items))


def leave_one_out(sequences, item_categories, split="test", max_length=None, negatives=None):
    """The published protocol: each user's last click is the test pair, the clicks 1, 2, ... before it are trained on.

    Every position after the first gives two examples, the click and its negative, whose history is what stands before.
    With split "validation" the last position is put aside and the one before it is held out. Positions from
    `max_length` on are not used, though negatives are drawn for them. All ids are shifted by one: 0 is the padding.
    `negatives` are those of `sample_negatives`, where they were drawn before.
    """
    if negatives is None:
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


def _integers(file, fields=None):
    """Yields ("file, line n", the line's integers), one for each of `fields` where they are given."""
    number = 0
    for number, line in file:
        where = f"{file.path}, line {number}"
        words = line.split()
        if not words or (fields and len(words) != len(fields)):
            needed = f"{len(fields)} integers ({', '.join(fields)})" if fields else "some integers"
            raise MalformedFile(f"{where}: must hold {needed}, got {line!r}")
        try:
            values = list(map(int, words))
        except ValueError:
            position, word = next((i, word) for i, word in enumerate(words) if not _is_integer(word))
            field = repr(fields[position]) if fields else position + 1
            raise MalformedFile(f"{where}: field {field} must be an integer, got {word!r}") from None
        yield where, values
    if number == 0:
        raise MalformedFile(f"{file.path} is empty")


def _is_integer(word):
    try:
        int(word)
    except ValueError:
        return False
    return True


def _read_categories(data_dir, name):
    file = TextFile(pathlib.Path(data_dir, name))
    categories = []
    for where, (category,) in _integers(file, ("category",)):
        if category < 0:
            raise MalformedFile(f"{where}: field 'category' must not be negative, got {category}")
        categories.append(category)
    _check_sum(file)
    return np.array(categories, np.int64)


def _check_item(where, item, num_items, first=0):
    if not first <= item < first + num_items:
        raise MalformedFile(f"{where}: item must be in [{first}, {first + num_items}), the category file's, got {item}")


def _check_sum(file):
    """Compares a file that has been read with SHA256SUMS beside it, if there is one that names it."""
    sums = file.path.parent / CHECKSUMS
    if not sums.is_file():
        return
    expected = {name.lstrip("*"): digest for digest, name in (line.split() for line in sums.read_text().splitlines())}
    if expected.get(file.path.name, file.sha256) != file.sha256:
        raise MalformedFile(
            f"{file.path}: its sha256 is {file.sha256}, {CHECKSUMS} has {expected[file.path.name]}: get the file again"
        )
