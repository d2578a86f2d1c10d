"""``Stage``: the situations of the exploration, played once on a real server by clients that run at the same time.

`tests.protocol` explores them on a simulated Core, in every order. Here the order is what comes of sockets, of turns of the
event loop that a seed spreads between the requests, of replies that a proxy loses, and of a server that is killed. What is
held at the end is the same. A `Stage` is what a scenario sees of the exploration's `World`.
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

__all__ = ["Stage", "Trouble", "play"]

TENANT = "t"

TURNS = (0, 0, 1, 3, 10, 30, 100)
"""Turns of the event loop between two requests of a client; a request takes some tens of them."""

LOSS = 0.1
"""How often the reply to a request is lost."""

PATIENCE = 60.0
"""Seconds after which a performance hangs."""

Trouble = Callable[[], Coroutine[Any, Any, None]]


class Stage:
    """One performance: the server at ``url``, and what its clients did."""

    def __init__(self, url: str, trouble: Trouble | None, *, at: int) -> None:
        self.core = Log()
        self.facts: Mapping[str, Any] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.notes: dict[str, list[object]] = {}
        self.open = AsyncExitStack()
        self.trouble: asyncio.Task[None] | None = None
        self._url = url
        self._requests = 0
        self._cause = trouble
        self._at = at

    def store(self, tenant: str = TENANT) -> EventStore:
        """A store for the setup or the check: every grace period is over, and the log is read again when it has grown."""
        return Recorded(self.real_store(self._url, tenant), self.core)

    def real_store(self, url: str, tenant: str) -> EventStore:
        store = AllsourceStore(url, tenant_id=tenant)
        self.open.push_async_callback(store.close)
        return store

    def note(self, value: object) -> None:
        """Remember something in the name of the client that runs."""
        task = asyncio.current_task()
        assert task is not None
        self.notes.setdefault(task.get_name(), []).append(value)

    def requested(self) -> None:
        """A client is about to send a request; before one of them, the trouble begins."""
        self._requests += 1
        if self._requests == self._at and self._cause is not None:
            self.trouble = asyncio.create_task(self._cause())


class Log:
    """The events of the tenant as they were read last, by stream; what a scenario sees of the simulated Core."""

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


class Recorded(PatientStore):
    """After every append the log is read again."""

    def __init__(self, store: EventStore, log: Log) -> None:
        super().__init__(store)
        self._log = log

    async def append(self, events: Sequence[NewEvent]) -> list[Acknowledged]:
        stored = await super().append(events)
        if self.tenant == TENANT:
            await self._log.read(self._store)
        return stored


class JostledStore(WrappedStore):
    """Dawdles before every request, and loses some of the replies."""

    def __init__(self, store: EventStore, proxy: FaultProxy, drawn: Random, requested: Callable[[], None]) -> None:
        super().__init__(store)
        self._proxy = proxy
        self._drawn = drawn
        self._requested = requested

    async def _request(self, method: str) -> None:
        for _ in range(self._drawn.choice(TURNS)):
            await asyncio.sleep(0)
        if self._drawn.random() < LOSS:
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


async def play(
    scenario: Scenario, url: str, seed: int, *, between: Trouble | None = None, trouble: Trouble | None = None
) -> bool:
    """Play a scenario on the empty server at ``url`` and hold it to its promises; whether there was trouble.

    ``between`` happens after the setup; ``trouble`` while the clients work, unless they are done before. Raises
    `AssertionError` for a promise that is broken, and what a client must not raise.
    """
    drawn = Random(seed)
    stage = Stage(url, trouble, at=drawn.randrange(1, 25))
    world = cast(World, stage)
    async with stage.open, asyncio.timeout(PATIENCE):
        if scenario.setup is not None:
            stage.facts = await scenario.setup(world) or {}
        if between is not None:
            await between()
        courteous = drawn.random() < 0.5
        clients = []
        for name, program in scenario.clients.items():
            proxy = await stage.open.enter_async_context(FaultProxy(url))
            store = stage.real_store(proxy.url, scenario.tenants.get(name, TENANT))
            jostled = JostledStore(store if courteous else PatientStore(store), proxy, drawn, stage.requested)
            clients.append(asyncio.create_task(_run(program, jostled, world), name=name))
        ends = await asyncio.gather(*clients, return_exceptions=True)
        if stage.trouble is not None:
            await stage.trouble
        for name, end in zip(scenario.clients, ends, strict=True):
            stage.outcomes[name] = _outcome(end, scenario.expected)
        await stage.core.read(stage.real_store(url, TENANT))
        await scenario.check(world)
    return stage.trouble is not None


async def _run(program: Client, store: EventStore, world: World) -> object:
    return await program(cast(SimStore, store), world)


def _outcome(end: object, expected: tuple[type[BaseException], ...]) -> Outcome:
    if not isinstance(end, BaseException):
        return Outcome("returned", value=end)
    if not isinstance(end, expected):
        raise end
    return Outcome("raised", error=end)
