"""A process that works on a file or, over HTTP, on an Allsource: ``python -m tests.processes.child TASK WHERE ...``.

It says ``ready`` once its adapter is open, waits for a line, works, and reports on its standard output, line by line.
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


def opened(where: str) -> AllsourceAuthAdapter:
    """An adapter on the Allsource with this URL, or on the file with this path."""
    return AllsourceAuthAdapter(where) if where.startswith("http") else AllsourceAuthAdapter.embedded(where)


def say(**facts: Any) -> None:
    """Report in one write, so that a killed process leaves whole lines."""
    os.write(1, json.dumps(facts).encode() + b"\n")


async def sign_ups(adapter: AllsourceAuthAdapter, text: str, first: str, count: str) -> None:
    """Sign up with ``count`` spellings of one email at once."""
    wanted = spellings(text, int(first) + int(count))[int(first) :]
    outcomes = await asyncio.gather(*[adapter.users.create(email=email) for email in wanted], return_exceptions=True)
    counted = Counter(type(outcome).__name__ for outcome in outcomes)
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if isinstance(outcome, BaseException)), counted
    say(**counted)


async def updates(adapter: AllsourceAuthAdapter, id: str, first: str, step: str, count: str) -> None:  # noqa: A002
    """Write every ``step``-th of ``count`` updates, from ``first`` on, at once."""
    mine = writes(int(count))[int(first) :: int(step)]
    await asyncio.gather(*[adapter.users.update(id, **{field: value}) for field, value in mine])
    say(User=len(mine))


async def transactions(adapter: AllsourceAuthAdapter, wanted: str, first: str, count: str) -> None:
    """Sign up ``count`` people at once, each as a transaction; all of them want one ``email``, or one ``username``."""

    async def run(number: int) -> None:
        async with adapter.transaction() as tx:
            await sign_up(tx, *rival(wanted, number))

    numbers = range(int(first), int(first) + int(count))
    outcomes = await asyncio.gather(*map(run, numbers), return_exceptions=True)
    errors = Counter(type(outcome).__name__ for outcome in outcomes if outcome is not None)
    assert set(errors) <= {"Conflict"}, errors
    say(winners=[number for number, outcome in zip(numbers, outcomes, strict=True) if outcome is None])


def rival(wanted: str, number: int) -> tuple[str, str]:
    """The username and the email of one of those who want the same ``email``, in other capitals, or ``username``."""
    if wanted == "email":
        return f"name-{number}", spellings("wanted.by.everybody@example.org", number + 1)[number]
    return "wanted", f"person{number}@example.org"


async def consume(adapter: AllsourceAuthAdapter, identifier: str, count: str, *tokens: str) -> None:
    """Consume one token after another, each ``count`` times at once."""
    taken = []
    for token in tokens:
        found = await asyncio.gather(*[adapter.verifications.consume(identifier, token) for _ in range(int(count))])
        taken += [verification.value for verification in found if verification is not None]
    say(taken=taken, nothing=int(count) * len(tokens) - len(taken))


async def use(adapter: AllsourceAuthAdapter, key_hash: str, count: str) -> None:
    """Use one API key ``count`` times at once."""
    uses = await asyncio.gather(*[adapter.api_keys.use(key_hash) for _ in range(int(count))])
    refusals = Counter(str(use.reason) for use in uses if not use.allowed)
    say(left=[use.remaining for use in uses if use.allowed], **refusals)


async def load(adapter: AllsourceAuthAdapter, seed: str) -> None:
    """Work for ever; every step is announced before and acknowledged after it."""
    await asyncio.gather(*[_work(adapter, f"{seed}-{number}") for number in range(WORKERS)])


async def _work(adapter: AllsourceAuthAdapter, worker: str) -> None:
    drawn = random.Random(worker)
    users: list[str] = []
    sessions: list[str] = []
    number = 0
    while True:
        number += 1
        task = drawn.choice(("sign up", "update", "update", "delete", "sign in", "sign in", "sign out"))
        if task == "sign up" or not users:
            id = f"{worker}-{number}"  # noqa: A001
            say(worker=worker, doing="sign up", id=id)
            await adapter.users.create(id=id, email=f"{id}@Example.org", username=id)
            users.append(id)
            say(worker=worker, done="sign up", id=id, email=f"{id}@Example.org")
        elif task == "update":
            id, email = drawn.choice(users), f"{worker}-{number}@Example.org"  # noqa: A001
            say(worker=worker, doing="update", id=id, email=email)
            await adapter.users.update(id, email=email, name=str(number))
            say(worker=worker, done="update", id=id, email=email)
        elif task == "delete":
            id = users.pop(drawn.randrange(len(users)))  # noqa: A001
            say(worker=worker, doing="delete", id=id)
            await adapter.users.delete(id)
            sessions = [token for token in sessions if not token.startswith(f"{id}/")]
            say(worker=worker, done="delete", id=id)
        elif task == "sign in":
            id = drawn.choice(users)  # noqa: A001
            say(worker=worker, doing="sign in", id=id)
            token = f"{id}/{number}"
            end = datetime.now(UTC) + timedelta(days=1)
            await adapter.sessions.create(user_id=id, expires_at=end, token=token)
            sessions.append(token)
            say(worker=worker, done="sign in", id=id, token=token)
        elif sessions:
            token = sessions.pop(drawn.randrange(len(sessions)))
            say(worker=worker, doing="sign out", id=token.split("/")[0], token=token)
            await adapter.sessions.delete(token)
            say(worker=worker, done="sign out", id=token.split("/")[0], token=token)


TASKS: dict[str, Callable[..., Awaitable[None]]] = {
    "sign-ups": sign_ups,
    "transactions": transactions,
    "updates": updates,
    "consume": consume,
    "use": use,
    "load": load,
}


async def main() -> None:
    task, where, *arguments = sys.argv[1:]
    async with opened(where) as adapter:
        try:
            await adapter.users.get("nobody")
            say(ready=True)
            await asyncio.to_thread(sys.stdin.readline)
            await TASKS[task](adapter, *arguments)
        except AllsourceAuthError as error:
            say(failed=repr(error))
            raise


if __name__ == "__main__":
    asyncio.run(main())
