"""The table of newest events: its result and its size."""

import random

import msgspec
import pytest

from allsource_auth import Event
from allsource_auth.engine.newest import Newest


def an_event(number: int, stream: str, seq: int | None = None) -> Event:
    metadata = b"null" if seq is None else msgspec.json.encode({"seq": seq})
    return Event(
        id=f"event-{number}",
        type="auth.user.updated",
        stream=stream,
        payload=msgspec.Raw(b"{}"),
        metadata=msgspec.Raw(metadata),
        time=number,
        version=1,
    )


@pytest.mark.parametrize("seed", range(5))
def test_newest_event_is_the_last_one_unless_an_earlier_one_has_a_higher_seq(seed: int) -> None:
    drawn = random.Random(seed)
    events: list[Event] = []
    expected: dict[str, tuple[str, int | None]] = {}
    count = dict.fromkeys(map(str, range(700)), 0)
    for number in range(5000):
        stream = drawn.choice(list(count))
        count[stream] += 1
        numbered = drawn.random() < 0.7
        # Some are stored out of order: with a lower sequence number than an earlier event.
        seq = max(1, count[stream] - drawn.choice((0, 0, 0, 2))) if numbered else None
        event = an_event(number, stream, seq)
        events.append(event)
        known = expected.get(stream)
        if known is None or seq is None or known[1] is None or seq >= known[1]:
            expected[stream] = (event.id, seq)
    newest = Newest()
    for start in range(0, len(events), 64):
        newest.add(events[start : start + 64])
    assert len(newest) == len(expected)
    assert {event.stream: event.id for event in events if newest.has(event)} == {
        stream: event_id for stream, (event_id, _) in expected.items()
    }


def test_event_that_was_not_added_is_not_the_newest() -> None:
    newest = Newest()
    newest.add([an_event(1, "a", 1)])
    assert newest.has(an_event(1, "a", 1))
    assert not newest.has(an_event(2, "a", 1))
    assert not newest.has(an_event(1, "b", 1))


def test_table_takes_at_most_64_bytes_per_stream_even_while_it_grows() -> None:
    newest = Newest()
    before, largest = newest.nbytes, 0.0
    for number in range(100_000):
        newest.add([an_event(number, f"auth-user:{number}")])
        if newest.nbytes != before:
            # The old and the new table exist at the same time.
            largest = max(largest, (before + newest.nbytes) / len(newest))
            before = newest.nbytes
    assert 16 < largest <= 64
