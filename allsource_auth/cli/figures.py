"""What ``allsource-auth bench`` has measured, and how it is shown: while it runs, as a table, as a JSON document."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
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
from allsource_auth.cli.report import Latency
from allsource_auth.cli.screen import bars, console, printable

__all__ = ["Figures", "Row", "Show", "live", "show_figures"]

Show = Callable[[str, float], None]
"""Takes what is being done and which part of the whole is done, 0 to 1; shows both, and the figures so far."""

PERCENTILES = (50, 90, 99, 99.9)

EDGES = tuple(step * 10**power for power in range(11) for step in (1, 1.5, 2, 3, 5, 7))
"""Nanoseconds at which the bars of a histogram begin: six in every power of ten, about as far apart as one another."""

BAR = 40
"""Columns of the longest bar."""


@dataclass
class Row:
    """The calls of one operation by a number of callers.

    ``gone``: answers that there is nothing any more, to two calls in a row. ``wrong``: answers that are something else than was
    asked for, or nothing although the next call found it. ``wall``: nanoseconds that its turns took.
    """

    operation: str
    callers: int
    latency: Latency = field(default_factory=Latency)
    gone: int = 0
    wrong: int = 0
    wall: int = 0

    @property
    def per_second(self) -> float:
        return self.latency.calls * 1e9 / self.wall if self.wall else 0.0


@dataclass
class Figures:
    """Filled in by the measurement as it goes; ``options`` are those of the command.

    ``sample`` says what the calls are drawn from. ``left``: how the emails begin that were made for this and are still there.
    """

    place: str
    options: dict[str, Any]
    info: Info | None = None
    sample: dict[str, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    looked_at: int = 0
    """Events that were looked at to find something to read."""
    complete: bool = False
    left: str | None = None

    @property
    def calls(self) -> int:
        return sum(row.latency.calls for row in self.rows)

    @property
    def wrong(self) -> int:
        return sum(row.wrong for row in self.rows)


@contextmanager
def live(figures: Figures, stream: TextIO) -> Iterator[Show]:
    """Show the figures on ``stream`` until the block ends; nothing if that is no terminal.

    It is drawn by whoever calls, and by no thread, so that nothing is drawn while something is timed.
    """
    if not stream.isatty():
        yield lambda doing, part: None
        return
    with Live(console=console(stream), auto_refresh=False, transient=True) as screen:

        def show(doing: str, part: float) -> None:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(ProgressBar(total=1.0, completed=part, width=BAR), Text(doing))
            drawn: list[RenderableType] = [bar]
            if figures.rows:
                drawn.append(_table(figures.rows, (50, 99)))
            screen.update(Group(*drawn), refresh=True)

        yield show


def show_figures(figures: Figures, stream: TextIO, *, as_json: bool) -> None:
    """Write what was measured, as one JSON document or for people."""
    if as_json:
        # ASCII only, so that the encoding of the stream does not matter.
        stream.write(json.dumps(msgspec.to_builtins(_document(figures)), indent=2) + "\n")
    else:
        _show_tables(figures, console(stream))


def _document(figures: Figures) -> dict[str, Any]:
    return {
        "version": __version__,
        "ok": figures.complete and not figures.wrong,
        "complete": figures.complete,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "store": figures.info,
        "options": figures.options,
        "loop": "closed",
        "sample": {name.replace(" ", "_"): count for name, count in figures.sample.items()},
        "rows": [
            {
                "operation": row.operation,
                "callers": row.callers,
                "calls": row.latency.calls,
                "gone": row.gone,
                "wrong": row.wrong,
                "per_second": round(row.per_second, 1),
                **{_name(percent): _microseconds(row, percent) for percent in PERCENTILES},
            }
            for row in figures.rows
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


def _name(percent: float) -> str:
    return f"p{percent}_us".replace(".", "")


def _microseconds(row: Row, percent: float) -> float | None:
    return row.latency.percentile(percent) if row.latency.calls else None


def _show_tables(figures: Figures, screen: Console) -> None:
    info, machine = figures.info, _machine()
    lines = [figures.place]
    if info is not None:
        parts = [f"{info.server or info.store} {info.server_version or ''}".strip()]
        parts += [f"reads from {info.reads_from}"] if info.reads_from not in (None, info.where) else []
        parts += [f"engine {info.engine}"] if info.engine else []
        lines.append(", ".join(parts))
    lines.append(
        f"{machine['cores']} cores, {machine['system']} {machine['architecture']}, {machine['implementation']} "
        f"{machine['python']}, allsource_auth {__version__}"
    )
    lines.append("drawn from " + ", ".join(f"{count:,} {name}" for name, count in figures.sample.items()))
    for line in lines:
        screen.print(Text(printable(line)), soft_wrap=True)
    screen.print(Text("\nA closed loop: each caller asks again once it has its answer. Microseconds.", style="bold"))
    screen.print(_table(figures.rows, PERCENTILES))
    first = figures.rows[0].operation
    for row in figures.rows:
        if row.operation == first and row.latency.calls:
            screen.print(Text(f"\n{row.operation}, callers: {row.callers}", style="bold"))
            screen.print(_histogram(row.latency, screen))
    if gone := sum(row.gone for row in figures.rows):
        screen.print(Text(f"\n{gone:,} answers said that there is nothing any more: deleted, or ended, meanwhile."))


def _table(rows: Sequence[Row], percentiles: Sequence[float]) -> Table:
    table = Table(header_style="bold")
    table.add_column("operation", no_wrap=True)
    for title in ("callers", *(f"p{percent}" for percent in percentiles), "per second", "calls"):
        table.add_column(title, justify="right")
    for row in rows:
        found = [_microseconds(row, percent) for percent in percentiles]
        cells = ["-" if value is None else f"{value:,.1f}" for value in found]
        speed = f"{row.per_second:,.0f}" if row.latency.calls else "-"
        table.add_row(*map(Text, (row.operation, str(row.callers), *cells, speed, f"{row.latency.calls:,}")))
    return table


def _histogram(latency: Latency, screen: Console) -> Table:
    """Bars for the calls between two edges; each says where it begins, and how many of all calls took less than its end."""
    counts = latency.counts(EDGES)
    filled = [place for place, count in enumerate(counts) if count]
    table = Table.grid(padding=(0, 1))
    for justify in ("right", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    so_far = 0
    for place in range(filled[0], filled[-1] + 1):
        so_far += counts[place]
        part = counts[place] / max(counts)
        bar = bars(screen.file, part, BAR)  # type: ignore[arg-type]  # the stream it was built on
        table.add_row(
            Text(_duration(EDGES[place])),
            Text(bar, style="cyan"),
            Text(f"{counts[place]:,}"),
            Text(f"{100 * so_far / sum(counts):.2f} %"),
        )
    return table


def _duration(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds:g} ns"
