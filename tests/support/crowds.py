"""Many users, stored in large batches as sign-ups would store them; and one text in many spellings."""

from __future__ import annotations

import json
import random

from allsource_auth import EventStore, NewEvent
from tests.support.events import stored_user
from tests.support.names import claim_stream

__all__ = ["crowd_email", "crowd_id", "crowd_username", "sign_up_crowd", "spellings"]

BATCH = 2000
_USER = (
    json.dumps(stored_user("user-%06d", email="person%d@example.org", username="%b", name="Person %d"))
    .encode()
    .replace(b'"%b"', b"%b")
)
_METADATA = json.dumps({"v": 1, "op": "0" * 32, "seq": 1}).encode()


def crowd_id(number: int) -> str:
    return f"user-{number:06}"


def crowd_email(number: int) -> str:
    return f"person{number}@example.org"


def crowd_username(number: int) -> str | None:
    return None if number % 50 else f"person{number}"


def spellings(text: str, count: int) -> list[str]:
    """``count`` spellings of a text that differ in upper and lower case only."""
    found: dict[str, None] = {}
    drawn = random.Random(7)
    while len(found) < count:
        found["".join(drawn.choice((letter.upper(), letter.lower())) for letter in text)] = None
    return list(found)


async def sign_up_crowd(store: EventStore, count: int, *, claims: bool = True) -> None:
    """Store ``count`` users, one in 50 with a username. Without ``claims`` they are as another program writes them."""
    for first in range(0, count, BATCH):
        await store.append(
            [event for number in range(first, min(first + BATCH, count)) for event in _sign_up(store, number, claims)]
        )


def _sign_up(store: EventStore, number: int, claims: bool) -> list[NewEvent]:
    owner, email, username = f"auth-user:{crowd_id(number)}", crowd_email(number), crowd_username(number)
    user = _USER % (number, number, number, json.dumps(username).encode())
    created = NewEvent(type="auth.user.created", stream=owner, payload=user, metadata=_METADATA, guard=0)
    if not claims:
        return [created]
    claim = b'{"v":1,"owner":"%b","ownerVersion":0}' % owner.encode()
    streams = [claim_stream("email", email, tenant=store.tenant)]
    if username is not None:
        streams.append(claim_stream("username", username, tenant=store.tenant))
    taken = [
        NewEvent(type="auth.index.claimed", stream=stream, payload=claim, metadata=_METADATA, guard=0)
        for stream in streams
    ]
    return [*taken, created]
