"""Draws PNGs of the results in a folder: `python benchmarks/figures.py benchmarks/results`. Needs matplotlib.

For each workload of training steps bars of the median step, and for the others bars of what they measure; for W8 the
throughput of our storages against the size of the table.
"""

import json
import pathlib
import sys

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

OURS, PEERS, LIMIT = "#1f6fb4", "#9a9a9a", "#c0392b"


def bars(axes, results, value, label):
    """Horizontal bars, ours in blue, in the order given, from the top; a log scale where they differ much."""
    values = [result[value] for result in results]
    names = [result["contestant"] for result in results]
    places = range(len(results))[::-1]
    drawn = axes.barh(places, values, color=[OURS if name.startswith("tse") else PEERS for name in names])
    axes.bar_label(
        drawn, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values], padding=3, fontsize=8
    )
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xlabel(label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if max(values) > 15 * min(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 3)
    else:
        axes.set_xlim(0, max(values) * 1.2)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes.xaxis.set_major_formatter("{x:,.10g}")


def panels(results, key):
    """The results by the values of `key`, in their order."""
    return {
        group: [one for one in results if one[key] == group] for group in dict.fromkeys(one[key] for one in results)
    }


def draw(content, groups, value, label, path, limit=False):
    """A figure with a panel of bars for each group, {title: results}; with `limit`, a line at the memory's limit."""
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    lines = -(-len(groups) // columns)
    tallest = max(map(len, groups.values()))
    size = (2.2 + 4.2 * columns, 1.0 + (0.9 + 0.3 * tallest) * lines)
    figure, all_axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in all_axes.flat[len(groups) :]:
        axes.set_visible(False)
    for axes, (title, results) in zip(all_axes.flat, groups.items(), strict=False):
        bars(axes, results, value, label)
        if limit:
            for place, result in zip(range(len(results))[::-1], results, strict=True):
                axes.plot([result["limit_ms"]] * 2, [place - 0.4, place + 0.4], color=LIMIT, linewidth=2)
            axes.plot([], [], color=LIMIT, linewidth=2, label="the memory's limit")
            if axes.get_xscale() == "log":
                axes.set_xlim(left=min(axes.get_xlim()[0], *(0.5 * result["limit_ms"] for result in results)))
        axes.set_title(title, fontsize=10)
    if limit:
        handles, labels = all_axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", fontsize=8, frameon=False)
    figure.suptitle(f"{content['title']}\n{machine(content)}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def machine(content):
    """The hardware, and whether it was busy with something else."""
    name = f"{content['machine']['cpu']}, {content['machine']['cores']} cores"
    others = max((result.get("others", 0.0) for result in content["results"]), default=0.0)
    return name + (f"; NOT QUIET: others used {others:.1f} cores" if others >= 0.15 else "")


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
    axes.xaxis.set_major_formatter("{x:,.10g}")
    work = f"A training step of 4096 x 40 keys, Zipf 1.05, mean-pooled, D = {results[0]['dim']}"
    axes.set_title(f"{work}\n{machine(content)}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_workload(content, folder):
    """All figures of a workload's results."""
    name, results = content["workload"], content["results"]
    path, step = folder / f"{name}.png", "ms a step (less is better)"
    if not results:
        return
    if name in ("history", "bag", "wide", "cold"):
        groups = {f"D = {dim}": of_dim for dim, of_dim in panels(results, "dim").items()}
        draw(content, groups, "median_ms", step, path, limit=True)
    elif name == "threads":
        draw(content, panels(results, "part"), "median_ms", step, path)
    elif name == "growth":
        draw(content, {"": results}, "inserts_per_second", "inserts a second (more is better)", path)
    elif name == "serving":
        most = [result for result in results if result["threads"] == max(one["threads"] for one in results)]
        groups = {
            f"batch {batch}, {tables} table{'s' if tables > 1 else ''}": of_both
            for tables, of_tables in panels(most, "tables").items()
            for batch, of_both in panels(of_tables, "batch").items()
        }
        draw(content, groups, "p50_us", "median microseconds (less is better)", path)
    elif name == "din":
        draw(content, panels(results, "log"), "examples_per_second", "examples a second (more is better)", path)
    elif name == "storages":
        parts = panels(results, "part")
        draw_sizes(content, parts["size"], folder / "storages_sizes.png")
        draw(content, {part: parts[part] for part in ("history", "cold")}, "median_ms", step, path, limit=True)


def main():
    """Draws what there is."""
    folder = pathlib.Path(sys.argv[1])
    for path in sorted(folder.glob("*.json")):
        draw_workload(json.loads(path.read_text()), folder)


if __name__ == "__main__":
    main()
