"""Rules for event types, entity ids and tenants: lengths in bytes, and the message of the first broken rule."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api_client import ApiClient

LOWERCASE = "must be lowercase with dots/underscores. Convention: namespace.entity.action"


async def rejection(api: ApiClient, **fields: Any) -> str:
    stream, kind = fields.pop("entity_id", "user:1"), fields.pop("event_type", "auth.user.created")
    answer = await api.append(stream, kind=kind, **fields)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


@pytest.mark.parametrize(
    "kind",
    ["auth.user.created", "created", "a_b", "_private.thing", "v2.1.rotated", "é", "²", "Ⅷ", "ª", "_system", "a" * 128],
)
async def test_valid_type_is_accepted(api: ApiClient, kind: str) -> None:
    assert (await api.append(kind=kind)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("", "Invalid input: Event type cannot be empty"),
        ("a" * 129, "Invalid input: Event type cannot exceed 128 characters, got 129"),
        ("é" * 65, "Invalid input: Event type cannot exceed 128 characters, got 130"),
        ("UserCreated", f"Invalid input: Event type 'UserCreated' {LOWERCASE}"),
        ("user-created", f"Invalid input: Event type 'user-created' {LOWERCASE}"),
        ("user created", f"Invalid input: Event type 'user created' {LOWERCASE}"),
        ("五", f"Invalid input: Event type '五' {LOWERCASE}"),
        (".user", "Invalid input: Event type '.user' cannot start or end with a dot"),
        ("user.", "Invalid input: Event type 'user.' cannot start or end with a dot"),
        ("user..created", "Invalid input: Event type 'user..created' cannot have consecutive dots"),
        ("_system.x", "Validation error: Event types starting with '_system.' are reserved for internal use"),
    ],
)
async def test_invalid_type_is_rejected(api: ApiClient, kind: str, message: str) -> None:
    assert await rejection(api, event_type=kind) == message


@pytest.mark.parametrize("stream", ["user:1", "a b", "Ünï/cödé@x", "e" * 128, "é" * 64, "a\u200b"])
async def test_valid_entity_id_is_accepted(api: ApiClient, stream: str) -> None:
    await api.appended(stream)
    assert [event["entity_id"] for event in (await api.page(entity_id=stream))["events"]] == [stream]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("", "cannot be empty"),
        ("e" * 129, "cannot exceed 128 characters, got 129"),
        ("é" * 65, "cannot exceed 128 characters, got 130"),
        ("a\nb", "cannot contain control characters"),
        ("\x85", "cannot contain control characters"),
        ("  ", "cannot be only whitespace"),
        (" a", "cannot have leading or trailing whitespace"),
        ("a\u00a0", "cannot have leading or trailing whitespace"),
    ],
)
async def test_invalid_entity_id_is_rejected(api: ApiClient, stream: str, message: str) -> None:
    assert await rejection(api, entity_id=stream) == f"Invalid input: Entity ID {message}"


@pytest.mark.parametrize("tenant", ["acme", "A_b-9", "é", "t" * 64])
async def test_valid_tenant_is_accepted(api: ApiClient, tenant: str) -> None:
    assert (await api.append(tenant_id=tenant)).status_code == 200


@pytest.mark.parametrize(
    ("tenant", "message"),
    [
        ("", "Tenant ID cannot be empty"),
        ("t" * 65, "Tenant ID cannot exceed 64 characters, got 65"),
        (
            "a.b",
            "Tenant ID 'a.b' contains invalid characters. Only alphanumeric, hyphens, and underscores allowed",
        ),
    ],
)
async def test_invalid_tenant_is_rejected(api: ApiClient, tenant: str, message: str) -> None:
    assert await rejection(api, tenant_id=tenant) == f"Invalid input: {message}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"event_type": "A", "entity_id": "", "tenant_id": ""}, "Event type"),
        ({"event_type": "_system.x", "entity_id": "", "tenant_id": ""}, "Entity ID"),
        ({"event_type": "_system.x", "tenant_id": ""}, "Tenant ID"),
        ({"event_type": "_system.x", "expected_version": 9}, "reserved"),
        ({"event_type": "A", "expected_version": 9}, "Event type"),
    ],
)
async def test_first_broken_rule_is_reported_before_guards(
    api: ApiClient, fields: dict[str, Any], message: str
) -> None:
    assert message in await rejection(api, **fields)


async def test_newer_versions_reserve_names_for_read_models(newer: ApiClient) -> None:
    message = "Invalid input: read model journals require the read-model commit API"
    assert await rejection(newer, entity_id="read-model:x", event_type="A") == message
    assert await rejection(newer, event_type="allsource.read_model.committed", tenant_id="") == message
