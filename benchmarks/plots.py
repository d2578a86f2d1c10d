"""Plot results as SVG files: percentile curves of ``latest_state.py``, times by size of ``scale.py``.

``python benchmarks/plots.py RESULT.json ... [--folder docs/plots]``; needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.ticker import LogLocator, StrMethodFormatter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import load  # noqa: E402 - needs the path above

PLOTTED_CALLERS = ("1", "32")
NINES = (50.0, 90.0, 99.0, 99.9, 99.99)


def curves(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Percentile curves, one figure for each store and number of callers (1 and 32) or rate."""
    for store, figures in found["results"].items():
        loops = [("closed", "callers"), ("open", "reads a second")]
        for loop, unit in loops:
            for number, rows in figures[loop].items():
                if loop == "closed" and number not in PLOTTED_CALLERS:
                    continue
                load_text = "one caller" if (loop, number) == ("closed", "1") else f"{int(number):,} {unit}"
                figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
                for name, row in rows.items():
                    points = [(1 / (1 - percent / 100), time) for percent, time in row["curve"] if percent < 100]
                    axes.plot(*zip(*points, strict=True), label=name, marker=".", markersize=4)
                axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="microseconds")
                axes.set_xticks([1 / (1 - nine / 100) for nine in NINES], [f"{nine:g}" for nine in NINES])
                axes.set_title(f"Latest state, {figures['store']}, {load_text}", fontsize=10)
                _finish(figure, axes, found)
                yield f"latest_state-{store}-{loop}-{number}", figure


def lines(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """One figure for each store: the median by the number of entities, with a band that contains 80 % of the rounds."""
    for store, calls in found["results"].items():
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        for name, by_size in calls.items():
            sizes = [int(size) for size in by_size]
            axes.plot(sizes, [row["p50_us"] for row in by_size.values()], label=name, marker="o", markersize=4)
            spreads = [row["spread"].get("p50_us") for row in by_size.values()]
            if all(spreads):
                axes.fill_between(sizes, [low for low, *_ in spreads], [high for *_, high in spreads], alpha=0.15)
        axes.set(xscale="log", yscale="log", xlabel="entities in the store", ylabel="p50, microseconds")
        axes.set_title(f"Time by size, {store}", fontsize=10)
        _finish(figure, axes, found)
        yield f"scale-{store}", figure


PLOTS = {"latest_state": curves, "scale": lines}


def _finish(figure: Any, axes: Any, found: dict[str, Any]) -> None:
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    python = found["versions"]["Python"]
    figure.supxlabel(f"{found['machine']}, Python {python}, {found['version']}, {found['date']}", fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="result files written with --json")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "docs" / "plots", help="the folder for the plots (default: docs/plots)"
    )
    given = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "allsource_auth"  # equal figures give equal files
    matplotlib.rcParams["svg.fonttype"] = "none"  # text is not converted to paths, which keeps the files small
    given.folder.mkdir(parents=True, exist_ok=True)
    for file in given.results:
        found = load(file)
        plot = PLOTS.get(found["benchmark"])
        if plot is None:
            parser.error(f"{file} has results of {found['benchmark']}; only {' and '.join(PLOTS)} can be plotted")
        for name, figure in plot(found):
            figure.savefig(given.folder / f"{name}.svg", metadata={"Date": None})
            pyplot.close(figure)
            print(f"{name}.svg")


if __name__ == "__main__":
    main()
