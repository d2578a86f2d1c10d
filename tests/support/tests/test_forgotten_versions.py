"""``Faults.restart(cold=True)``: 0.23 forgets versions until the tenant is queried.

``docs/reference/allsource-api.md``, "Restarts", has the facts.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.support.api_client import ApiClient
from tests.support.faults import Faults


@pytest.fixture
async def restarted(local_older: ApiClient, faults: Faults) -> ApiClient:
    """A local Core with a stream of three events, after a restart."""
    for n in range(3):
        await local_older.appended("user:1", n, expected_version=n)
    faults.restart(cold=True)
    return local_older


async def test_existing_stream_counts_from_zero(restarted: ApiClient) -> None:
    assert (await restarted.appended("user:1", expected_version=0))["version"] == 1
    assert (await restarted.appended("user:1", expected_version=1))["version"] == 2


async def test_guard_with_the_true_version_is_refused_with_the_forgotten_one(restarted: ApiClient) -> None:
    refused = await restarted.append("user:1", expected_version=3)
    assert refused.status_code == 409
    assert refused.json() == {"error": "version_conflict", "expected_version": 3, "current_version": 0}
    await restarted.appended("user:1")
    assert (await restarted.append("user:1", expected_version=3)).json()["current_version"] == 1


async def test_unguarded_appends_count_from_zero(restarted: ApiClient) -> None:
    assert [(await restarted.appended("user:1"))["version"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("by", [{"entity_id": "user:1"}, {"entity_id": "another", "limit": "1"}, {"limit": "0"}])
async def test_any_query_of_the_tenant_restores_the_versions(restarted: ApiClient, by: dict[str, str]) -> None:
    await restarted.appended("user:1", expected_version=0)
    await restarted.page(**by)
    assert (await restarted.append("user:1", expected_version=0)).json()["current_version"] == 4
    assert (await restarted.append("user:1", expected_version=1)).status_code == 409
    assert (await restarted.appended("user:1", expected_version=4))["version"] == 5
    assert (await restarted.page(entity_id="user:1"))["entity_version"] == 5


async def test_query_of_another_or_no_tenant_restores_nothing(restarted: ApiClient) -> None:
    await restarted.page(tenant_id="other", entity_id="user:1")
    await restarted.client.get("/api/v1/events/query", params={"entity_id": "user:1"})
    assert (await restarted.append("user:1", expected_version=0)).status_code == 200


async def test_one_of_concurrent_creations_after_a_restart_wins(restarted: ApiClient) -> None:
    answers = await asyncio.gather(*(restarted.append("user:1", n, expected_version=0) for n in range(16)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 15]


async def test_new_streams_are_counted_correctly(restarted: ApiClient) -> None:
    assert (await restarted.appended("user:2", expected_version=0))["version"] == 1
    assert (await restarted.append("user:2", expected_version=0)).status_code == 409
    assert (await restarted.appended("user:2", expected_version=1))["version"] == 2


async def test_second_restart_forgets_again(restarted: ApiClient, faults: Faults) -> None:
    await restarted.appended("user:1", expected_version=0)
    await restarted.page()
    faults.restart(cold=True)
    assert (await restarted.appended("user:1", expected_version=0))["version"] == 1


async def test_warm_restart_keeps_the_versions(local_older: ApiClient, faults: Faults) -> None:
    await local_older.appended("user:1")
    faults.restart(cold=False)
    assert (await local_older.append("user:1", expected_version=0)).status_code == 409


async def test_newer_versions_keep_the_versions(local: ApiClient, faults: Faults) -> None:
    await local.appended("user:1")
    faults.restart(cold=True)
    assert (await local.append("user:1", expected_version=0)).json()["current_version"] == 1
    assert (await local.appended("user:1", expected_version=1))["version"] == 2


async def test_clear_restores_the_versions(restarted: ApiClient, faults: Faults) -> None:
    faults.clear()
    assert (await restarted.append("user:1", expected_version=0)).json()["current_version"] == 3
