"""``LocalAllsource``: health, options, hooks, sharing a file with embedded stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from allsource_auth import InvalidInput, NewEvent, SqliteLog, SqliteStore
from allsource_auth.server import LocalAllsource, Middleware
from allsource_auth.server.log_access import LogAccess
from tests.support.api_client import TENANT, ApiClient, local_api


@pytest.mark.parametrize("generation", ["0.23", "0.27"])
async def test_health_names_the_local_service_and_its_generation(log: SqliteLog, generation: Any) -> None:
    async with local_api(generation, log) as api:
        found = (await api.client.get("/health")).json()
    assert (found["service"], found["status"]) == ("allsource-auth-local", "healthy")
    assert found["version"] == f"{generation}.0"


async def test_health_has_the_members_of_a_real_core(api: ApiClient) -> None:
    found = (await api.client.get("/health")).json()
    assert found.keys() == {"replication", "role", "service", "status", "system_streams", "version"}


@pytest.mark.parametrize(
    "options",
    [
        {"generation": "0.24"},
        {"envelope": "other"},
        {"max_requests": 0},
        {"max_waiting": -1},
        {"patience": -1.0},
        {"api_keys": {"": TENANT}},
    ],
)
def test_invalid_option_is_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        LocalAllsource(SqliteLog(None), **options)


def test_repr_does_not_contain_keys(log: SqliteLog) -> None:
    text = repr(LocalAllsource(log, api_keys={"ask_secret": TENANT}))
    assert "0.27" in text
    assert "secret" not in text


async def test_server_shares_a_file_with_embedded_stores(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.db")
    store = SqliteStore(log, TENANT)
    async with local_api("0.27", log) as api:
        await api.appended("user:1", {"n": 1}, metadata={"op": "x"})
        event = NewEvent(type="auth.user.updated", stream="user:1", payload=b'{"n": 2}', metadata=b"", guard=1)
        await store.append([event])
        assert await api.payloads(entity_id="user:1") == [{"n": 1}, {"n": 2}]
        assert (await api.append("user:1", expected_version=1)).status_code == 409
        assert [bytes(found.payload) for found in await store.read("user:1")] == [b'{"n":1}', b'{"n": 2}']
    await store.close()


async def test_unusable_file_is_a_storage_error_without_content(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    log = SqliteLog(path)
    async with local_api("0.27", log) as api:
        for answer in (await api.append("user:1", "canary"), await api.query()):
            assert answer.status_code == 500
            assert answer.json()["error"].startswith("Storage error: ")
            assert "canary" not in answer.text
    await log.close()


class RecordingHooks(Middleware):
    """Records the order in which the hooks are called and how a request passes through them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def attach(self, server: LocalAllsource) -> None:
        self.calls.append(f"attach {server.generation}")

    def log_access(self, access: LogAccess) -> LogAccess:
        self.calls.append("log")
        return access

    def before_admission(self, app: ASGIApp) -> ASGIApp:
        return self._recording("before", app)

    def after_admission(self, app: ASGIApp) -> ASGIApp:
        return self._recording("after", app)

    def _recording(self, name: str, app: ASGIApp) -> ASGIApp:
        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            self.calls.append(f"{name} {scope['path']}")
            await app(scope, receive, send)

        return recorded


async def test_middleware_wraps_both_ports_before_and_after_admission(log: SqliteLog) -> None:
    hooks = RecordingHooks()
    local = LocalAllsource(log, middleware=hooks)
    assert hooks.calls == ["attach 0.27", "log"]
    for app in (local.core, local.query_service):
        hooks.calls.clear()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://local") as client:
            assert (await client.get("/health")).status_code == 200
        assert hooks.calls == ["before /health", "after /health"]


async def test_default_middleware_changes_nothing(log: SqliteLog) -> None:
    async with local_api("0.27", log, middleware=Middleware()) as api:
        await api.appended("user:1", 1)
        assert await api.payloads() == [1]
