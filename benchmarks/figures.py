"""Draws PNGs of the results in a folder: `python benchmarks/figures.py benchmarks/results`. Needs matplotlib.

For each workload of training steps bars of the median step, and for the others bars of what they measure; for W8 the
throughput of our storages against the size of the table.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

OURS, PEERS, LIMIT = "#1f6fb4", "#9a9a9a", "#c0392b"


def bars(axes, results, value, label, text="{:.3g}"):
    """Horizontal bars, ours in blue, in the order given, from the top; a log scale where they differ much."""
    values = [result[value] for result in results]
    names = [result["contestant"] for result in results]
    places = range(len(results))[::-1]
    drawn = axes.barh(places, values, color=[OURS if name.startswith("tse") else PEERS for name in names])
    axes.bar_label(drawn, [text.format(value) for value in values], padding=3, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xlabel(label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if max(values) > 15 * min(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 3)
    else:
        axes.set_xlim(0, max(values) * 1.2)


def panels(results, key):
    """The results by the values of `key`, in their order."""
    return {
        group: [one for one in results if one[key] == group] for group in dict.fromkeys(one[key] for one in results)
    }


def draw(content, groups, value, label, path, text="{:.3g}", limit=False):
    """A figure with a panel of bars for each group, {title: results}; with `limit`, a line at the memory's limit."""
    tallest = max(map(len, groups.values()))
    figure, all_axes = plt.subplots(
        1, len(groups), figsize=(2.5 + 4.4 * len(groups), 1.3 + 0.32 * tallest), squeeze=False, layout="constrained"
    )
    for axes, (title, results) in zip(all_axes[0], groups.items(), strict=True):
        bars(axes, results, value, label, text)
        if limit:
            for place, result in zip(range(len(results))[::-1], results, strict=True):
                axes.plot([result["limit_ms"]] * 2, [place - 0.4, place + 0.4], color=LIMIT, linewidth=2)
            axes.plot([], [], color=LIMIT, linewidth=2, label="the memory's limit")
            axes.set_xlim(left=min(axes.get_xlim()[0] or 0, *(0.7 * result["limit_ms"] for result in results)))
        axes.set_title(title, fontsize=10)
    if limit:
        figure.legend(loc="outside lower right", fontsize=8, frameon=False)
    heading = f"{content['title']}\n{content['machine']['cpu']}, {content['machine']['cores']} cores"
    noisy = max((result.get("others", 0.0) for result in content["results"]), default=0.0)
    figure.suptitle(heading + (f"; NOT QUIET: others used {noisy:.1f} cores" if noisy >= 0.15 else ""), fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_sizes(content, results, path):
    """Keys a second against rows, a line for each storage."""
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for name, of_storage in panels(results, "storage").items():
        rows = [result["rows"] for result in of_storage]
        axes.plot(rows, [1e3 / result["ns_per_key"] for result in of_storage], marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows of the table")
    axes.set_ylabel("million keys a second, trained")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, frameon=False)
    results_dim = results[0]["dim"]
    axes.set_title(
        f"A training step of 4096 x 40 keys, Zipf 1.05, mean-pooled, D = {results_dim}\n"
        f"{content['machine']['cpu']}, {content['machine']['cores']} cores",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_workload(content, folder):
    """All figures of a workload's results."""
    name, results = content["workload"], content["results"]
    if not results:
        return
    if name in ("history", "bag", "wide", "cold"):
        groups = {f"D = {dim}": of_dim for dim, of_dim in panels(results, "dim").items()}
        draw(content, groups, "median_ms", "ms a step (less is better)", folder / f"{name}.png", limit=True)
    elif name == "threads":
        groups = panels(results, "part")
        draw(content, groups, "median_ms", "ms a step (less is better)", folder / f"{name}.png")
    elif name == "growth":
        groups = {"inserts": results}
        draw(content, groups, "inserts_per_second", "inserts a second", folder / f"{name}.png", "{:,.0f}")
    elif name == "serving":
        threads = max(result["threads"] for result in results)
        groups = {
            f"batch {batch}, {tables} table{'s' if tables > 1 else ''}": of_tables
            for batch, of_batch in panels([one for one in results if one["threads"] == threads], "batch").items()
            for tables, of_tables in panels(of_batch, "tables").items()
        }
        draw(content, groups, "p50_us", "median microseconds (less is better)", folder / f"{name}.png")
    elif name == "din":
        draw(
            content,
            panels(results, "log"),
            "examples_per_second",
            "examples a second",
            folder / f"{name}.png",
            "{:,.0f}",
        )
    elif name == "storages":
        draw_sizes(content, [result for result in results if result["part"] == "size"], folder / "storages_sizes.png")
        groups = {part: of_part for part, of_part in panels(results, "part").items() if part in ("history", "cold")}
        draw(content, groups, "median_ms", "ms a step (less is better)", folder / "storages.png", limit=True)


def main():
    """Draws what there is."""
    folder = pathlib.Path(sys.argv[1])
    for path in sorted(folder.glob("*.json")):
        draw_workload(json.loads(path.read_text()), folder)


if __name__ == "__main__":
    main()
