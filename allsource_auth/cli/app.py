"""The commands and their options, and what becomes of an error."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Checked, Reindexed, Upgraded, __version__
from allsource_auth.cli.place import ApiKey, Place
from allsource_auth.cli.screen import Counter, console, counter, progress_bar

__all__ = ["run"]

FEWEST_USERS = 10

MOST_CALLERS = 1000

Options = Annotated[Place, Parameter(name="*")]
HERE = Place()

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]


def run(arguments: Sequence[str]) -> int:
    """Parse ``arguments``, run the command they name; returns the exit code."""
    app = App(
        name="allsource-auth",
        help="Users and sessions as immutable events, with their whole history.",
        version=__version__,
        console=console(sys.stdout),
    )
    app.command(demo)
    app.command(serve)
    app.command(check)
    app.command(reindex)
    app.command(upgrade)
    app.command(bench)
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
    place: Options = HERE,
    *,
    users: Annotated[int, Parameter(validator=Number(gte=FEWEST_USERS))] = 1000,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Do the main job once, on a real file or on an Allsource, and check every step of it.

    Signs users up and in, lets many callers race for one email, updates, revokes, deletes, restores and reverts, and shows
    one user's history, counts and how long the latest state takes to read. Exits with 1 if a check failed. Without --data and
    --core it works on a temporary file; a file that is named is made if it is missing, and kept.

    Parameters
    ----------
    users
        How many users to sign up; at least 10.
    json
        Print one JSON document instead of tables.
    """
    from allsource_auth.cli.demo import demonstrate
    from allsource_auth.cli.report import show_json, show_tables

    if wrong := place.wrong():
        return _complain(wrong, 2)
    with TemporaryDirectory(prefix="allsource-auth-") as folder, progress_bar(sys.stderr) as progress:
        store = place.store(Path(folder) / "demo.db")
        report = asyncio.run(demonstrate(store, users=users, progress=progress))
    if not place.missing():
        report.kept_at = str(place)
    if json:
        show_json(report, sys.stdout)
    else:
        show_tables(report, console(sys.stdout))
    if report.failed:
        return _complain(f"{len(report.failed)} checks failed: {'; '.join(report.failed)}", 1)
    return 0


def serve(
    *,
    data: Path | None = None,
    host: str = "127.0.0.1",
    port: Port = 3900,
    query_port: Port = 3902,
    api_key: ApiKey = None,
    tenant: str = "default",
    generation: Literal["0.23", "0.27"] = "0.27",
) -> int:
    """Run a local stand-in for Allsource, for development: its wire over an embedded file.

    It ends with Ctrl-C or SIGTERM.

    Parameters
    ----------
    data
        The file with the events; it is made if it is missing. Without this they are in memory, and gone at the end.
    host
        The address to listen on. As on a real Core, whoever reaches it can read and write all events.
    port
        Core's port; 0 takes a free one.
    query_port
        The Query Service's port; 0 takes a free one.
    api_key
        The key that the Query Service and the event feed ask for. A key in the arguments can be seen in the list of
        processes: better set the environment variable.
    tenant
        The tenant that the key belongs to.
    generation
        Which Core it answers like.
    """
    from allsource_auth.cli.serve import serve_until_stopped

    asyncio.run(
        serve_until_stopped(
            data,
            host=host,
            port=port,
            query_port=query_port,
            api_key=api_key,
            tenant=tenant,
            generation=generation,
        )
    )
    return 0


def check(
    place: Options = HERE,
    *,
    repair: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look through a whole store for what is not as it should be. Exits with 1 if something is left to do.

    Finds claims and list entries that lead nowhere or are missing, half cascades, two living owners of one value, events that
    cannot be decoded.

    Parameters
    ----------
    repair
        Put right what needs no guessing: everything but duplicates and what cannot be decoded.
    json
        Print one JSON document instead of a table.
    """
    from allsource_auth.cli.maintenance import show_checked

    if wrong := place.wrong() or place.missing():
        return _complain(wrong, 2)
    with counter(sys.stderr) as progress:
        checked = asyncio.run(_checked(place, repair, progress))
    show_checked(checked, sys.stdout, json=json)
    return _complain(f"{len(checked.remaining)} findings are left", 1) if checked.remaining else 0


def upgrade(
    place: Options = HERE,
    *,
    no_older_process_runs: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the event format of a store, or raise it to the newest one. Exits with 1 if it can be raised and was not.

    Parameters
    ----------
    no_older_process_runs
        Confirm that no process of an older version uses the store, and raise the format.
    json
        Print one JSON document instead of a sentence.
    """
    from allsource_auth.cli.maintenance import show_upgraded

    if wrong := place.wrong() or place.missing():
        return _complain(wrong, 2)
    upgraded = asyncio.run(_upgraded(place, dry_run=not no_older_process_runs))
    show_upgraded(upgraded, sys.stdout, done=no_older_process_runs, json=json)
    if upgraded.before == upgraded.after or no_older_process_runs:
        return 0
    return _complain("stop all processes of older versions, then run this again with --no-older-process-runs", 1)


def reindex(
    place: Options = HERE,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make searchable what others wrote, such as the Rust crate. Exits with 1 if something in it needs a decision.

    Writes the claims and list entries that living entities lack, and reports two living owners of one value, and what cannot
    be decoded. It may run while the store is in use, and may be run again.

    Parameters
    ----------
    json
        Print one JSON document instead of a table.
    """
    from allsource_auth.cli.maintenance import show_reindexed

    if wrong := place.wrong() or place.missing():
        return _complain(wrong, 2)
    with counter(sys.stderr) as progress:
        reindexed = asyncio.run(_reindexed(place, progress))
    show_reindexed(reindexed, sys.stdout, json=json)
    left = len(reindexed.duplicates) + len(reindexed.undecodable)
    return _complain(f"{left} findings need a decision", 1) if left else 0


def bench(
    place: Options = HERE,
    *,
    seconds: Annotated[int, Parameter(validator=Number(gte=1, lte=3600))] = 10,
    count: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000_000))] = 200_000,
    callers: str | None = None,
    write: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Time reads of the latest state on a store of your own: p50, p90, p99, p99.9. Writes nothing unless told to.

    Looks for sessions and users that are alive at some thousand events, those of the last hour, day and month first, and then
    reads up to 500 of each at random. Every answer is checked; the command exits with 1 if one is wrong. It is a closed loop:
    each caller asks again once it has its answer, so a slow store is asked less often, and how long a fixed rate of requests
    would have to wait does not show. On a file the callers read one after another. Ctrl-C ends it with what was measured so
    far.

    Parameters
    ----------
    seconds
        For how long to measure, in all. Looking for something to read comes before that, and an answer that is on its
        way is waited for, ten seconds at most.
    count
        At most so many calls, in all; each operation and number of callers gets an equal share. The calls that find something
        to read, open connections and look again for what is gone come on top.
    callers
        How many callers ask at a time, up to 1000: one number or several, such as 1,16. By default 1,16 over HTTP and 1 on a
        file.
    write
        Make 20 users and 100 sessions first, read them as well, and time sign-ins, up to 500 for each number of callers. At the
        end all of them are deleted, after Ctrl-C and failures, too; only a second Ctrl-C, or a kill, leaves them. Deletions are
        tombstones: these events stay in the log.
    json
        Print one JSON document instead of tables.
    """
    from allsource_auth.cli.bench import measure
    from allsource_auth.cli.figures import Figures, live, show_figures

    if wrong := place.wrong() or place.missing():
        return _complain(wrong, 2)
    numbers = _numbers(callers or ("1" if place.core is None else "1,16"))
    if not numbers:
        return _complain(f"--callers takes whole numbers from 1 to {MOST_CALLERS}, such as 1,16", 2)
    options = {"seconds": seconds, "count": count, "callers": numbers, "write": write}
    figures = Figures(str(place), options)
    try:
        with live(figures, sys.stderr) as show:
            asyncio.run(measure(place.store(), figures, show=show))
    finally:
        if figures.calls:
            show_figures(figures, sys.stdout, as_json=json)
        if figures.left is not None:
            _complain(f"users that were made for this are still there; their emails begin with {figures.left}", 1)
    if not figures.rows:
        found = f"tenant {place.tenant} has no living user or session among the {figures.looked_at:,} events looked at"
        return _complain(f"{found}; name another --tenant, or let --write make some and delete them", 1)
    return _complain(f"{figures.wrong:,} answers were wrong", 1) if figures.wrong else 0


async def _checked(place: Place, repair: bool, progress: Counter) -> Checked:
    async with AllsourceAuthAdapter.with_store(place.store()) as adapter:
        return await adapter.check(repair=repair, progress=progress)


async def _upgraded(place: Place, *, dry_run: bool) -> Upgraded:
    async with AllsourceAuthAdapter.with_store(place.store()) as adapter:
        return await adapter.upgrade(dry_run=dry_run)


async def _reindexed(place: Place, progress: Counter) -> Reindexed:
    async with AllsourceAuthAdapter.with_store(place.store()) as adapter:
        return await adapter.reindex(progress=progress)


def _numbers(text: str) -> list[int]:
    """The numbers of callers in ``text``, each once and rising; none if something in it is wrong."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= MOST_CALLERS for part in parts):
        return []
    return sorted({int(part) for part in parts})


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first one in a group of tasks that failed together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _complain(sentence: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"allsource-auth: {sentence}\n")
    return code
