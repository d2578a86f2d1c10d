"""Programs that fork, or end without closing: ``python -m tests.event_loops.programs NAME LOCATION``.

The location is a URL, the path of a file, or ``memory``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import warnings

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Storage


def open_adapter(location: str) -> AllsourceAuthAdapter:
    if location.startswith("http"):
        return AllsourceAuthAdapter(location)
    return AllsourceAuthAdapter.embedded(None if location == "memory" else location)


async def use(adapter: AllsourceAuthAdapter) -> None:
    """Write and read, with several connections over HTTP."""
    user = await adapter.users.create(name="Ada")
    assert await asyncio.gather(*[adapter.users.get(user.id) for _ in range(3)]) == [user] * 3
    assert user.id in [one.id async for one in adapter.users.scan()]


async def outcome_of_use(adapter: AllsourceAuthAdapter) -> str:
    """Use and close an adapter; return what happened."""
    try:
        await use(adapter)
    except Storage as error:
        outcome = f"Storage {error.reason}"
    except AllsourceAuthError as error:
        outcome = type(error).__name__
    else:
        outcome = "works"
    await adapter.aclose()
    await adapter.aclose()
    return outcome


def fork(location: str) -> None:
    """Fork before, during and after the use of an adapter; report how the child process can use that one or a new one."""
    for state in ("unused", "open", "closed"):
        for choice in ("inherited", "new"):
            adapter = open_adapter(location)
            if state != "unused":
                asyncio.run(use(adapter))
            if state == "closed":
                asyncio.run(adapter.aclose())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python 3.12 and later warn about the threads of this process
                child = os.fork()
            if child == 0:
                signal.alarm(60)
                used = adapter if choice == "inherited" else open_adapter(location)
                print(json.dumps([state, choice, asyncio.run(outcome_of_use(used))]), flush=True)
                return
            assert os.waitpid(child, 0)[1] == 0
            if state != "closed":
                asyncio.run(use(adapter))
                asyncio.run(adapter.aclose())


def leave_open(location: str) -> None:
    """End without closing the adapter."""
    asyncio.run(use(open_adapter(location)))


def leave_running(location: str) -> None:
    """End from within the event loop, while calls are in flight."""

    async def run() -> None:
        adapter = open_adapter(location)
        await use(adapter)
        calls = [asyncio.ensure_future(adapter.users.create(name="Ada")) for _ in range(5)]
        await asyncio.sleep(0)
        sys.exit(0 if not any(call.done() for call in calls) else 1)

    asyncio.run(run())


if __name__ == "__main__":
    {"fork": fork, "leave-open": leave_open, "leave-running": leave_running}[sys.argv[1]](sys.argv[2])
