"""What a demonstration found out: its checks, counts and latencies, and how they are shown."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, TextIO

import msgspec
from hdrh.histogram import HdrHistogram
from rich.console import Console
from rich.table import Table
from rich.text import Text

from allsource_auth import Change, User, __version__
from allsource_auth.cli.screen import marks, printable
from allsource_auth.cli.timeline import change_record, state_record, state_table, timeline_table

__all__ = ["Latency", "Report", "show_json", "show_tables"]

LONGEST = 60_000_000_000
"""Nanoseconds; the histogram counts what took longer as this."""


class Latency:
    """How long calls of one kind took."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, LONGEST, 3)

    def record(self, began: int) -> None:
        """Count a call that began at ``began``, by ``time.perf_counter_ns``, and ended now."""
        self.add(perf_counter_ns() - began)

    def add(self, nanoseconds: int) -> None:
        """Count a call that took so long."""
        self._histogram.record_value(min(max(nanoseconds, 1), LONGEST))

    @property
    def calls(self) -> int:
        return int(self._histogram.get_total_count())

    def percentile(self, percent: float) -> float:
        """In microseconds."""
        return round(float(self._histogram.get_value_at_percentile(percent)) / 1000, 1)

    def counts(self, edges: Sequence[float]) -> list[int]:
        """How many calls took from each of ``edges``, in nanoseconds and rising, to the next; the last one is open."""
        found = [0] * len(edges)
        for step in self._histogram.get_recorded_iterator():
            found[max(bisect_right(edges, step.value_iterated_to) - 1, 0)] += step.count_at_value_iterated_to
        return found


@dataclass
class Report:
    """Filled in by the job as it goes."""

    checks: list[tuple[str, bool]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, Latency] = field(default_factory=dict)
    timeline: list[Change[User]] = field(default_factory=list)
    before: User | None = None
    """The user of the timeline as it was before its first change."""
    kept_at: str | None = None
    """The file, or the tenant and the server, that still has the data."""

    def check(self, name: str, held: bool) -> None:
        self.checks.append((name, held))

    @property
    def failed(self) -> list[str]:
        return [name for name, held in self.checks if not held]


def show_json(report: Report, stream: TextIO) -> None:
    """Write one JSON document."""
    document: dict[str, Any] = {
        "version": __version__,
        "ok": not report.failed,
        "checks": [{"name": name, "ok": held} for name, held in report.checks],
        "counts": report.counts,
        "latencies_us": {
            name: {"p50": latency.percentile(50), "p99": latency.percentile(99), "reads": latency.calls}
            for name, latency in report.latencies.items()
        },
        "timeline": [change_record(change) for change in report.timeline],
        "before_first_change": state_record(report.before),
        "data": report.kept_at,
    }
    # ASCII only, so that the encoding of the stream does not matter.
    stream.write(json.dumps(msgspec.to_builtins(document), indent=2) + "\n")


def show_tables(report: Report, console: Console) -> None:
    """Print the whole report for people."""
    console.print(Text("The history of one user", style="bold"))
    console.print(timeline_table(report.timeline))
    if report.before is not None:
        console.print(Text("\nThe same user as of the moment before its first change", style="bold"))
        console.print(state_table(report.before))
    console.print(Text("\nCounts", style="bold"))
    console.print(_counts(report))
    console.print(Text("\nReads of the latest state, one at a time, in microseconds", style="bold"))
    console.print(_latencies(report))
    console.print(Text("\nChecks", style="bold"))
    good, bad = marks(console.file)  # type: ignore[arg-type]  # the stream it was built on
    for name, held in report.checks:
        mark = Text(good, style="green") if held else Text(bad, style="bold red")
        console.print(mark.append(f" {name}", style="default"))
    where = "The data was in a temporary file, which is removed; --data FILE keeps it."
    if report.kept_at is not None:
        where = f"The data is kept in {printable(report.kept_at)}."
    held_count = len(report.checks) - len(report.failed)
    console.print(Text(f"\n{held_count} of {len(report.checks)} checks held."))
    console.print(Text(where), soft_wrap=True)


def _counts(report: Report) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in report.counts.items():
        table.add_row(Text(name.replace("_", " ")), Text(f"{count:,}"))
    return table


def _latencies(report: Report) -> Table:
    table = Table("read", header_style="bold")
    for title in ("p50", "p99", "reads"):
        table.add_column(title, justify="right")
    for name, latency in report.latencies.items():
        p50, p99 = f"{latency.percentile(50):,}", f"{latency.percentile(99):,}"
        table.add_row(Text(name), Text(p50), Text(p99), Text(f"{latency.calls:,}"))
    return table
