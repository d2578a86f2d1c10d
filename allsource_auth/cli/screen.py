"""What is printed, and where: colours and a progress bar for terminals, plain text for everything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

__all__ = ["Advance", "Counter", "bars", "console", "counter", "marks", "printable", "progress_bar"]

Advance = Callable[[str, float], None]
"""Takes what is being done and by which part of the whole the work has advanced; the parts add up to 1."""

Counter = Callable[[str, int], None]
"""Takes what is being counted and how many there were so far."""

PLAIN_WIDTH = 120
"""Columns where there is no terminal to ask; the variable COLUMNS overrides it."""


def console(stream: TextIO) -> Console:
    """A console on ``stream``: coloured only if that is a terminal, and not if NO_COLOR is set."""
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


def marks(stream: TextIO) -> tuple[str, str]:
    """The marks for what held and what did not, as far as the encoding of ``stream`` has them."""
    try:
        "✓✗".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok", "FAILED"
    return "✓", "✗"


def bars(stream: TextIO, part: float, width: int) -> str:
    """A bar over ``part`` (0 to 1) of ``width`` columns, in eighths of a column as far as the encoding of ``stream`` has them.

    What is not nothing is shown, however little it is.
    """
    eighths = round(part * width * 8)
    whole, rest = divmod(max(eighths, 1) if part else 0, 8)
    bar = "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    try:
        bar.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * (whole + (rest > 0))
    return bar


def printable(text: str) -> str:
    """``text`` without what could steer a terminal: stored values come from strangers."""
    return "".join(character if character.isprintable() else "�" for character in text)


@contextmanager
def progress_bar(stream: TextIO) -> Iterator[Advance]:
    """A progress bar on ``stream`` that goes away at the end; nothing if that is no terminal."""
    if not stream.isatty():
        yield lambda doing, part: None
        return
    columns = BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console(stream), transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda doing, part: progress.update(task, description=doing, advance=part)


@contextmanager
def counter(stream: TextIO) -> Iterator[Counter]:
    """How far work without a known end has come, on ``stream``, until it is done; nothing if that is no terminal."""
    if not stream.isatty():
        yield lambda what, count: None
        return
    with console(stream).status("") as status:
        yield lambda what, count: status.update(Text(f"{what}: {count:,}"))
