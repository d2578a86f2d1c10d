"""A worker process on a file or an Allsource: ``python -m tests.processes.child TASK LOCATION ...``.

It reports on its standard output, one JSON object per line: ``ready`` when its adapter is open, then, after it has read a
line from its standard input, the progress or the result of its task.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from allsource_auth import AllsourceAuthAdapter, AllsourceAuthError, Conflict
from tests.support.crowds import spellings
from tests.support.sign_ups import sign_up
from tests.support.updates import writes

WORKERS = 6


def open_adapter(location: str) -> AllsourceAuthAdapter:
    """Open an adapter on the Allsource with this URL, or on the file with this path."""
    return AllsourceAuthAdapter(location) if location.startswith("http") else AllsourceAuthAdapter.embedded(location)


def report(**facts: Any) -> None:
    """Report in one write, so that a killed process leaves complete lines."""
    os.write(1, json.dumps(facts).encode() + b"\n")


async def sign_ups(adapter: AllsourceAuthAdapter, text: str, first: str, count: str) -> None:
    """Sign up concurrently with ``count`` spellings of one email."""
    wanted = spellings(text, int(first) + int(count))[int(first) :]
    outcomes = await asyncio.gather(*[adapter.users.create(email=email) for email in wanted], return_exceptions=True)
    counted = Counter(type(outcome).__name__ for outcome in outcomes)
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if isinstance(outcome, BaseException)), counted
    report(**counted)


async def updates(adapter: AllsourceAuthAdapter, id: str, first: str, step: str, count: str) -> None:  # noqa: A002
    """Write each ``step``-th of ``count`` updates, from ``first`` on, concurrently."""
    mine = writes(int(count))[int(first) :: int(step)]
    await asyncio.gather(*[adapter.users.update(id, **{field: value}) for field, value in mine])
    report(User=len(mine))


async def transactions(adapter: AllsourceAuthAdapter, wanted: str, first: str, count: str) -> None:
    """Sign up ``count`` users concurrently, each as a transaction, all with one ``email`` or one ``username``."""

    async def run(number: int) -> None:
        async with adapter.transaction() as tx:
            await sign_up(tx, *rival(wanted, number))

    numbers = range(int(first), int(first) + int(count))
    outcomes = await asyncio.gather(*map(run, numbers), return_exceptions=True)
    errors = Counter(type(outcome).__name__ for outcome in outcomes if outcome is not None)
    assert set(errors) <= {"Conflict"}, errors
    report(winners=[number for number, outcome in zip(numbers, outcomes, strict=True) if outcome is None])


def rival(wanted: str, number: int) -> tuple[str, str]:
    """Username and email of a user who has the same ``email`` (in another spelling) or ``username`` as the others."""
    if wanted == "email":
        return f"name-{number}", spellings("wanted.by.everybody@example.org", number + 1)[number]
    return "wanted", f"person{number}@example.org"


async def consume(adapter: AllsourceAuthAdapter, identifier: str, count: str, *tokens: str) -> None:
    """Consume one token after another, each with ``count`` concurrent calls."""
    taken = []
    for token in tokens:
        found = await asyncio.gather(*[adapter.verifications.consume(identifier, token) for _ in range(int(count))])
        taken += [verification.value for verification in found if verification is not None]
    report(taken=taken, nothing=int(count) * len(tokens) - len(taken))


async def use(adapter: AllsourceAuthAdapter, key_hash: str, count: str) -> None:
    """Use one API key with ``count`` concurrent calls."""
    uses = await asyncio.gather(*[adapter.api_keys.use(key_hash) for _ in range(int(count))])
    refusals = Counter(str(use.reason) for use in uses if not use.allowed)
    report(left=[use.remaining for use in uses if use.allowed], **refusals)


async def load(adapter: AllsourceAuthAdapter, seed: str) -> None:
    """Run mutations until the process is killed. Each is reported before its start and after its acknowledgement."""
    await asyncio.gather(*[_work(adapter, f"{seed}-{number}") for number in range(WORKERS)])


async def _work(adapter: AllsourceAuthAdapter, worker: str) -> None:
    generator = random.Random(worker)
    users: list[str] = []
    sessions: list[str] = []
    number = 0
    while True:
        number += 1
        task = generator.choice(("sign up", "update", "update", "delete", "sign in", "sign in", "sign out"))
        if task == "sign up" or not users:
            id = f"{worker}-{number}"  # noqa: A001
            report(worker=worker, doing="sign up", id=id)
            await adapter.users.create(id=id, email=f"{id}@Example.org", username=id)
            users.append(id)
            report(worker=worker, done="sign up", id=id, email=f"{id}@Example.org")
        elif task == "update":
            id, email = generator.choice(users), f"{worker}-{number}@Example.org"  # noqa: A001
            report(worker=worker, doing="update", id=id, email=email)
            await adapter.users.update(id, email=email, name=str(number))
            report(worker=worker, done="update", id=id, email=email)
        elif task == "delete":
            id = users.pop(generator.randrange(len(users)))  # noqa: A001
            report(worker=worker, doing="delete", id=id)
            await adapter.users.delete(id)
            sessions = [token for token in sessions if not token.startswith(f"{id}/")]
            report(worker=worker, done="delete", id=id)
        elif task == "sign in":
            id = generator.choice(users)  # noqa: A001
            report(worker=worker, doing="sign in", id=id)
            token = f"{id}/{number}"
            end = datetime.now(UTC) + timedelta(days=1)
            await adapter.sessions.create(user_id=id, expires_at=end, token=token)
            sessions.append(token)
            report(worker=worker, done="sign in", id=id, token=token)
        elif sessions:
            token = sessions.pop(generator.randrange(len(sessions)))
            report(worker=worker, doing="sign out", id=token.split("/")[0], token=token)
            await adapter.sessions.delete(token)
            report(worker=worker, done="sign out", id=token.split("/")[0], token=token)


TASKS: dict[str, Callable[..., Awaitable[None]]] = {
    "sign-ups": sign_ups,
    "transactions": transactions,
    "updates": updates,
    "consume": consume,
    "use": use,
    "load": load,
}


async def main() -> None:
    task, location, *arguments = sys.argv[1:]
    async with open_adapter(location) as adapter:
        try:
            await adapter.users.get("nobody")
            report(ready=True)
            await asyncio.to_thread(sys.stdin.readline)
            await TASKS[task](adapter, *arguments)
        except AllsourceAuthError as error:
            report(failed=repr(error))
            raise


if __name__ == "__main__":
    asyncio.run(main())
