"""Ratios between the figures of calls that were measured in alternating rounds, and tables of both."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from benchmarks.timing import Row

__all__ = ["FIGURES", "ratios_to", "show", "show_ratios"]

FIGURES = {"per second": "per_second", "p50": "p50_us", "p99": "p99_us", "CPU": "cpu_us"}
"""The compared figures: their titles, and their names in a row."""


def ratios_to(rows: Mapping[str, Row], subject: str, others: list[str]) -> dict[str, dict[str, list[float]]]:
    """The figures of ``subject`` divided by those of each of ``others``: median, smallest and largest ratio of the rounds."""

    def spread(other: str, figure: str) -> list[float]:
        pairs = zip(rows[subject]["rounds"][figure], rows[other]["rounds"][figure], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        return [statistics.median(ratios), min(ratios), max(ratios)]

    return {other: {title: spread(other, figure) for title, figure in FIGURES.items()} for other in others}


def show(part: str, callers: str, rows: Mapping[str, Row]) -> None:
    title = f"{part}, {'one caller' if callers == '1' else f'{callers} callers'}"
    head = " ".join(f"{name:>11}" for name in ("p50", "p90", "p99", "p99.9"))
    print(f"\n{title:30} {head} {'per second':>11} {'CPU':>9}")
    for name, row in rows.items():
        times = " ".join(f"{row[which]:9,.1f}us" for which in ("p50_us", "p90_us", "p99_us", "p999_us"))
        print(f"{name:30} {times} {row['per_second']:11,.0f} {row['cpu_us']:7,.1f}us")


def show_ratios(subject: str, ratios: Mapping[str, Mapping[str, list[float]]]) -> None:
    print(f"{f'{subject}, ratio to':30} " + " ".join(f"{title:>26}" for title in FIGURES))
    for other, figures in ratios.items():
        cells = (f"{_ratio(median)} ({_ratio(least)}-{_ratio(most)})" for median, least, most in figures.values())
        print(f"{other:30} " + " ".join(f"{cell:>26}" for cell in cells))


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
