"""The results of ``allsource-auth bench``, and their output: live on a terminal, as tables, as a JSON document."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from allsource_auth import Info, __version__
from allsource_auth.cli.measuring import Latency, Round
from allsource_auth.cli.terminal import bar, console, printable

__all__ = ["BenchReport", "Row", "Show", "live_report", "show_report"]

Show = Callable[[str, float], None]
"""Shows the name of the current step, the fraction of the whole that is done (0 to 1), and the results so far."""

PERCENTILES = (50, 90, 99, 99.9)

EDGES = tuple(step * 10**power for power in range(11) for step in (1, 1.5, 2, 3, 5, 7))
"""Lower edges of the histogram's bars in nanoseconds: six per power of ten, at nearly equal ratios."""

BAR_WIDTH = 40
"""Columns of the longest bar."""


@dataclass
class Row:
    """The results of one operation at one number of callers.

    ``deleted``: replies without the entity, which a second read did not find either. ``wrong``: replies with another entity, or
    without the entity although a second read found it. ``wall``: duration of its rounds in nanoseconds.
    """

    operation: str
    callers: int
    latency: Latency = field(default_factory=Latency)
    deleted: int = 0
    wrong: int = 0
    wall: int = 0

    def add(self, measured: Round) -> None:
        self.wall += measured.wall
        for nanoseconds in measured.durations:
            self.latency.add(nanoseconds)

    @property
    def per_second(self) -> float:
        return self.latency.calls * 1e9 / self.wall if self.wall else 0.0


@dataclass
class BenchReport:
    """The results of a measurement, filled in while it runs; ``options`` are those of the command.

    ``sample``: how many entities of each sort the calls read. ``scanned``: events scanned to find them. ``undeleted``: the
    beginning of the emails of temporary users that exist, or may exist.
    """

    store: str
    options: dict[str, Any]
    info: Info | None = None
    sample: dict[str, int] = field(default_factory=dict[str, int])
    rows: list[Row] = field(default_factory=list[Row])
    scanned: int = 0
    complete: bool = False
    undeleted: str | None = None

    @property
    def calls(self) -> int:
        return sum(row.latency.calls for row in self.rows)

    @property
    def wrong(self) -> int:
        return sum(row.wrong for row in self.rows)


@contextmanager
def live_report(report: BenchReport, stream: TextIO) -> Generator[Show]:
    """Show the results on ``stream`` while the block runs. Shows nothing if ``stream`` is no terminal.

    The output is drawn in the call of `Show`, not by a thread, so that nothing is drawn during a measured call.
    """
    if not stream.isatty():
        yield lambda step, done: None
        return
    with Live(console=console(stream), auto_refresh=False, transient=True) as screen:

        def show(step: str, done: float) -> None:
            progress = Table.grid(padding=(0, 1))
            progress.add_row(ProgressBar(total=1.0, completed=done, width=BAR_WIDTH), Text(step))
            parts: list[RenderableType] = [progress]
            if report.rows:
                parts.append(_table(report.rows, (50, 99)))
            screen.update(Group(*parts), refresh=True)

        yield show


def show_report(report: BenchReport, stream: TextIO, *, as_json: bool) -> None:
    """Write the results as one JSON document, or as tables."""
    if as_json:
        # ASCII only, so that the encoding of the stream does not matter.
        stream.write(json.dumps(msgspec.to_builtins(_document(report)), indent=2) + "\n")
    else:
        _show_tables(report, console(stream))


def _document(report: BenchReport) -> dict[str, Any]:
    return {
        "version": __version__,
        "ok": report.complete and not report.wrong,
        "complete": report.complete,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "store": report.info,
        "options": report.options,
        "loop": "closed",
        "sample": {name.replace(" ", "_"): count for name, count in report.sample.items()},
        "rows": [
            {
                "operation": row.operation,
                "callers": row.callers,
                "calls": row.latency.calls,
                "gone": row.deleted,
                "wrong": row.wrong,
                "per_second": round(row.per_second, 1),
                **{_key(percentile): _microseconds(row, percentile) for percentile in PERCENTILES},
            }
            for row in report.rows
        ],
    }


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def _key(percentile: float) -> str:
    return f"p{percentile}_us".replace(".", "")


def _microseconds(row: Row, percentile: float) -> float | None:
    return round(row.latency.microseconds(percentile), 1) if row.latency.calls else None


def _show_tables(report: BenchReport, screen: Console) -> None:
    info, machine = report.info, _machine()
    lines = [report.store]
    if info is not None:
        parts = [f"{info.server or info.store} {info.server_version or ''}".strip()]
        parts += [f"reads from {info.reads_from}"] if info.reads_from not in (None, info.where) else []
        parts += [f"engine {info.engine}"] if info.engine else []
        lines.append(", ".join(parts))
    lines.append(
        f"{machine['cores']} cores, {machine['system']} {machine['architecture']}, {machine['implementation']} "
        f"{machine['python']}, allsource_auth {__version__}"
    )
    lines.append("sample: " + ", ".join(f"{count:,} {name}" for name, count in report.sample.items()))
    for line in lines:
        screen.print(Text(printable(line)), soft_wrap=True)
    screen.print(
        Text("\nClosed loop: each caller waits for a reply before its next call. Microseconds.", style="bold"),
    )
    screen.print(_table(report.rows, PERCENTILES))
    first = report.rows[0].operation
    for row in report.rows:
        if row.operation == first and row.latency.calls:
            screen.print(Text(f"\n{row.operation}, callers: {row.callers}", style="bold"))
            screen.print(_histogram(row.latency, screen))
    if deleted := sum(row.deleted for row in report.rows):
        screen.print(Text(f"\n{deleted:,} reads found nothing: deleted or expired during the measurement."))


def _table(rows: Sequence[Row], percentiles: Sequence[float]) -> Table:
    table = Table(header_style="bold")
    table.add_column("operation", no_wrap=True)
    for title in ("callers", *(f"p{percentile}" for percentile in percentiles), "per second", "calls"):
        table.add_column(title, justify="right")
    for row in rows:
        values = [_microseconds(row, percentile) for percentile in percentiles]
        cells = ["-" if value is None else f"{value:,.1f}" for value in values]
        rate = f"{row.per_second:,.0f}" if row.latency.calls else "-"
        table.add_row(*map(Text, (row.operation, str(row.callers), *cells, rate, f"{row.latency.calls:,}")))
    return table


def _histogram(latency: Latency, screen: Console) -> Table:
    """One line per bucket: its lower edge, a bar, its number of calls, and the percentage of calls below its upper edge."""
    counts = latency.counts(EDGES)
    used = [bucket for bucket, count in enumerate(counts) if count]
    table = Table.grid(padding=(0, 1))
    for justify in ("right", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    cumulative = 0
    for bucket in range(used[0], used[-1] + 1):
        cumulative += counts[bucket]
        blocks = bar(screen.file, counts[bucket] / max(counts), BAR_WIDTH)  # type: ignore[arg-type]  # the stream it was built on
        table.add_row(
            Text(_duration(EDGES[bucket])),
            Text(blocks, style="cyan"),
            Text(f"{counts[bucket]:,}"),
            Text(f"{100 * cumulative / sum(counts):.2f} %"),
        )
    return table


def _duration(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds:g} ns"
