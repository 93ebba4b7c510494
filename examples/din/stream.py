"""Clicks in the order of time, with items that no vocabulary could know: `python examples/din/stream.py --help`.

The log is cut into periods. Each period is first predicted with the model as it stands, then trained on, once
(prequential evaluation). Ids are 64-bit hashes, and the tables grow as items appear. With `--vocabulary frozen` the
items after the first half of the periods share one row, as with a vocabulary file that was made then.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

import keras
import numpy as np

if not __package__:  # run as a script: make the package `din` importable from any working directory
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from din import data, metrics, train
from din.dataset import Dataset, Examples, batched
from din.negatives import NEGATIVES_SEED

HERE = pathlib.Path(__file__).resolve().parent
VOCABULARIES = ("dynamic", "frozen")
UNKNOWN = 0  # the row that items outside a frozen vocabulary share; ids here are 1 + item
MAX_HISTORY = 90
SECONDS_A_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Stream:
    """The examples of P periods of time, each a click or its negative, and the log that they point into."""

    log: Dataset  # without examples of its own
    periods: list  # of Examples
    new: list  # of bool arrays: the candidate is an item that appears in this period
    first_days: list  # of int, since 1970
    appears: np.ndarray  # int64 [V]: in which period item v appears, whose id is 1 + v; P if never


def make_stream(users, items, days, item_categories, period_days, min_clicks):
    """Cuts clicks, by user and in time order, into periods.

    Every click but a user's first is an example, with one negative: an item that has appeared by the end of the period
    and that the user never clicks, drawn uniformly. Histories are the user's last 90 clicks before. A period of fewer
    than `min_clicks` clicks is joined to the next.
    """
    period = period_of_clicks(days, period_days, min_clicks)
    num_periods, num_items = period.max() + 1, len(item_categories)
    first_period = np.full(num_items, num_periods)
    np.minimum.at(first_period, items, period)
    first_click = np.searchsorted(users, users)  # of the same user
    position = np.arange(len(users)) - first_click
    selected = np.flatnonzero(position > 0)
    negatives = np.zeros_like(items)
    negatives[selected] = draw_appeared(users, items, period, first_period, selected)

    periods, new = [], []
    for p in range(num_periods):
        rows = selected[period[selected] == p]
        rows = rows[np.argsort(days[rows], kind="stable")]
        candidates = np.stack([items[rows], negatives[rows]], axis=1).reshape(-1)
        rows = np.repeat(rows, 2)
        lengths = np.minimum(position[rows], MAX_HISTORY)
        examples = Examples(
            users=users[rows] + 1,
            items=candidates + 1,
            categories=item_categories[candidates] + 1,
            starts=rows - lengths,
            lengths=lengths,
            labels=np.tile(np.array([1, 0], np.float32), len(rows) // 2),
        )
        periods.append(examples)
        new.append(first_period[candidates] == p)
    nothing = periods[0][:0]
    return Stream(
        log=Dataset(items + 1, item_categories[items] + 1, nothing, nothing),
        periods=periods,
        new=new,
        first_days=[int(days[period == p].min()) for p in range(num_periods)],
        appears=first_period,
    )


def period_of_clicks(days, period_days, min_clicks):
    """The number of each click's period, from 0, without gaps."""
    calendar = (days - days.min()) // period_days
    counts = np.bincount(calendar)
    numbers, number, clicks = np.zeros(len(counts), np.int64), 0, 0
    for place, count in enumerate(counts):
        numbers[place] = number
        clicks += count
        if clicks >= min_clicks:
            number, clicks = number + 1, 0
    if clicks > 0 and number > 0:  # what is left over at the end
        numbers[numbers == number] = number - 1
    return numbers[calendar]


def draw_appeared(users, items, period, first_period, selected):
    """For each of the selected clicks an item that has appeared by its period and that its user never clicks."""
    rng = np.random.default_rng(NEGATIVES_SEED)
    by_appearance = np.argsort(first_period, kind="stable")
    num_appeared = np.searchsorted(first_period[by_appearance], period[selected], side="right")
    pairs = np.unique(users * len(first_period) + items)
    drawn, left = np.zeros(len(selected), np.int64), np.arange(len(selected))
    for _ in range(1000):
        drawn[left] = by_appearance[rng.integers(num_appeared[left])]
        left = left[np.isin(users[selected[left]] * len(first_period) + drawn[left], pairs)]
        if not len(left):
            return drawn
    raise ValueError(f"user {users[selected[left[0]]]} has clicked nearly all items: no negative was found")


def with_vocabulary(stream, vocabulary):
    """The same stream with hashed ids; if frozen, items that appear in the second half are UNKNOWN."""
    half = len(stream.periods) // 2

    def new_ids(column, ids):
        if column == "item" and vocabulary == "frozen":
            return np.where(stream.appears[ids - 1] < half, ids, UNKNOWN)
        return ids

    def hashed(examples):
        return dataclasses.replace(stream.log, train=examples).mapped(new_ids).hashed()

    mapped = [hashed(examples) for examples in stream.periods]
    return dataclasses.replace(stream, log=mapped[0], periods=[each.train for each in mapped])


def run(stream, options, vocabulary):
    """Predicts and trains period by period, and returns what is measured, a list each with a value for every period.

    The first period is trained on alone: its metrics are None. `auc_new` takes the clicks on new items alone, and all
    negatives; `rows` and `bytes` of the item table are those after the period's training.
    """
    keras.utils.set_random_seed(options.seed)
    network, tables = train.make_model(options)
    (table,) = (layer.embeddings for layer in tables if layer.name == "item_table")
    stream = with_vocabulary(stream, vocabulary)
    measured = {name: [] for name in ("auc", "gauc", "auc_new", "rows", "bytes")}
    for p, examples in enumerate(stream.periods):
        values = dict.fromkeys(("auc", "gauc", "auc_new"))
        if p:
            batches = batched(stream.log, examples, train.EVALUATION_BATCH_SIZE)
            values = scores_of(examples, stream.new[p], network.predict(batches, verbose=0)[:, 0])
        shuffled = batched(stream.log, examples, options.batch_size, shuffle_seed=(options.seed, p))
        network.fit(shuffled, shuffle=False, verbose=0)
        values |= {"rows": int(table.size()), "bytes": int(table.memory_bytes())}
        for name, value in values.items():
            measured[name].append(value)
        figures = "".join(f", {name} {values[name]:.4f}" for name in ("auc", "gauc", "auc_new") if values[name])
        period = f"period {p + 1} of {len(stream.periods)}"
        print(f"{vocabulary}, seed {options.seed}, {period}: {values['rows']} rows{figures}", flush=True)
    return {"vocabulary": vocabulary, "seed": options.seed, **measured}


def scores_of(examples, new, scores):
    """The metrics of one period's predictions."""
    clicked = examples.labels > 0
    news = ~clicked | new
    return {
        "auc": round(metrics.auc(examples.labels, scores), 5),
        "gauc": round(metrics.gauc(examples.users, examples.labels, scores), 5),
        "auc_new": round(metrics.auc(examples.labels[news], scores[news]), 5) if np.any(clicked & new) else None,
    }


def read_clicks(dataset, data_dir):
    """The users, items, days and item categories of a dataset that has times."""
    if dataset == "video-games":
        return data.read_video_games_clicks(data_dir)
    prepared = data.prepare.read(data_dir)
    users = np.repeat(np.arange(len(prepared.sequences)), [len(sequence) for sequence in prepared.sequences])
    days = np.concatenate(prepared.times) // SECONDS_A_DAY
    return users, np.concatenate(prepared.sequences), days, prepared.item_categories


def draw(result, path):
    """Draws the figure of a result. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    years = 1970 + np.array(result["first_days"]) / 365.25
    styles = {
        "dynamic": ("#1f6fb4", "-", "a row for every item"),
        "frozen": ("#c0392b", "--", "vocabulary of the first half"),
    }
    figure, axes = plt.subplots(4, 1, figsize=(8, 9), sharex=True, layout="constrained")
    for vocabulary, (color, line, label) in styles.items():
        runs = [each for each in result["runs"] if each["vocabulary"] == vocabulary]
        if not runs:
            continue
        for axis, name in zip(axes, ("auc", "gauc", "auc_new", "rows"), strict=True):
            values = np.array([each[name] for each in runs], np.float64)  # None is nan
            axis.plot(years, values.mean(axis=0), color=color, linestyle=line, marker=".", label=label)
            axis.fill_between(years, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
    titles = (
        "AUC of each period, before it is trained on",
        "GAUC of each period",
        "AUC of clicks on items that appear in the period",
        "Rows of the item table after each period; bars: items that appear",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10, loc="left")
        axis.axvline(years[len(years) // 2], color="black", linewidth=0.7, linestyle=":")
        axis.spines[["top", "right"]].set_visible(False)
    axes[3].bar(years, result["new_items"], width=0.3 * result["period_days"] / 182, color="#c8c8c8", zorder=0)
    for axis, unit in zip(axes, ("AUC", "GAUC", "AUC", "rows, items"), strict=True):
        axis.set_ylabel(unit)
    axes[3].set_xlabel("first day of the period, year")
    axes[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(arguments=None):
    """Runs what is asked for, writes the result and, if it can, the figure; returns the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("video-games", "prepared"), default="video-games")
    parser.add_argument("--data-dir", required=True, help="folder of the dataset's files")
    parser.add_argument("--vocabulary", choices=VOCABULARIES, nargs="+", default=list(VOCABULARIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--period-days", type=train.positive, default=182, help="length of a period (%(default)s)")
    parser.add_argument("--min-clicks", type=train.positive, default=500, help="of a period, else joined to the next")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "stream.json", help="result file")
    parser.add_argument("--figure", type=pathlib.Path, help="PNG to be drawn, which needs matplotlib")
    options = parser.parse_args(arguments)

    stream = make_stream(*read_clicks(options.dataset, options.data_dir), options.period_days, options.min_clicks)
    flags = ["--dataset", options.dataset, "--data-dir", options.data_dir]
    runs = [
        run(stream, train.parse_arguments([*flags, "--seed", str(seed)]), vocabulary)
        for seed in options.seeds
        for vocabulary in options.vocabulary
    ]
    result = {
        "dataset": options.dataset,
        "period_days": options.period_days,
        "min_clicks": options.min_clicks,
        "first_days": stream.first_days,
        "examples": [len(examples) for examples in stream.periods],
        "new_items": np.bincount(stream.appears, minlength=len(stream.periods))[: len(stream.periods)].tolist(),
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result) + "\n")
    if options.figure:
        draw(result, options.figure)
    return result


if __name__ == "__main__":
    main()
