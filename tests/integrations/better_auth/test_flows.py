"""The published package over HTTP, on our database and on its own: equal responses, request by request."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import better_auth
import pytest
from better_auth import plugins_ext
from better_auth.adapters.base import BaseAdapter
from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
from better_auth.plugins import Plugin
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter
from allsource_auth.integrations.better_auth.models import Table
from tests.integrations.better_auth.flows import FLOWS
from tests.integrations.better_auth.site import Site, Transcript, differences, opened
from tests.support.clocks import ManualClock
from tests.support.exploring import ALL
from tests.support.targets import TARGETS, Target

pytestmark = pytest.mark.integrations


@asynccontextmanager
async def sqlite() -> AsyncIterator[BaseAdapter]:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    try:
        yield SQLAlchemyAdapter(engine)
    finally:
        await engine.dispose()


async def transcript_of(flow: str, adapter: BaseAdapter) -> Transcript:
    """Run a flow and return the transcript of its responses."""
    options, steps = FLOWS[flow]
    async with opened(adapter, options) as site:
        await steps(site)
        return site.transcript


TARGETS_USED = ("sqlite-file", "local", "core-0.23.0", "core-0.27.0") if ALL else ("sqlite-file", "core-0.27.0")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, id=target.name, marks=[mark for mark in target.marks if mark.name == "core"])
        for target in TARGETS
        if target.name in TARGETS_USED
    ],
)
@pytest.mark.parametrize("flow", FLOWS)
async def test_responses_match_the_own_database(flow: str, target: Target, tmp_path: Path) -> None:
    async with target.start(tmp_path, ManualClock(datetime.now(UTC))) as site, sqlite() as theirs:
        began = monotonic()
        expected = await transcript_of(flow, theirs)
        store = AllsourceAuthAdapter.with_store(site.store("default"))
        ours = await transcript_of(flow, AllsourceDatabaseAdapter(store))
        found = differences(ours, expected, apart=monotonic() - began)
        assert found == [], found
        assert len(ours) >= 3
        assert not (await store.check()).findings


@pytest.mark.parametrize("flow", ["organization", "core"])
@pytest.mark.parametrize("spoilt", ["a field is missing", "a null is text", "a row too few", "an old row"])
async def test_comparison_finds_a_difference(flow: str, spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison fails if the database returns wrong rows."""
    row, find_many = Table.row, AllsourceDatabaseAdapter.find_many
    first: dict[str, dict[str, Any]] = {}

    def changed(self: Table, entity: Any) -> dict[str, Any]:
        found = row(self, entity)
        if spoilt == "a field is missing":
            found.pop({"organization": "role", "core": "image"}[flow], None)
        elif spoilt == "a null is text":
            return {name: "null" if value is None else value for name, value in found.items()}
        elif spoilt == "an old row":
            return {**found, **first.setdefault(found["id"], found)}
        return found

    async def fewer(self: AllsourceDatabaseAdapter, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        rows = await find_many(self, *arguments, **options)
        return rows[: max(1, len(rows) - 1)] if spoilt == "a row too few" else rows

    async with AllsourceAuthAdapter.embedded() as store, sqlite() as theirs:
        began = monotonic()
        expected = await transcript_of(flow, theirs)
        monkeypatch.setattr(Table, "row", changed)
        monkeypatch.setattr(AllsourceDatabaseAdapter, "find_many", fewer)
        try:
            ours = await transcript_of(flow, AllsourceDatabaseAdapter(store))
        except (AssertionError, LookupError, StopIteration, RuntimeError):
            return
        assert differences(ours, expected, apart=monotonic() - began) != []


def shipped() -> set[type[Plugin]]:
    """Return all plugins of the package."""
    modules = pkgutil.walk_packages(plugins_ext.__path__, f"{plugins_ext.__name__}.")
    found = {
        value for module in modules for value in vars(import_module(module.name)).values() if isinstance(value, type)
    }
    return {kind for kind in found if issubclass(kind, Plugin) and kind is not Plugin}


def written() -> set[str]:
    """Return the routes in the sources of the package, also those of options that no flow sets."""
    found = set()
    for file in Path(better_auth.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Tuple(elts=[ast.Constant(str(method)), ast.Constant(str(path)), _]):
                    found.add(f"{method} {path}")
    return {pair for pair in found if re.match("[A-Z]+ /", pair)}


def route(site: Site, asked: str) -> str | None:
    """Return the route that matches a request."""
    method, _, path = asked.partition(" ")
    parts = path.strip("/").split("/")
    for known, segments, _ in site.auth._routes:
        pairs = zip(segments, parts, strict=False)
        same = known == method and len(segments) == len(parts)
        if same and all(segment.startswith("{") or segment == part for segment, part in pairs):
            return f"{known} /{'/'.join(segments)}"
    return None


async def test_flows_cover_every_route_of_every_plugin() -> None:
    """Each route also succeeds at least once: neither an error status nor a redirect with an error."""
    used: set[type[Plugin]] = set()
    known, requested, succeeded = written(), set(), set()
    for options, steps in FLOWS.values():
        async with AllsourceAuthAdapter.embedded() as store, opened(AllsourceDatabaseAdapter(store), options) as site:
            await steps(site)
            used |= {type(plugin) for plugin in site.auth.plugins}
            known |= {f"{method} /{'/'.join(segments)}" for method, segments, _ in site.auth._routes}
            for request, status, _, headers, _ in site.transcript:
                found = route(site, request)
                requested.add(found)
                if status < 400 and "error=" not in headers.get("location", ""):
                    succeeded.add(found)
    assert shipped() - used == set()
    assert known - requested == set()
    assert known - succeeded == set()
    assert len(known) > 180
