"""The options of the adapter are validated on construction, and errors name the option."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from allsource_auth import AllsourceAuthAdapter, InvalidInput
from tests.support.canaries import CANARY, email
from tests.support.clocks import START, ManualClock

BAD_TENANTS: dict[str, Any] = {
    "empty": "",
    "blank": "a b",
    "slash": "a/b",
    "colon": f"{CANARY}:x",
    "dot": "a.b",
    "zero": "a\x00",
    "too-long": "x" * 65,
    "too-long-in-bytes": "é" * 33,
    "surrogate": "\ud800",
    "none": None,
    "number": 5,
    "bytes": b"a",
}


@pytest.mark.parametrize("tenant_id", BAD_TENANTS.values(), ids=BAD_TENANTS)
def test_bad_tenant_is_refused(tenant_id: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter.embedded(tenant_id=tenant_id)
    assert caught.value.field == "tenant_id"


@pytest.mark.parametrize("tenant_id", ["a", "x" * 64, "Team_7-b", "é" * 32])
async def test_good_tenant_works(tenant_id: str) -> None:
    async with AllsourceAuthAdapter.embedded(tenant_id=tenant_id) as adapter:
        user = await adapter.users.create(email=email("a"))
        assert await adapter.users.get_by_email(email("a")) == user


@pytest.mark.parametrize("durability", ["fast", "", "FULL", None, True, 1, ["full"]])
def test_bad_durability_is_refused(durability: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter.embedded(durability=durability)
    assert caught.value.field == "durability"


@pytest.mark.parametrize("path", ["", "a\x00b", b"auth.db", 5, object()])
def test_bad_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter.embedded(path)
    assert caught.value.field == "path"


@pytest.mark.parametrize(
    "clock",
    [5, START, lambda: 5, lambda: None, lambda: datetime(2026, 1, 1)],  # noqa: DTZ001
    ids=["number", "moment", "returns-number", "returns-none", "returns-naive"],
)
def test_bad_clock_is_refused(clock: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter.embedded(clock=clock)
    assert caught.value.field == "clock"


@pytest.mark.parametrize("durability", ["full", "normal"])
async def test_file_is_private_and_keeps_everything(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "auth.db"
    async with AllsourceAuthAdapter.embedded(path, durability=durability) as adapter:
        user = await adapter.users.create(email=email("a"))
    assert path.stat().st_mode & 0o777 == 0o600
    async with AllsourceAuthAdapter.embedded(os.fspath(path)) as adapter:
        assert await adapter.users.get_by_email(email("a")) == user


async def test_data_in_memory_is_lost_on_closing() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        await adapter.users.create(id="u")
    async with AllsourceAuthAdapter.embedded() as adapter:
        assert await adapter.users.get("u") is None


async def test_clock_dates_entities_and_events() -> None:
    async with AllsourceAuthAdapter.embedded(clock=ManualClock()) as adapter:
        user = await adapter.users.create()
        (change,) = await adapter.users.history(user.id)
        assert user.created_at == change.at == START


async def test_default_clock_is_the_current_time() -> None:
    before = datetime.now(UTC)
    async with AllsourceAuthAdapter.embedded() as adapter:
        user = await adapter.users.create()
    assert before <= user.created_at <= datetime.now(UTC)


def environment(**variables: str) -> dict[str, str]:
    return {f"ALLSOURCE_{name}": value for name, value in variables.items()}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "ALLSOURCE_EMBEDDED_PATH"),
        ({"EMBEDDED_PATH": ""}, "ALLSOURCE_EMBEDDED_PATH"),
        ({"EMBEDDED_PATH": "a\x00b"}, "ALLSOURCE_EMBEDDED_PATH"),
        ({"EMBEDDED_PATH": "x.db", "TENANT": "a b"}, "ALLSOURCE_TENANT"),
        ({"EMBEDDED_PATH": "x.db", "TENANT": "x" * 65}, "ALLSOURCE_TENANT"),
        ({"CORE_URL": "localhost:3900"}, "ALLSOURCE_CORE_URL"),
    ],
    ids=str,
)
def test_bad_environment_is_refused(variables: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        AllsourceAuthAdapter.from_env(environment(**variables))
    assert caught.value.field == named


async def test_environment_names_file_and_tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth.db"
    monkeypatch.setenv("ALLSOURCE_EMBEDDED_PATH", str(path))
    monkeypatch.setenv("ALLSOURCE_TENANT", "team")
    monkeypatch.delenv("ALLSOURCE_CORE_URL", raising=False)
    async with AllsourceAuthAdapter.from_env() as adapter:
        user = await adapter.users.create(id="u")
    async with AllsourceAuthAdapter.embedded(path, tenant_id="team") as adapter:
        assert await adapter.users.get("u") == user
    async with AllsourceAuthAdapter.from_env(environment(EMBEDDED_PATH=str(path))) as adapter:
        assert await adapter.users.get("u") is None


async def test_from_env_with_an_empty_tenant_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    async with AllsourceAuthAdapter.from_env(environment(EMBEDDED_PATH=str(path), TENANT="")) as adapter:
        await adapter.users.create(id="u")
    async with AllsourceAuthAdapter.embedded(path) as adapter:
        assert await adapter.users.exists("u")


def test_creating_an_adapter_opens_nothing(tmp_path: Path) -> None:
    AllsourceAuthAdapter.embedded(tmp_path / "missing" / "auth.db")
    AllsourceAuthAdapter.embedded(tmp_path / "auth.db")
    assert list(tmp_path.iterdir()) == []
