"""Invalid values are refused before anything is written, with the name of the field."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from allsource_auth import AllsourceAuthAdapter, EventStore, InvalidInput, Session, User
from tests.support.bad_values import BAD_FLAGS, BAD_IDS, BAD_LABELS, BAD_TEXTS, BAD_TIMES, Case, cases, named
from tests.support.canaries import CANARY, email
from tests.support.clocks import START
from tests.support.events import refused, written_by

pytestmark = pytest.mark.tables


def nested(depth: int, leaf: Any = None) -> Any:
    """Return an object with ``depth`` levels of nesting."""
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return {"top": value}


TEXTS = ("name", "image", "display_username", "role")
LABELS = ("email", "username")

BAD_METADATA: dict[str, Any] = {
    "no-mapping": ["x"],
    "text": CANARY,
    "nan": {"n": math.nan},
    "nested-nan": {"a": [{"b": (1, math.nan)}]},
    "infinity": {"a": {"b": [math.inf]}},
    "minus-infinity": {"a": -math.inf},
    "lone-surrogate": {"a": [f"{CANARY}\ud800"]},
    "lone-surrogate-in-key": {"a": {f"{CANARY}\udfff": 1}},
    "number-as-key": {"a": {7: 1}},
    "none-as-key": {None: 1},
    "too-big": {"a": [2**64]},
    "too-small": {"a": -(2**63) - 1},
    "bytes": {"a": b"x"},
    "datetime": {"a": START},
    "set": {"a": {1}},
    "decimal": {"a": Decimal(1)},
    "uuid": {"a": uuid4()},
    "object": {"a": object()},
    "too-deep": nested(100),
    "bottomless": nested(5000),
    "password": {"password": CANARY},
    "password_hash": {"password_hash": CANARY},
    "passwordHash": {"passwordHash": CANARY},
    "passwd": {"passwd": CANARY},
    "hashed_password": {"hashed_password": CANARY},
    "hashedPassword": {"hashedPassword": CANARY},
    "nested-password": {"a": [{"b": ({"password": CANARY},)}]},
    "password-without-value": {"password": None},
}
BAD_FIELDS: list[Case] = [
    *cases(TEXTS, BAD_TEXTS),
    *cases(LABELS, BAD_LABELS),
    *cases(["metadata"], BAD_METADATA),
    *cases(["email_verified"], BAD_FLAGS),
]
BAD_UPDATES: list[Case] = [
    *BAD_FIELDS,
    *cases(["ban_reason"], BAD_TEXTS),
    *cases(["banned", "two_factor_enabled"], BAD_FLAGS),
    *cases(["ban_expires"], BAD_TIMES),
]


@pytest.mark.parametrize("case", BAD_FIELDS, ids=named)
async def test_invalid_sign_up_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, case: Case) -> None:
    field, _, value = case
    async with refused(store, field):
        await adapter.users.create(**{field: value})


@pytest.mark.parametrize("case", BAD_UPDATES, ids=named)
async def test_invalid_update_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User, case: Case
) -> None:
    field, _, value = case
    async with refused(store, field):
        await adapter.users.update(ada.id, **{field: value})
    assert await adapter.users.get(ada.id) == ada


@pytest.mark.parametrize("chosen", BAD_IDS.values(), ids=BAD_IDS)
async def test_invalid_user_id_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, chosen: Any) -> None:
    async with refused(store, "id"):
        await adapter.users.create(id=chosen)


BAD_SESSIONS: list[Case] = [
    *cases(["token", "user_id", "id"], BAD_IDS),
    *cases(["ip_address", "user_agent", "impersonated_by", "active_organization_id"], BAD_TEXTS),
    *cases(["expires_at"], BAD_TIMES | {"none": None}),
    ("user_id", "none", None),
]


@pytest.mark.parametrize("case", BAD_SESSIONS, ids=named)
async def test_invalid_sign_in_is_refused(adapter: AllsourceAuthAdapter, store: EventStore, case: Case) -> None:
    field, _, value = case
    given: dict[str, Any] = {"user_id": "u", "expires_at": START, field: value}
    async with refused(store, field):
        await adapter.sessions.create(**given)


@pytest.mark.parametrize("organization_id", BAD_TEXTS.values(), ids=BAD_TEXTS)
async def test_invalid_active_organization_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, session: Session, organization_id: Any
) -> None:
    async with refused(store, "active_organization_id"):
        await adapter.sessions.set_active_organization(session.token, organization_id)


def text_of(length: int, letter: str) -> str:
    """Return a text of ``length`` bytes."""
    return letter * (length // len(letter.encode())) + "x" * (length % len(letter.encode()))


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
@pytest.mark.parametrize(
    ("prefix", "field", "make"),
    [
        ("auth-user:", "id", lambda adapter, value: adapter.users.create(id=value)),
        (
            "auth-session:",
            "token",
            lambda adapter, value: adapter.sessions.create(user_id="u", expires_at=START, token=value),
        ),
    ],
    ids=["user", "session"],
)
async def test_key_has_at_most_128_bytes_with_its_prefix(
    adapter: AllsourceAuthAdapter,
    store: EventStore,
    letter: str,
    prefix: str,
    field: str,
    make: Callable[[AllsourceAuthAdapter, str], Any],
) -> None:
    longest = text_of(128 - len(prefix), letter)
    made = await make(adapter, longest)
    assert getattr(made, field) == longest
    repository: Any = adapter.users if field == "id" else adapter.sessions
    assert await repository.get(longest) == made
    async with refused(store, field):
        await make(adapter, text_of(129 - len(prefix), letter))


async def test_deepest_metadata_is_kept_and_one_more_level_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore
) -> None:
    depths = []
    for depth in range(1, 100):
        try:
            user = await adapter.users.create(metadata=nested(depth, "leaf"))
        except InvalidInput:
            break
        depths.append(depth)
        assert user.metadata == nested(depth, "leaf")
    assert depths[-1] in range(32, 99)
    async with refused(store, "metadata"):
        await adapter.users.create(metadata=nested(depths[-1] + 1))


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}], ids=["lists", "objects"])
async def test_metadata_may_have_64_levels_of_lists_or_objects(
    adapter: AllsourceAuthAdapter, store: EventStore, wrap: Callable[[Any], Any]
) -> None:
    value: Any = "leaf"
    for _ in range(63):
        value = wrap(value)
    deepest = {"top": value}
    user = await adapter.users.create(metadata=deepest)
    assert user.metadata == deepest
    async with refused(store, "metadata"):
        await adapter.users.create(metadata={"top": wrap(value)})


async def test_numbers_at_the_edge_of_64_bits_are_kept(adapter: AllsourceAuthAdapter) -> None:
    edges = {"edges": [2**64 - 1, 2**63, -(2**63), 0], "tiny": 5e-324, "huge": 1.7976931348623157e308}
    user = await adapter.users.create(metadata=edges)
    assert await adapter.users.get(user.id) == user
    assert user.metadata == edges


async def test_payload_over_two_megabytes_is_refused(
    adapter: AllsourceAuthAdapter, store: EventStore, ada: User
) -> None:
    async with written_by(store) as written:
        for call in (
            adapter.users.create(metadata={"text": "x" * 2_000_001}),
            adapter.users.create(name="é" * 1_000_001, email=email("big")),
            adapter.users.update(ada.id, name="x" * 2_000_001),
        ):
            with pytest.raises(InvalidInput):
                await call
    assert written.events == []
    assert await adapter.users.get_by_email(email("big")) is None
    assert await adapter.users.get(ada.id) == ada


async def test_payload_below_two_megabytes_is_kept(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(metadata={"text": "x" * 1_900_000})
    assert await adapter.users.get(user.id) == user


async def test_password_key_is_named(adapter: AllsourceAuthAdapter) -> None:
    with pytest.raises(InvalidInput, match="passwordHash"):
        await adapter.users.create(metadata={"a": [{"passwordHash": CANARY}]})


async def test_key_that_only_resembles_a_password_key_is_kept(adapter: AllsourceAuthAdapter) -> None:
    user = await adapter.users.create(metadata={"Password": "x", "password_changed_at": "x", "note": "password"})
    assert user.metadata == {"Password": "x", "password_changed_at": "x", "note": "password"}


async def test_invalid_input_is_a_value_error_with_its_facts(adapter: AllsourceAuthAdapter) -> None:
    with pytest.raises(ValueError, match="email") as caught:
        await adapter.users.create(email=" ")
    assert isinstance(caught.value, InvalidInput)
    assert str(caught.value) == f"{caught.value.field}: {caught.value.reason}"


async def test_names_of_any_script_are_kept(adapter: AllsourceAuthAdapter) -> None:
    odd = 'Zoë "O\'Neil" \\ / \n\t ; DROP TABLE event; -- % _ \u202e 😀 \u0000'
    user = await adapter.users.create(name=odd, image=odd, display_username=odd, role=odd)
    assert (user.name, user.image, user.display_username, user.role) == (odd, odd, odd, odd)
    assert await adapter.users.get(user.id) == user


@pytest.mark.parametrize(
    "label", ["o'neil@example.org", 'a"b', "a b", "a\\b", "%_", "a/b?c#d", "😀", "\u202e", "x" * 3000]
)
async def test_odd_labels_are_found_again(adapter: AllsourceAuthAdapter, label: str) -> None:
    user = await adapter.users.create(email=label, username=label)
    assert await adapter.users.get_by_email(label) == user
    assert await adapter.users.get_by_username(label) == user


async def test_time_in_any_time_zone_is_accepted(adapter: AllsourceAuthAdapter) -> None:
    local = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=-3)))
    session = await adapter.sessions.create(user_id="u", expires_at=local)
    assert session.expires_at == datetime(2027, 1, 1, 3, tzinfo=UTC)
