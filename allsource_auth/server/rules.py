"""Validation of events: the rules of ``docs/reference/allsource-api.md``, "Names and sizes"."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from allsource_auth.server.replies import error_reply, invalid_input

__all__ = ["check_entity", "check_event", "check_reserved", "check_tenant"]

_PLAIN_TYPE: Final = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_PLAIN_ENTITY: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_PLAIN_TENANT: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_MAX_NAME: Final = 128
_MAX_TENANT: Final = 64


def check_reserved(kind: str, entity: str) -> None:
    """Reject the names that 0.27 reserves for its read models. Call it before `check_event`."""
    if kind == "allsource.read_model.committed" or entity.startswith("read-model:"):
        raise invalid_input("read model journals require the read-model commit API")


def check_event(kind: str, entity: str, tenant: str) -> None:
    """Raise `Rejected` (400) for the first broken rule: type, entity, tenant, reserved types."""
    if len(kind) > _MAX_NAME or not _PLAIN_TYPE.fullmatch(kind):
        _check_type(kind)
    check_entity(entity)
    check_tenant(tenant)
    if kind.startswith("_system."):
        raise error_reply(400, "Validation error: Event types starting with '_system.' are reserved for internal use")


def check_entity(entity: str) -> None:
    if len(entity) <= _MAX_NAME and _PLAIN_ENTITY.fullmatch(entity):
        return
    if not entity:
        raise invalid_input("Entity ID cannot be empty")
    _check_length("Entity ID", entity, _MAX_NAME)
    if any(unicodedata.category(character) == "Cc" for character in entity):
        raise invalid_input("Entity ID cannot contain control characters")
    if not entity.strip():
        raise invalid_input("Entity ID cannot be only whitespace")
    if entity != entity.strip():
        raise invalid_input("Entity ID cannot have leading or trailing whitespace")


def check_tenant(tenant: str) -> None:
    if len(tenant) <= _MAX_TENANT and _PLAIN_TENANT.fullmatch(tenant):
        return
    if not tenant:
        raise invalid_input("Tenant ID cannot be empty")
    _check_length("Tenant ID", tenant, _MAX_TENANT)
    if not all(character in "-_" or character.isalpha() or _numeric(character) for character in tenant):
        raise invalid_input(
            f"Tenant ID '{tenant}' contains invalid characters. Only alphanumeric, hyphens, and underscores allowed"
        )


def _check_type(kind: str) -> None:
    if not kind:
        raise invalid_input("Event type cannot be empty")
    _check_length("Event type", kind, _MAX_NAME)
    if not all(character in "._" or character.islower() or _numeric(character) for character in kind):
        raise invalid_input(
            f"Event type '{kind}' must be lowercase with dots/underscores. Convention: namespace.entity.action"
        )
    if kind[0] == "." or kind[-1] == ".":
        raise invalid_input(f"Event type '{kind}' cannot start or end with a dot")
    if ".." in kind:
        raise invalid_input(f"Event type '{kind}' cannot have consecutive dots")


def _check_length(what: str, value: str, limit: int) -> None:
    size = len(value.encode())
    if size > limit:
        raise invalid_input(f"{what} cannot exceed {limit} characters, got {size}")


def _numeric(character: str) -> bool:
    """Whether Rust takes the character for numeric: by its category, so Chinese numerals do not count."""
    return unicodedata.category(character) in ("Nd", "Nl", "No")
