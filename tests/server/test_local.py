"""What a local Allsource says of itself, and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allsource_auth import InvalidInput, NewEvent, SqliteLog, SqliteStore
from allsource_auth.server import LocalAllsource
from tests.support.api_client import TENANT, ApiClient, local_api


@pytest.mark.parametrize("generation", ["0.23", "0.27"])
async def test_it_does_not_pose_as_the_real_one(log: SqliteLog, generation: Any) -> None:
    async with local_api(generation, log) as api:
        found = (await api.client.get("/health")).json()
    assert (found["service"], found["status"]) == ("allsource-auth-local", "healthy")
    assert found["version"] == f"{generation}.0"


async def test_the_health_of_real_cores_has_the_same_members(api: ApiClient) -> None:
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
def test_values_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        LocalAllsource(SqliteLog(None), **options)


def test_its_repr_has_no_keys(log: SqliteLog) -> None:
    text = repr(LocalAllsource(log, api_keys={"ask_secret": TENANT}))
    assert "0.27" in text
    assert "secret" not in text


async def test_it_shares_a_file_with_embedded_stores(tmp_path: Path) -> None:
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


async def test_a_file_that_fails_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    log = SqliteLog(path)
    async with local_api("0.27", log) as api:
        for answer in (await api.append("user:1", "canary"), await api.query()):
            assert answer.status_code == 500
            assert answer.json()["error"].startswith("Storage error: ")
            assert "canary" not in answer.text
    await log.close()
