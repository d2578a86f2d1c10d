"""A process that is killed repeatedly during its mutations."""

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
    """The acknowledged mutations of the killed processes, and the mutations in progress when they were killed."""

    def __init__(self) -> None:
        self.emails: dict[str, str | None] = {}
        """The email of each user; ``None`` after its deletion."""
        self.sessions: dict[str, set[str]] = defaultdict(set)
        self.revoked: set[str] = set()
        self.in_progress: dict[str, dict[str, Any]] = {}
        self.count = 0

    def add(self, report: dict[str, Any]) -> None:
        worker = report["worker"]
        if "doing" in report:
            self.in_progress[worker] = report
            return
        self.count += 1
        del self.in_progress[worker]
        user, done = report["id"], report["done"]
        if done in ("sign up", "update"):
            self.emails[user] = report["email"]
        elif done == "delete":
            self.emails[user] = None
            self.revoked |= self.sessions.pop(user, set())
        elif done == "sign in":
            self.sessions[user].add(report["token"])
        else:
            self.sessions[user].discard(report["token"])
            self.revoked.add(report["token"])

    async def assert_stored(self, adapter: AllsourceAuthAdapter) -> None:
        in_progress = {report["id"]: report for report in self.in_progress.values()}
        for user, email in self.emails.items():
            found = await adapter.users.get(user)
            allowed = [email]
            if (open_step := in_progress.get(user)) and open_step["doing"] in ("update", "delete"):
                allowed.append(open_step.get("email"))
            assert (found.email if found else None) in allowed
        for user, tokens in self.sessions.items():
            open_step = in_progress.get(user, {})
            for token in tokens:
                if await adapter.sessions.get(token) is None:
                    assert open_step.get("doing") == "delete" or open_step.get("token") == token
        assert await adapter.sessions.get_many(self.revoked) == {}

    async def adopt_mutations_in_progress(self, adapter: AllsourceAuthAdapter) -> None:
        """Add the current results of the mutations in progress to the expected state."""
        for report in self.in_progress.values():
            user = report["id"]
            found = await adapter.users.get(user)
            if found is not None or user in self.emails:
                self.emails[user] = found.email if found else None
            sessions = {session.token for session in await adapter.sessions.list_for_user(user)}
            self.revoked |= self.sessions.pop(user, set()) - sessions
            if sessions:
                self.sessions[user] = sessions
        self.in_progress.clear()


async def assert_every_index_event_has_its_commit(store: EventStore) -> None:
    """Check that every claim and index entry has the commit point of its operation."""
    commits: dict[str, set[str]] = defaultdict(set)
    log = await whole_log(store)
    for event in log:
        if not event.stream.startswith("auth-idx:"):
            commits[metadata(event)["op"]].add(event.stream)
    for event in log:
        state = payload(event)
        if event.type in ("auth.index.claimed", "auth.index.released"):
            assert state["owner"] in commits[metadata(event)["op"]]
        elif event.type in ("auth.index.added", "auth.index.removed"):
            assert state["stream"] in commits[metadata(event)["op"]]


@pytest.mark.parametrize("kills", [3, pytest.param(size(12, 200), marks=pytest.mark.crash)])
async def test_acknowledged_mutations_survive_a_kill_of_the_process(start: StartChild, path: Path, kills: int) -> None:
    acknowledged = Acknowledged()
    generator = random.Random(kills)
    for kill in range(kills):
        child = await start("load", kill)
        await child.ready()
        child.go()
        for _ in range(generator.randrange(20, 400)):
            report = await child.report()
            assert report is not None
            acknowledged.add(report)
        for report in await child.kill():
            acknowledged.add(report)
        store = SqliteStore(SqliteLog(path, busy_timeout=5.0))
        async with AllsourceAuthAdapter.with_store(store) as adapter:
            await acknowledged.assert_stored(adapter)
            await acknowledged.adopt_mutations_in_progress(adapter)
            await assert_sound(adapter)
            await assert_every_index_event_has_its_commit(store)
            await adapter.users.create(id=f"after-{kill}", email=f"after-{kill}@example.org")
    assert acknowledged.count > 10 * kills
