"""`SimCore`: the simulated state of an Allsource Core, and the effect of each request on it.

Everything here is synchronous: one call does what the server does under its lock. The facts about Core are in
`docs/reference/allsource-api.md`:

* Each stream id has one version counter, shared by all tenants. A guard is checked when the event is stored.
* An event is counted before it is visible to reads.
* The time of an event is taken before the lock. So a caller may pass an earlier one.
* Events are read in the order of (time, event version, position). 0.23 and 0.24 report version 1 in every event.
* 0.23 and 0.24 lose the counters of archived events on a restart, until the tenant is read.

`SimCore.key` is one hashable value for all state that later answers depend on. It is updated as events are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

import msgspec

from allsource_auth.errors import VersionConflict
from allsource_auth.store.base import Acknowledged, Event, Latest, NewEvent
from tests.protocol.draws import START

__all__ = ["SECOND", "Answer", "Interner", "SimCore", "Stored"]

SECOND = 1_000_000_000


class Interner(dict[object, int]):
    """Assigns a small number to each distinct value, so that long histories can be compared as one number."""

    def __missing__(self, value: object) -> int:
        number = self[value] = len(self) + 1
        return number


class Stored(NamedTuple):
    """An event in the log."""

    event: Event
    tenant: str
    position: int
    key: int


class Answer(NamedTuple):
    """The answer to a read: its value, and a number that is equal for equal answers."""

    value: Latest | list[Event]
    key: int


class _Stream:
    __slots__ = ("events", "ordered", "trail")

    def __init__(self, events: list[Stored], trail: int, ordered: bool) -> None:
        self.events = events
        self.trail = trail
        self.ordered = ordered


def _order(stored: Stored) -> tuple[int, int, int]:
    return stored.event.time, stored.event.version, stored.position


class SimCore:
    """A server.

    Args:
        ids: assigns numbers to states.
        versions: the versions in events: ``"ones"`` as in 0.23 and 0.24, ``"true"`` as in 0.27.
        tick: nanoseconds that the clock advances with each stored event.
        clock: ``"global"`` counts all events, so that times order all events. ``"stream"`` counts those of the stream, so
            that appends to different streams commute, which gives far fewer states.
    """

    def __init__(
        self,
        ids: Interner,
        *,
        versions: Literal["ones", "true"] = "ones",
        tick: int = 1_000_000,
        clock: Literal["global", "stream"] = "stream",
    ) -> None:
        self._ids = ids
        self._ones = versions == "ones"
        self._tick = tick
        self._global = clock == "global"
        self._streams: dict[str, _Stream] = {}
        self._count = 0
        self._shift = 0
        self.elapsed = 0
        """Virtual time since the start of the run, in nanoseconds."""
        self._cold: set[str] = set()
        self._marks: dict[str, int] = {}
        self._hidden: set[int] = set()

    def copy(self) -> SimCore:
        """Return an independent server in the same state."""
        twin = SimCore.__new__(SimCore)
        twin.__dict__.update(self.__dict__)
        twin._streams = {
            name: _Stream(stream.events.copy(), stream.trail, stream.ordered) for name, stream in self._streams.items()
        }
        twin._cold = set(self._cold)
        twin._marks = dict(self._marks)
        twin._hidden = set(self._hidden)
        return twin

    def key(self) -> tuple[object, ...]:
        """Return all state that later answers depend on."""
        trails = tuple(sorted([stream.trail for stream in self._streams.values()]))
        if not self._cold and not self._hidden:
            return self._shift, trails
        forgotten = tuple(sorted(self._cold)), tuple(sorted(self._marks.items()))
        return self._shift, trails, *forgotten, tuple(sorted(self._hidden))

    # -- the clock

    def step_clock(self, nanoseconds: int) -> None:
        """Move the wall clock, backwards if ``nanoseconds`` is negative."""
        self._shift += nanoseconds

    def moment(self, stream: str) -> int:
        """Return the number of events that the clock of ``stream`` has counted."""
        if self._global:
            return self._count
        found = self._streams.get(stream)
        return len(found.events) if found else 0

    def stamps(self, new: NewEvent, since: int, skew: int) -> list[int]:
        """Return the earlier times that ``new`` can have if its time was taken at any `moment` from ``since`` until now.

        These are the time of each event stored meanwhile, and a time just before it, at most ``skew`` nanoseconds ago.
        """
        moment = self.moment(new.stream)
        now = self._time(moment)
        times: list[int] = []
        for earlier in range(moment - 1, since - 1, -1):
            time = self._time(earlier)
            times += [stamp for stamp in (time, time - self._tick // 2) if now - stamp <= skew]
        return times

    def _time(self, moment: int) -> int:
        return START * SECOND + self.elapsed + self._shift + moment * self._tick

    # -- writing

    def append(
        self, tenant: str, new: NewEvent, time: int | None = None, *, hidden: bool = False
    ) -> tuple[Acknowledged, int]:
        """Store one event with the given time in nanoseconds, or the current one. Also returns the key of the event.

        A ``hidden`` event is counted, but not visible until it is revealed.
        """
        stream = self._streams.get(new.stream)
        version = self.version(new.stream)
        if new.guard is not None and new.guard != version:
            raise VersionConflict(expected=new.guard, actual=version)
        if stream is None:
            stream = self._streams[new.stream] = _Stream([], self._ids[new.stream], True)
        stored = self._stored(tenant, new, version + 1, len(stream.events), time)
        if stream.events and _order(stored) < _order(stream.events[-1]):
            stream.ordered = False
        stream.events.append(stored)
        stream.trail = self._ids[stream.trail, stored.key]
        if hidden:
            self._hidden.add(stored.key)
        self._count += 1
        event = stored.event
        return Acknowledged(id=event.id, time=event.time, version=version + 1), stored.key

    def reveal(self, key: int | None = None) -> None:
        """Make the event with this key visible; without a key, all events."""
        if key is None:
            self._hidden.clear()
        self._hidden.discard(key or 0)

    def append_all(self, tenant: str, events: Sequence[NewEvent]) -> list[tuple[Acknowledged, int]]:
        """Store all of ``events`` or none, as the embedded file does. A conflict names its stream."""
        versions: dict[str, int] = {}
        for new in events:
            version = versions.get(new.stream)
            version = self.version(new.stream) if version is None else version
            if new.guard is not None and new.guard != version:
                raise VersionConflict(expected=new.guard, actual=version, stream=new.stream)
            versions[new.stream] = version + 1
        return [self.append(tenant, new) for new in events]

    def _stored(self, tenant: str, new: NewEvent, version: int, index: int, time: int | None) -> Stored:
        time = self._time(self._count if self._global else index) if time is None else time
        event = Event(
            id=f"{new.stream}@{index}",
            type=new.type,
            stream=new.stream,
            payload=msgspec.Raw(new.payload),
            metadata=msgspec.Raw(new.metadata),
            time=time,
            version=1 if self._ones else version,
        )
        position = self._count if self._global else index
        key = self._ids[tenant, new.type, new.payload, new.metadata, time, version, position]
        return Stored(event, tenant, position, key)

    # -- versions

    def version(self, stream: str) -> int:
        """Return the counter that guards of ``stream`` are compared with."""
        found = self._streams.get(stream)
        if found is None:
            return 0
        if not self._cold:
            return len(found.events)
        mark = self._marks.get(stream, 0)
        return sum(index >= mark or stored.tenant not in self._cold for index, stored in enumerate(found.events))

    def restart(self, *, cold: bool | None = None) -> None:
        """Restart the server.

        ``cold``: it loses the versions of earlier events. The default is true for a server that reports version 1 in events.
        """
        self.reveal()
        if not (self._ones if cold is None else cold):
            return
        self._cold = {stored.tenant for stream in self._streams.values() for stored in stream.events}
        self._marks = {name: len(stream.events) for name, stream in self._streams.items()}

    def load(self, tenant: str) -> None:
        """Load ``tenant``, as each of its reads does first: its events are counted again."""
        if self._cold:
            self._cold.discard(tenant)
            if not self._cold:
                self._marks = {}

    # -- reading

    def latest(self, tenant: str, stream: str) -> Answer:
        """Return the newest event and the version of a stream, like a query with ``order=desc&limit=1``."""
        return self.counted(stream, self.newest(tenant, stream))

    def newest(self, tenant: str, stream: str) -> Answer:
        """The first half of `latest`: the page of one event, without the version."""
        self.load(tenant)
        events = self._ordered(tenant, stream)
        if not events:
            return Answer(Latest(event=None, version=0), 0)
        return Answer(Latest(event=events[-1].event, version=0), events[-1].key)

    def counted(self, stream: str, page: Answer) -> Answer:
        """The second half of `latest`: the version counter is read after the page was taken."""
        event, version = cast(Latest, page.value).event, self.version(stream)
        return Answer(Latest(event=event, version=version), self._ids["latest", page.key, version])

    def read(
        self, tenant: str, stream: str, *, until: int | None, newest_first: bool, offset: int, limit: int
    ) -> Answer:
        """Return a page of the events of ``stream``."""
        self.load(tenant)
        events = [found for found in self._ordered(tenant, stream) if until is None or found.event.time <= until]
        if newest_first:
            events.reverse()
        return self._page(events[offset : offset + limit])

    def scan(
        self, tenant: str, type_prefix: str, *, since: int | None, until: int | None, skip: frozenset[str], limit: int
    ) -> Answer:
        """Return the first ``limit`` events of a type prefix between two times, without the ids in ``skip``."""
        self.load(tenant)
        found = [
            stored
            for name in sorted(self._streams)
            for stored in self._streams[name].events
            if stored.tenant == tenant
            and stored.key not in self._hidden
            and stored.event.type.startswith(type_prefix)
            and (since is None or stored.event.time >= since)
            and (until is None or stored.event.time <= until)
            and stored.event.id not in skip
        ]
        return self._page(sorted(found, key=_order)[:limit])

    def heads(self, tenant: str, stream_prefix: str, type_prefix: str, *, after: str, limit: int) -> Answer:
        """Return the newest event of a type prefix of each of the first ``limit`` streams after the name ``after``."""
        self.load(tenant)
        page: list[Stored] = []
        for name in sorted(name for name in self._streams if name.startswith(stream_prefix) and name > after):
            typed = [stored for stored in self._ordered(tenant, name) if stored.event.type.startswith(type_prefix)]
            page += typed[-1:]
        return self._page(page[:limit])

    def events(self, stream: str, *, tenant: str | None = None) -> list[Event]:
        """Return the events of ``stream`` in stored order. For checks; this is not a request."""
        found = self._streams.get(stream)
        return [stored.event for stored in found.events if tenant in (None, stored.tenant)] if found else []

    def streams(self) -> list[str]:
        """Return the names of all streams. For checks; this is not a request."""
        return sorted(self._streams)

    def _ordered(self, tenant: str, stream: str) -> list[Stored]:
        found = self._streams.get(stream)
        if found is None:
            return []
        hidden = self._hidden
        events = [stored for stored in found.events if stored.tenant == tenant and stored.key not in hidden]
        return events if found.ordered else sorted(events, key=_order)

    def _page(self, events: Iterable[Stored]) -> Answer:
        events = list(events)
        return Answer([stored.event for stored in events], self._ids["page", *(stored.key for stored in events)])
