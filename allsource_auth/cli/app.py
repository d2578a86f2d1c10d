"""The commands with their options, and the exit codes and messages of errors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, cast

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Checked, Reindexed, Upgraded, __version__
from allsource_auth.cli.store_options import ApiKey, StoreOptions
from allsource_auth.cli.terminal import Counter, console, counter, progress_bar

__all__ = ["run"]

MIN_USERS = 10

MAX_CALLERS = 1000

Store = Annotated[StoreOptions, Parameter(name="*")]
UNNAMED = StoreOptions()

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]


def run(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` name and return the exit code."""
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
        return _report(str(error), 2)
    try:
        return command(*bound.args, **bound.kwargs) or 0
    except BrokenPipeError:
        raise
    except (AllsourceAuthError, OSError, BaseExceptionGroup) as error:
        first = _first(error)
        if not isinstance(first, AllsourceAuthError | OSError):
            raise
        return _report(str(first), 1)


def demo(
    store: Store = UNNAMED,
    *,
    users: Annotated[int, Parameter(validator=Number(gte=MIN_USERS))] = 1000,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run the main tasks once, on a real file or on an Allsource, and check the result of every step.

    Signs users up and in, signs up many callers with one email at the same time, updates, revokes, deletes, restores and
    reverts. Then shows the history of one user, counts, and the latency of reads of the latest state. The exit code is 1 if a
    check failed. Without --data and --core it works on a temporary file. A file named with --data is created if it does not
    exist, and is kept.

    Parameters
    ----------
    users
        Number of users to sign up; at least 10.
    json
        Print one JSON document instead of tables.
    """
    from allsource_auth.cli.demo import demonstrate
    from allsource_auth.cli.demo_report import show_json, show_tables

    if conflict := store.conflict():
        return _report(conflict, 2)
    with TemporaryDirectory(prefix="allsource-auth-") as folder, progress_bar(sys.stderr) as progress:
        opened = store.store(default=Path(folder) / "demo.db")
        report = asyncio.run(demonstrate(opened, users=users, progress=progress))
    if not store.missing():
        report.kept_at = str(store)
    if json:
        show_json(report, sys.stdout)
    else:
        show_tables(report, console(sys.stdout))
    if report.failed:
        return _report(f"{len(report.failed)} checks failed: {'; '.join(report.failed)}", 1)
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
    """Run a local Allsource for development: the HTTP API of Core and of the Query Service on an embedded file.

    Stops on Ctrl-C or SIGTERM.

    Parameters
    ----------
    data
        The file with the events; it is created if it does not exist. Without this option the events are in memory and are lost
        when the server stops.
    host
        The address to listen on. As on a real Core, anyone who can connect to it can read and write all events.
    port
        The port of Core; 0 selects a free port.
    query_port
        The port of the Query Service; 0 selects a free port.
    api_key
        The key that the Query Service and the event feed require. Arguments are visible in the list of processes, so prefer the
        environment variable.
    tenant
        The tenant of the API key.
    generation
        The version of Core whose replies the server gives.
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
    store: Store = UNNAMED,
    *,
    repair: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Check a whole store for inconsistencies. The exit code is 1 if findings are left.

    Finds claims and index entries that are missing or refer to nothing, incomplete cascades, two entities with one unique
    value, and events that cannot be decoded.

    Parameters
    ----------
    repair
        Repair what needs no decision: everything except duplicates and events that cannot be decoded.
    json
        Print one JSON document instead of a table.
    """
    from allsource_auth.cli.maintenance import show_checked

    if message := store.conflict() or store.missing():
        return _report(message, 2)
    with counter(sys.stderr) as progress:
        checked = asyncio.run(_checked(store, repair, progress))
    show_checked(checked, sys.stdout, json=json)
    return _report(f"{len(checked.remaining)} findings are left", 1) if checked.remaining else 0


def upgrade(
    store: Store = UNNAMED,
    *,
    no_older_process_runs: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the event format of a store, or raise it to the newest. The exit code is 1 if it can be raised and was not.

    Parameters
    ----------
    no_older_process_runs
        Confirm that no process of an older version uses the store, and raise the format.
    json
        Print one JSON document instead of a sentence.
    """
    from allsource_auth.cli.maintenance import show_upgraded

    if message := store.conflict() or store.missing():
        return _report(message, 2)
    upgraded = asyncio.run(_upgraded(store, dry_run=not no_older_process_runs))
    show_upgraded(upgraded, sys.stdout, done=no_older_process_runs, json=json)
    if upgraded.before == upgraded.after or no_older_process_runs:
        return 0
    return _report("stop all processes of older versions, then run this again with --no-older-process-runs", 1)


def reindex(
    store: Store = UNNAMED,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Index entities that other programs wrote, such as the Rust crate. The exit code is 1 if a finding needs a decision.

    Writes the claims and index entries that existing entities lack. Reports two entities with one unique value, and events that
    cannot be decoded. The command may run while the store is in use, and may be repeated.

    Parameters
    ----------
    json
        Print one JSON document instead of a table.
    """
    from allsource_auth.cli.maintenance import show_reindexed

    if message := store.conflict() or store.missing():
        return _report(message, 2)
    with counter(sys.stderr) as progress:
        reindexed = asyncio.run(_reindexed(store, progress))
    show_reindexed(reindexed, sys.stdout, json=json)
    undecided = len(reindexed.duplicates) + len(reindexed.undecodable)
    return _report(f"{undecided} findings need a decision", 1) if undecided else 0


def bench(
    store: Store = UNNAMED,
    *,
    seconds: Annotated[int, Parameter(validator=Number(gte=1, lte=3600))] = 10,
    count: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000_000))] = 200_000,
    callers: str | None = None,
    write: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure the latency of reads of the latest state: p50, p90, p99, p99.9. Writes nothing without --write.

    Scans up to a few thousand events for sessions and users that exist, those of the last hour, day and month first, and then
    reads up to 500 of each in random order. Every reply is checked; the exit code is 1 if one is wrong. The callers form a
    closed loop: each one makes its next call after the previous one has returned. A slow store therefore receives fewer
    requests, and the latencies do not include the time that requests at a fixed rate would wait. On a file, concurrent reads
    run one after another. Ctrl-C stops the measurement and prints the results so far.

    Parameters
    ----------
    seconds
        Duration of the whole measurement, after the scan for sessions and users. Calls that are pending at its end may take
        ten seconds more.
    count
        Maximum number of measured calls, divided equally among the operations and numbers of callers. Calls that find sessions
        and users, open connections, or read again what was not found are not included.
    callers
        Number of concurrent callers, up to 1000: one number or several, such as 1,16. Default: 1,16 over HTTP and 1 on a
        file.
    write
        Create 20 users and 100 sessions first, read them as well, and measure sign-ins, up to 500 for each number of callers.
        All of them are deleted at the end, also after Ctrl-C and errors; they remain only after a second Ctrl-C or a kill.
        Deletions are tombstones: the events stay in the log.
    json
        Print one JSON document instead of tables.
    """
    from allsource_auth.cli.bench import measure
    from allsource_auth.cli.bench_report import BenchReport, live_report, show_report

    if message := store.conflict() or store.missing():
        return _report(message, 2)
    numbers = _numbers(callers or ("1" if store.core is None else "1,16"))
    if not numbers:
        return _report(f"--callers takes whole numbers from 1 to {MAX_CALLERS}, such as 1,16", 2)
    options = {"seconds": seconds, "count": count, "callers": numbers, "write": write}
    report = BenchReport(str(store), options)
    try:
        with live_report(report, sys.stderr) as show:
            asyncio.run(measure(store.store(), report, show=show))
    finally:
        if report.calls:
            show_report(report, sys.stdout, as_json=json)
        if report.undeleted is not None:
            _report(f"temporary users were not deleted; their emails begin with {report.undeleted}", 1)
    if not report.rows:
        empty = f"tenant {store.tenant} has no user and no session in the {report.scanned:,} events scanned"
        return _report(f"{empty}; name another --tenant, or use --write to create and delete temporary ones", 1)
    return _report(f"{report.wrong:,} replies were wrong", 1) if report.wrong else 0


async def _checked(store: StoreOptions, repair: bool, progress: Counter) -> Checked:
    async with AllsourceAuthAdapter.with_store(store.store()) as adapter:
        return await adapter.check(repair=repair, progress=progress)


async def _upgraded(store: StoreOptions, *, dry_run: bool) -> Upgraded:
    async with AllsourceAuthAdapter.with_store(store.store()) as adapter:
        return await adapter.upgrade(dry_run=dry_run)


async def _reindexed(store: StoreOptions, progress: Counter) -> Reindexed:
    async with AllsourceAuthAdapter.with_store(store.store()) as adapter:
        return await adapter.reindex(progress=progress)


def _numbers(text: str) -> list[int]:
    """The distinct numbers of callers in ``text``, ascending; empty if ``text`` is invalid."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= MAX_CALLERS for part in parts):
        return []
    return sorted({int(part) for part in parts})


def _first(error: BaseException) -> BaseException:
    """``error``, or the first exception in it if it is a group."""
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error


def _report(message: str, code: int) -> int:
    """Print a message to stderr and return the exit code."""
    sys.stdout.flush()
    sys.stderr.write(f"allsource-auth: {message}\n")
    return code
