"""Writes the tables of README.md between its markers, from examples/din/results: `python examples/din/report.py`."""

import pathlib
import statistics
import sys

if not __package__:  # run as a script: make the package `din` importable from any working directory
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from din import experiments

README = pathlib.Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- written by report.py -->\n", "<!-- end of what report.py writes -->\n"

# As others have published them on these rows, see README.md.
PUBLISHED = {"BPR-MF": [0.661], "CNN": [0.860, 0.846], "Bi-LSTM": [0.860, 0.820, 0.863], "ATRank": [0.881, 0.870]}

TITLES = {
    "base": "base (mean pooling)",
    "wide-deep": "Wide & Deep",
    "pnn": "PNN",
    "din": "DIN",
    "dien": "DIEN",
    "din-dice": "DIN with Dice",
}


def digits(value):
    """A share to four digits without the leading zero, as papers write AUC."""
    return f"{value:.4f}".replace("0.", ".", 1)


def column(runs, key):
    """A value of the results, by seed."""
    return {seed: content["result"][key] for seed, content in sorted(runs.items())}


def spread(runs, key):
    """Mean ± standard deviation of a share over the runs, and that of each seed; of a single run the share."""
    values = list(column(runs, key).values())
    if len(values) == 1:
        return digits(values[0])
    each = " ".join(map(digits, values))
    return f"{digits(statistics.mean(values))} ± {digits(statistics.stdev(values))} ({each})"


def an_epoch(runs, key):
    """The median over the runs of the seconds of an epoch, without evaluation."""
    return statistics.median(content["result"][key] / content["result"]["epochs"] for content in runs.values())


def difference(runs, of):
    """GAUC minus that of the runs `of` with the same seeds: the mean, and of two seeds or more its standard error."""
    ours, theirs = column(runs, "gauc"), column(of, "gauc")
    both = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not both:
        return ""
    mean = f"{statistics.mean(both):+.4f}".replace("0.", ".", 1)
    if len(both) == 1:
        return mean
    return f"{mean} ± {digits(statistics.stdev(both) / len(both) ** 0.5)}"


def table(header, rows):
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def costs(runs):
    """The columns of time and memory."""
    result = next(iter(runs.values()))["result"]
    return [f"{an_epoch(runs, 'seconds'):.0f}", f"{result['table_rows']:,}", f"{result['table_bytes']:,}"]


def model_rows(found):
    """A line below `model_table`'s header for each model."""
    base = found.get("base", {})
    for name, runs in found.items():
        ahead = "" if name == "base" else difference(runs, base)
        yield [TITLES[name], spread(runs, "auc"), spread(runs, "gauc"), ahead, *costs(runs)]


def model_table(rows):
    """Models, their quality and their costs."""
    return table(["model", "AUC", "GAUC", "minus base", "seconds an epoch", "table rows", "table bytes"], rows)


def models():
    """Video Games: our models and what is published."""
    rows = list(model_rows(experiments.read("models")))
    for name, (first, *again) in PUBLISHED.items():
        runs_again = f" (re-run: {', '.join(digits(value)[:-1] for value in again)})" if again else ""
        rows.append([f"{name}, as published", "", digits(first)[:-1] + runs_again, "", "", "", ""])
    return model_table(rows)


def sports():
    """Sports: DIN against mean pooling, the same seeds."""
    return model_table(model_rows(experiments.read("sports")))


def ablations():
    """One change each, beside DIN with Dice."""
    reference = experiments.read("models").get("din-dice", {})
    rows = [["DIN with Dice", "", spread(reference, "gauc"), ""]] if reference else []
    prelu = experiments.read("models").get("din")
    if prelu:
        rows.append(["PReLU", "`--activation prelu`", spread(prelu, "gauc"), difference(prelu, reference)])
    for name, runs in experiments.read("ablations").items():
        flags = experiments.STUDIES["ablations"][name].flags.removeprefix("--dataset video-games ")
        rows.append([name.replace("-", " "), f"`{flags}`", spread(runs, "gauc"), difference(runs, reference)])
    return table(["", "flags", "GAUC", "minus DIN with Dice"], rows)


def rates():
    """Learning rates on the validation split."""
    rows = [
        [f"`{name}`", *(digits(content["result"]["gauc"]) for content in runs.values())]
        for name, runs in experiments.read("rates").items()
    ]
    return table(["optimizer, learning rate", "GAUC, seed 1"], rows)


def contest():
    """The same model on other tables and optimizers."""
    rows = []
    for name, runs in experiments.read("contest").items():
        result = next(iter(runs.values()))["result"]
        rows.append(
            [
                name,
                f"{result['learning_rate']:g}",
                spread(runs, "auc"),
                spread(runs, "gauc"),
                f"{an_epoch(runs, 'seconds'):.1f}",
                f"{an_epoch(runs, 'cpu_seconds'):.1f}",
                f"{statistics.median(content['load'] for content in runs.values()):.1f}",
                f"{result['table_bytes']:,}",
            ]
        )
    of_time = ["seconds an epoch", "of processor time", "load of the machine"]
    return table(["tables and optimizer", "learning rate", "AUC", "GAUC", *of_time, "table bytes"], rows)


def not_run(study):
    """A line on what is declared and has no result, or nothing."""
    left = experiments.missing(study)
    if not left:
        return ""
    names = "; ".join(
        f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})" for name, seeds in left.items()
    )
    return f"\nDeclared, but not run: {names}.\n"


SECTIONS = {
    "models": ("Models on Video Games", models),
    "sports": ("DIN against the base model on Sports, both with Dice", sports),
    "ablations": ("Regularisation and training details, on Video Games", ablations),
    "contest": ("The same model on other tables and optimizers, on Video Games", contest),
    "rates": ("Learning rates on the validation split of Video Games", rates),
}


def text():
    """All sections."""
    parts = []
    for study, (title, make) in SECTIONS.items():
        parts.append(f"### {title}\n\n{make() if experiments.read(study) else ''}{not_run(study)}")
    return "\n".join(parts)


def split_readme():
    """What stands in README.md before the markers' inside, the inside, and what stands behind."""
    before, rest = README.read_text().split(BEGIN)
    inside, behind = rest.split(END)
    return before + BEGIN, inside, END + behind


def main():
    """Writes README.md anew."""
    before, _, behind = split_readme()
    README.write_text(f"{before}\n{text()}\n{behind}")


if __name__ == "__main__":
    main()
