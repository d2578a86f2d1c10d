"""A process that is killed in the middle of its work, again and again."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, SqliteLog, SqliteStore
from tests.processes.conftest import StartChild
from tests.support.events import metadata, payload, whole_log
from tests.support.exploring import size
from tests.support.ownership import assert_sound


class Acknowledged:
    """What the killed processes said they had done, and what each worker was doing when it was killed."""

    def __init__(self) -> None:
        self.emails: dict[str, str | None] = {}
        """Of every user that was acknowledged; ``None``: its deletion was."""
        self.living: dict[str, set[str]] = defaultdict(set)
        self.revoked: set[str] = set()
        self.doing: dict[str, dict[str, Any]] = {}
        self.count = 0

    def hear(self, report: dict[str, Any]) -> None:
        worker = report["worker"]
        if "doing" in report:
            self.doing[worker] = report
            return
        self.count += 1
        del self.doing[worker]
        user, done = report["id"], report["done"]
        if done in ("sign up", "update"):
            self.emails[user] = report["email"]
        elif done == "delete":
            self.emails[user] = None
            self.revoked |= self.living.pop(user, set())
        elif done == "sign in":
            self.living[user].add(report["token"])
        else:
            self.living[user].discard(report["token"])
            self.revoked.add(report["token"])

    async def assert_kept(self, adapter: AllsourceAuthAdapter) -> None:
        under_way = {report["id"]: report for report in self.doing.values()}
        for user, email in self.emails.items():
            found = await adapter.users.get(user)
            allowed = [email]
            if (open_step := under_way.get(user)) and open_step["doing"] in ("update", "delete"):
                allowed.append(open_step.get("email"))
            assert (found.email if found else None) in allowed
        for user, tokens in self.living.items():
            open_step = under_way.get(user, {})
            for token in tokens:
                if await adapter.sessions.get(token) is None:
                    assert open_step.get("doing") == "delete" or open_step.get("token") == token
        assert await adapter.sessions.get_many(self.revoked) == {}

    async def take_stock(self, adapter: AllsourceAuthAdapter) -> None:
        """Settle what was under way by what became of it: from now on it has to stay so."""
        for report in self.doing.values():
            user = report["id"]
            found = await adapter.users.get(user)
            if found is not None or user in self.emails:
                self.emails[user] = found.email if found else None
            sessions = {session.token for session in await adapter.sessions.list_for_user(user)}
            self.revoked |= self.living.pop(user, set()) - sessions
            if sessions:
                self.living[user] = sessions
        self.doing.clear()


async def assert_no_half_plan(store: EventStore) -> None:
    """Every claim and every list entry has the commit point of its operation."""
    commits: dict[str, set[str]] = defaultdict(set)
    log = await whole_log(store)
    for event in log:
        if not event.stream.startswith("auth-idx:"):
            commits[metadata(event)["op"]].add(event.stream)
    for event in log:
        said = payload(event)
        if event.type in ("auth.index.claimed", "auth.index.released"):
            assert said["owner"] in commits[metadata(event)["op"]]
        elif event.type in ("auth.index.added", "auth.index.removed"):
            assert said["stream"] in commits[metadata(event)["op"]]


@pytest.mark.parametrize("kills", [3, pytest.param(size(12, 200), marks=pytest.mark.crash)])
async def test_killed_process_loses_nothing_that_it_acknowledged(start: StartChild, path: Path, kills: int) -> None:
    acknowledged = Acknowledged()
    drawn = random.Random(kills)
    for kill in range(kills):
        child = await start("load", kill)
        await child.ready()
        child.go()
        for _ in range(drawn.randrange(20, 400)):
            report = await child.told()
            assert report is not None
            acknowledged.hear(report)
        for report in await child.kill():
            acknowledged.hear(report)
        store = SqliteStore(SqliteLog(path, busy_timeout=5.0))
        async with AllsourceAuthAdapter.with_store(store) as adapter:
            await acknowledged.assert_kept(adapter)
            await acknowledged.take_stock(adapter)
            await assert_sound(adapter)
            await assert_no_half_plan(store)
            await adapter.users.create(id=f"after-{kill}", email=f"after-{kill}@example.org")
    assert acknowledged.count > 10 * kills
