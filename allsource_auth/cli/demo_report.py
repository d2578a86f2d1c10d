"""The results of ``allsource-auth demo``: checks, counts, a history and latencies; their output as tables or JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from allsource_auth import Change, User, __version__
from allsource_auth.cli.measuring import Latency
from allsource_auth.cli.terminal import check_marks, printable
from allsource_auth.cli.timeline import change_record, state_record, state_table, timeline_table

__all__ = ["DemoReport", "show_json", "show_tables"]


@dataclass
class DemoReport:
    """The results, filled in while the demonstration runs."""

    checks: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    counts: Counter[str] = field(default_factory=Counter[str])
    latencies: dict[str, Latency] = field(default_factory=dict[str, Latency])
    timeline: list[Change[User]] = field(default_factory=list[Change[User]])
    before: User | None = None
    """The user of the timeline before its first change."""
    kept_at: str | None = None
    """The file, or the tenant and the server, that keeps the data; ``None`` for a temporary file."""

    def check(self, name: str, passed: bool) -> None:
        """Add the outcome of a check."""
        self.checks.append((name, passed))

    @property
    def failed(self) -> list[str]:
        return [name for name, passed in self.checks if not passed]


def show_json(report: DemoReport, stream: TextIO) -> None:
    """Write one JSON document."""
    document: dict[str, Any] = {
        "version": __version__,
        "ok": not report.failed,
        "checks": [{"name": name, "ok": passed} for name, passed in report.checks],
        "counts": report.counts,
        "latencies_us": {
            name: {"p50": _microseconds(latency, 50), "p99": _microseconds(latency, 99), "reads": latency.calls}
            for name, latency in report.latencies.items()
        },
        "timeline": [change_record(change) for change in report.timeline],
        "before_first_change": state_record(report.before),
        "data": report.kept_at,
    }
    # ASCII only, so that the encoding of the stream does not matter.
    stream.write(json.dumps(msgspec.to_builtins(document), indent=2) + "\n")


def show_tables(report: DemoReport, console: Console) -> None:
    """Print the report as tables."""
    console.print(Text("The history of one user", style="bold"))
    console.print(timeline_table(report.timeline))
    if report.before is not None:
        console.print(Text("\nThe same user before its first change", style="bold"))
        console.print(state_table(report.before))
    console.print(Text("\nCounts", style="bold"))
    console.print(_counts(report))
    console.print(Text("\nReads of the latest state, one at a time, in microseconds", style="bold"))
    console.print(_latencies(report))
    console.print(Text("\nChecks", style="bold"))
    good, bad = check_marks(console.file)  # type: ignore[arg-type]  # the stream it was built on
    for name, passed in report.checks:
        mark = Text(good, style="green") if passed else Text(bad, style="bold red")
        console.print(mark.append(f" {name}", style="default"))
    where = "The data was in a temporary file, which is now deleted; --data FILE keeps it."
    if report.kept_at is not None:
        where = f"The data is in {printable(report.kept_at)}."
    passed_count = len(report.checks) - len(report.failed)
    console.print(Text(f"\n{passed_count} of {len(report.checks)} checks passed."))
    console.print(Text(where), soft_wrap=True)


def _counts(report: DemoReport) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in report.counts.items():
        table.add_row(Text(name.replace("_", " ")), Text(f"{count:,}"))
    return table


def _latencies(report: DemoReport) -> Table:
    table = Table("read", header_style="bold")
    for title in ("p50", "p99", "reads"):
        table.add_column(title, justify="right")
    for name, latency in report.latencies.items():
        p50, p99 = f"{_microseconds(latency, 50):,}", f"{_microseconds(latency, 99):,}"
        table.add_row(Text(name), Text(p50), Text(p99), Text(f"{latency.calls:,}"))
    return table


def _microseconds(latency: Latency, percentile: float) -> float:
    return round(latency.microseconds(percentile), 1)
