"""The simulated server: the effect of each request."""

from __future__ import annotations

import pytest

from allsource_auth.errors import VersionConflict
from allsource_auth.store.base import Event, Latest, NewEvent
from tests.protocol.core import Answer, Interner, SimCore


def new(stream: str, guard: int | None = None, *, type: str = "auth.user.created", payload: bytes = b"{}") -> NewEvent:  # noqa: A002
    return NewEvent(type=type, stream=stream, payload=payload, metadata=b"null", guard=guard)


def latest(core: SimCore, stream: str, tenant: str = "t") -> Latest:
    value = core.latest(tenant, stream).value
    assert isinstance(value, Latest)
    return value


def page(answer: Answer) -> list[Event]:
    assert isinstance(answer.value, list)
    return answer.value


def read(core: SimCore, stream: str, *, newest_first: bool = False, until: int | None = None) -> list[Event]:
    return page(core.read("t", stream, until=until, newest_first=newest_first, offset=0, limit=1000))


def test_guard_must_be_the_version() -> None:
    core = SimCore(Interner())
    assert core.append("t", new("a", 0))[0].version == 1
    with pytest.raises(VersionConflict) as caught:
        core.append("t", new("a", 0))
    assert (caught.value.expected, caught.value.actual, caught.value.stream) == (0, 1, None)
    assert core.append("t", new("a"))[0].version == 2
    assert core.append("t", new("a", 2))[0].version == 3


def test_tenants_share_the_counter_and_nothing_else() -> None:
    core = SimCore(Interner())
    core.append("t", new("a", 0))
    with pytest.raises(VersionConflict):
        core.append("other", new("a", 0))
    assert latest(core, "a", "other") == Latest(event=None, version=1)
    core.append("other", new("a", 1))
    assert latest(core, "a").version == 2
    assert len(read(core, "a")) == 1
    assert len(core.events("a")) == 2
    assert len(core.events("a", tenant="other")) == 1


def test_newest_event_and_version_can_be_read_in_two_steps() -> None:
    core = SimCore(Interner())
    empty = core.newest("t", "a")
    core.append("t", new("a", 0))
    assert core.counted("a", empty).value == Latest(event=None, version=1)
    page = core.newest("t", "a")
    assert core.counted("a", page) == core.latest("t", "a")
    core.append("t", new("a", 1))
    late = core.counted("a", page)
    assert late.value == Latest(event=core.events("a")[0], version=2)
    assert len({answer.key for answer in (late, core.latest("t", "a"), core.counted("a", empty))}) == 3


@pytest.mark.parametrize(("versions", "expected"), [("ones", [1, 1, 1]), ("true", [1, 2, 3])])
def test_versions_in_events(versions: str, expected: list[int]) -> None:
    core = SimCore(Interner(), versions=versions)  # type: ignore[arg-type]
    acknowledged = [core.append("t", new("a"))[0].version for _ in range(3)]
    assert acknowledged == [1, 2, 3]
    assert [event.version for event in read(core, "a")] == expected


def test_restart_loses_versions_until_the_tenant_is_read() -> None:
    core = SimCore(Interner())
    core.append("t", new("a", 0))
    core.append("t", new("a", 1))
    core.append("other", new("b", 0))
    core.restart()
    assert core.append("t", new("a", 0))[0].version == 1
    assert latest(core, "b", "other").version == 1
    assert core.version("a") == 1
    assert latest(core, "a").version == 3
    with pytest.raises(VersionConflict):
        core.append("t", new("a", 0))


def test_restart_of_a_newer_server_keeps_versions() -> None:
    core = SimCore(Interner(), versions="true")
    core.append("t", new("a", 0))
    core.restart()
    with pytest.raises(VersionConflict):
        core.append("t", new("a", 0))


def test_event_with_an_earlier_time_is_sorted_first_but_stored_last() -> None:
    core = SimCore(Interner(), tick=10)
    first = core.append("t", new("a"))[0]
    second = core.append("t", new("a"))[0]
    stamps = core.stamps(new("a"), 0, 1000)
    assert stamps == [second.time, second.time - 5, first.time, first.time - 5]
    late = core.append("t", new("a"), first.time - 5)[0]
    assert [event.id for event in read(core, "a")] == [late.id, first.id, second.id]
    assert [event.id for event in core.events("a")] == [first.id, second.id, late.id]
    assert read(core, "a", newest_first=True) == read(core, "a")[::-1]
    assert latest(core, "a").event == core.events("a")[1]


def test_possible_times_are_limited_by_the_skew() -> None:
    core = SimCore(Interner(), tick=10)
    for _ in range(3):
        core.append("t", new("a"))
    oldest = min(core.stamps(new("a"), 0, 15))
    assert core.append("t", new("a"))[0].time - oldest == 15


@pytest.mark.parametrize("versions", ["ones", "true"])
def test_equal_times_are_read_in_stored_order(versions: str) -> None:
    core = SimCore(Interner(), versions=versions, tick=0)  # type: ignore[arg-type]
    for payload in (b"0", b"1"):
        core.append("t", new("a", payload=payload))
    event = latest(core, "a").event
    assert event is not None
    assert bytes(event.payload) == b"1"


def test_clock_may_step_back() -> None:
    core = SimCore(Interner())
    first = core.append("t", new("a"))[0]
    core.step_clock(-1_000_000_000)
    second = core.append("t", new("a"))[0]
    assert second.time < first.time
    newest = latest(core, "a")
    assert newest.event is not None
    assert newest.event.id == first.id
    assert newest.version == 2


def test_clock_counts_all_events_or_those_of_the_stream() -> None:
    for clock, same in (("global", False), ("stream", True)):
        core = SimCore(Interner(), clock=clock)  # type: ignore[arg-type]
        times = {core.append("t", new(name))[0].time for name in "abc"}
        assert (len(times) == 1) is same


def test_scan_is_in_time_order_with_both_ends_included() -> None:
    core = SimCore(Interner(), clock="global", tick=10)
    core.append("t", new("a", type="auth.user.created"))
    middle = core.append("t", new("b", type="auth.user.updated"))[0]
    core.append("t", new("c", type="auth.session.created"))
    core.append("other", new("d", type="auth.user.created"))
    last = core.append("t", new("a", type="auth.user.deleted"))[0]

    def scan(since: int | None = None, until: int | None = None, skip: frozenset[str] = frozenset()) -> list[str]:
        found = core.scan("t", "auth.user.", since=since, until=until, skip=skip, limit=2)
        return [event.id for event in page(found)]

    assert scan() == ["a@0", "b@0"]
    assert scan(middle.time) == ["b@0", "a@1"]
    assert scan(middle.time, last.time - 1) == ["b@0"]
    assert scan(middle.time, skip=frozenset(["b@0"])) == ["a@1"]


def test_heads_return_each_stream_once() -> None:
    core = SimCore(Interner())
    for name in ("u:1", "u:2", "u:1", "s:1"):
        core.append("t", new(name))
    core.append("t", new("u:2", type="auth.index.fenced"))
    ids = [event.id for event in page(core.heads("t", "u:", "auth.user.", after="", limit=10))]
    assert ids == ["u:1@1", "u:2@0"]
    assert [event.id for event in page(core.heads("t", "u:", "", after="u:1", limit=10))] == ["u:2@1"]


def test_atomic_append_stores_all_events_or_none() -> None:
    core = SimCore(Interner())
    core.append("t", new("b", 0))
    with pytest.raises(VersionConflict) as caught:
        core.append_all("t", [new("a", 0), new("a", 1), new("b", 0)])
    assert caught.value.stream == "b"
    assert core.events("a") == []
    stored = core.append_all("t", [new("a", 0), new("a", 1), new("b", 1)])
    assert [acknowledged.version for acknowledged, _ in stored] == [1, 2, 2]


def test_key_identifies_the_state_and_copies_are_independent() -> None:
    ids = Interner()
    core = SimCore(ids)
    core.append("t", new("a"))
    twin = core.copy()
    assert twin.key() == core.key()
    twin.append("t", new("b"))
    assert twin.key() != core.key()
    assert core.events("b") == []
    core.append("t", new("b"))
    assert twin.key() == core.key()
    core.restart()
    assert twin.key() != core.key()
    core.load("t")
    assert twin.key() == core.key()


def test_key_ignores_the_order_of_appends_to_different_streams() -> None:
    ids = Interner()
    one, two = SimCore(ids), SimCore(ids)
    for core, names in ((one, "ab"), (two, "ba")):
        for name in names:
            core.append("t", new(name))
    assert one.key() == two.key()
