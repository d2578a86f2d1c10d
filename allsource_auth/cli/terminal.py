"""Output to streams: colours and progress on terminals, plain text everywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

__all__ = ["Advance", "Counter", "bar", "check_marks", "console", "counter", "printable", "progress_bar"]

Advance = Callable[[str, float], None]
"""Takes the name of the current step and the fraction of the whole work done since the last call. The fractions add up to 1."""

Counter = Callable[[str, int], None]
"""Takes what is counted and the count so far."""

PLAIN_WIDTH = 120
"""Columns if the stream is no terminal; the environment variable COLUMNS overrides it."""


def console(stream: TextIO) -> Console:
    """A console on ``stream``. Uses colours only on a terminal, and not if NO_COLOR is set."""
    terminal = stream.isatty()
    width = None if terminal or os.environ.get("COLUMNS") else PLAIN_WIDTH
    return Console(
        file=stream,
        force_terminal=terminal,
        force_interactive=terminal,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
    )


def check_marks(stream: TextIO) -> tuple[str, str]:
    """The marks for a passed and a failed check; words if the encoding of ``stream`` lacks the symbols."""
    try:
        "✓✗".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok", "FAILED"
    return "✓", "✗"


def bar(stream: TextIO, fraction: float, width: int) -> str:
    """A bar of a histogram that fills a ``fraction`` (0 to 1) of ``width`` columns.

    The resolution is an eighth of a column, or a whole column if the encoding of ``stream`` lacks the block characters. A
    fraction above 0 is never rounded down to an empty bar.
    """
    eighths = round(fraction * width * 8)
    whole, rest = divmod(max(eighths, 1) if fraction else 0, 8)
    blocks = "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    try:
        blocks.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * (whole + (rest > 0))
    return blocks


def printable(text: str) -> str:
    """``text`` with control characters replaced, so that stored values cannot control the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


@contextmanager
def progress_bar(stream: TextIO) -> Generator[Advance]:
    """Show a progress bar on ``stream`` while the block runs. Shows nothing if ``stream`` is no terminal."""
    if not stream.isatty():
        yield lambda step, fraction: None
        return
    columns = BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console(stream), transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda step, fraction: progress.update(task, description=step, advance=fraction)


@contextmanager
def counter(stream: TextIO) -> Generator[Counter]:
    """Show a running count on ``stream`` while the block runs. Shows nothing if ``stream`` is no terminal."""
    if not stream.isatty():
        yield lambda counted, count: None
        return
    with console(stream).status("") as status:
        yield lambda counted, count: status.update(Text(f"{counted}: {count:,}"))
