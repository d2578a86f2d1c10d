"""``RealRun``: one run of a scenario of `tests.protocol` on a real server, with concurrent clients.

`tests.protocol` explores the scenarios on a simulated Core in every order. Here the order depends on sockets, on random
iterations of the event loop between the requests (by a seed), on replies that a proxy loses, and on a server that is
killed. The checks at the end are the same. A `RealRun` takes the part of `World` in them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any, cast

from allsource_auth import Acknowledged, AllsourceStore, Event, EventStore, Latest, NewEvent
from tests.protocol.scenario import Client, Outcome, Scenario
from tests.protocol.store import SimStore
from tests.protocol.world import World
from tests.support.events import whole_log
from tests.support.proxy import FaultProxy
from tests.support.wrappers import PatientStore, WrappedStore

__all__ = ["Disturbance", "RealRun", "run_scenario"]

TENANT = "t"

YIELDS = (0, 0, 1, 3, 10, 30, 100)
"""Iterations of the event loop between two requests of a client. A request takes some tens of them."""

LOSS = 0.1
"""The probability that the reply to a request is lost."""

PATIENCE = 60.0
"""The time limit of a run, in seconds."""

Disturbance = Callable[[], Coroutine[Any, Any, None]]


class RealRun:
    """One run: the server at ``url``, and the outcomes of the clients."""

    def __init__(self, url: str, disturbance: Disturbance | None, *, at: int) -> None:
        self.core = Log()
        self.facts: Mapping[str, Any] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.notes: dict[str, list[object]] = {}
        self.open = AsyncExitStack()
        self.disturbance: asyncio.Task[None] | None = None
        self._url = url
        self._requests = 0
        self._cause = disturbance
        self._at = at

    def store(self, tenant: str = TENANT) -> EventStore:
        """A store for the setup or the check. Every grace period is over, and `core` is updated after each append."""
        return RecordedStore(self.real_store(self._url, tenant), self.core)

    def real_store(self, url: str, tenant: str) -> EventStore:
        store = AllsourceStore(url, tenant_id=tenant)
        self.open.push_async_callback(store.close)
        return store

    def note(self, value: object) -> None:
        """Record a value for the client that is running."""
        task = asyncio.current_task()
        assert task is not None
        self.notes.setdefault(task.get_name(), []).append(value)

    def requested(self) -> None:
        """Called before each request of a client. Starts the disturbance before one of them."""
        self._requests += 1
        if self._requests == self._at and self._cause is not None:
            self.disturbance = asyncio.create_task(self._cause())


class Log:
    """The events of the tenant by stream, as of the last `read`. It takes the part of the simulated Core."""

    def __init__(self) -> None:
        self._streams: dict[str, list[Event]] = {}

    async def read(self, store: EventStore) -> None:
        found = defaultdict(list)
        for event in await whole_log(store):
            found[event.stream].append(event)
        self._streams = dict(found)

    def events(self, stream: str, *, tenant: str | None = None) -> list[Event]:
        assert tenant == TENANT
        return self._streams.get(stream, [])

    def streams(self) -> list[str]:
        return sorted(self._streams)


class RecordedStore(PatientStore):
    """Reads the log again after every append."""

    def __init__(self, store: EventStore, log: Log) -> None:
        super().__init__(store)
        self._log = log

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        stored = await super().append(events)
        if self.tenant == TENANT:
            await self._log.read(self._store)
        return stored


class DisturbedStore(WrappedStore):
    """Waits before every request, and loses some of the replies."""

    def __init__(self, store: EventStore, proxy: FaultProxy, random: Random, requested: Callable[[], None]) -> None:
        super().__init__(store)
        self._proxy = proxy
        self._random = random
        self._requested = requested

    async def _request(self, method: str) -> None:
        for _ in range(self._random.choice(YIELDS)):
            await asyncio.sleep(0)
        if self._random.random() < LOSS:
            self._proxy.lose_reply(1, method)
        self._requested()

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        await self._request("POST")
        return await super().append(events)

    async def latest(self, stream: str, *, require_leader: bool = False) -> Latest:
        await self._request("GET")
        return await super().latest(stream, require_leader=require_leader)

    async def read(self, stream: str, **options: Any) -> list[Event]:
        await self._request("GET")
        return await super().read(stream, **options)


async def run_scenario(
    scenario: Scenario,
    url: str,
    seed: int,
    *,
    between: Disturbance | None = None,
    disturbance: Disturbance | None = None,
) -> bool:
    """Run a scenario on the empty server at ``url`` and check it. Returns whether the disturbance happened.

    ``between`` runs after the setup. ``disturbance`` starts while the clients run, unless they have finished before. Raises
    `AssertionError` if a check fails, and any unexpected error of a client.
    """
    random = Random(seed)
    run = RealRun(url, disturbance, at=random.randrange(1, 25))
    world = cast(World, run)
    async with run.open, asyncio.timeout(PATIENCE):
        if scenario.setup is not None:
            run.facts = await scenario.setup(world) or {}
        if between is not None:
            await between()
        waits_for_grace = random.random() < 0.5
        clients = []
        for name, program in scenario.clients.items():
            proxy = await run.open.enter_async_context(FaultProxy(url))
            store = run.real_store(proxy.url, scenario.tenants.get(name, TENANT))
            disturbed = DisturbedStore(store if waits_for_grace else PatientStore(store), proxy, random, run.requested)
            clients.append(asyncio.create_task(_run(program, disturbed, world), name=name))
        ends = await asyncio.gather(*clients, return_exceptions=True)
        if run.disturbance is not None:
            await run.disturbance
        for name, end in zip(scenario.clients, ends, strict=True):
            run.outcomes[name] = _outcome(end, scenario.expected)
        await run.core.read(run.real_store(url, TENANT))
        await scenario.check(world)
    return run.disturbance is not None


async def _run(program: Client, store: EventStore, world: World) -> object:
    return await program(cast(SimStore, store), world)


def _outcome(end: object, expected: tuple[type[BaseException], ...]) -> Outcome:
    if not isinstance(end, BaseException):
        return Outcome("returned", value=end)
    if not isinstance(end, expected):
        raise end
    return Outcome("raised", error=end)
