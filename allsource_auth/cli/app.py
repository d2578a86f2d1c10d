"""The commands and their options, and what becomes of an error."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from allsource_auth import AllsourceAuthError, __version__

from .screen import console, progress_bar

__all__ = ["run"]

FEWEST_USERS = 10


def run(arguments: Sequence[str]) -> int:
    """Parse ``arguments``, run the command they name; returns the exit code."""
    app = App(
        name="allsource-auth",
        help="Users and sessions as immutable events, with their whole history.",
        version=__version__,
        console=console(sys.stdout),
    )
    app.command(demo)
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(str(error), 2)
    try:
        return command(*bound.args, **bound.kwargs) or 0
    except BrokenPipeError:
        raise
    except (AllsourceAuthError, OSError, BaseExceptionGroup) as error:
        first = _first(error)
        if not isinstance(first, AllsourceAuthError | OSError):
            raise
        return _complain(str(first), 1)


def demo(
    *,
    data: Path | None = None,
    users: Annotated[int, Parameter(validator=Number(gte=FEWEST_USERS))] = 1000,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Do the main job once, on a real file, and check every step of it.

    Signs users up and in, lets many callers race for one email, updates, revokes, deletes, restores and reverts, and shows
    one user's history, counts and how long the latest state takes to read. Exits with 1 if a check failed.

    Parameters
    ----------
    data
        The file to use; it is made if it is missing, and kept. Without this a temporary file, removed at the end.
    users
        How many users to sign up; at least 10.
    json
        Print one JSON document instead of tables.
    """
    from .demo import demonstrate
    from .report import show_json, show_tables

    with TemporaryDirectory(prefix="allsource-auth-") as folder, progress_bar(sys.stderr) as progress:
        path = Path(folder) / "demo.db" if data is None else data
        report = asyncio.run(demonstrate(path, users=users, progress=progress))
    report.kept_at = data
    if json:
        show_json(report, sys.stdout)
    else:
        show_tables(report, console(sys.stdout))
    if report.failed:
        return _complain(f"{len(report.failed)} checks failed: {'; '.join(report.failed)}", 1)
    return 0


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first one in a group of tasks that failed together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _complain(sentence: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"allsource-auth: {sentence}\n")
    return code
