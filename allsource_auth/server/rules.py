"""What an event must look like to be stored (section 7 of the contract). Lengths are in bytes of UTF-8."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from allsource_auth.server.answers import invalid, refusal

__all__ = ["check_entity", "check_event", "check_reserved", "check_tenant"]

_PLAIN_TYPE: Final = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_PLAIN_ENTITY: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_PLAIN_TENANT: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_LONGEST_NAME: Final = 128
_LONGEST_TENANT: Final = 64


def check_reserved(kind: str, entity: str) -> None:
    """0.27 keeps names for its read models, and looks at them before anything else."""
    if kind == "allsource.read_model.committed" or entity.startswith("read-model:"):
        raise invalid("read model journals require the read-model commit API")


def check_event(kind: str, entity: str, tenant: str) -> None:
    """Raises `Refused` (400) for the first rule that is broken: type, entity, tenant, reserved types."""
    if len(kind) > _LONGEST_NAME or not _PLAIN_TYPE.fullmatch(kind):
        _check_type(kind)
    check_entity(entity)
    check_tenant(tenant)
    if kind.startswith("_system."):
        raise refusal(400, "Validation error: Event types starting with '_system.' are reserved for internal use")


def check_entity(entity: str) -> None:
    if len(entity) <= _LONGEST_NAME and _PLAIN_ENTITY.fullmatch(entity):
        return
    if not entity:
        raise invalid("Entity ID cannot be empty")
    _check_length("Entity ID", entity, _LONGEST_NAME)
    if any(unicodedata.category(character) == "Cc" for character in entity):
        raise invalid("Entity ID cannot contain control characters")
    if not entity.strip():
        raise invalid("Entity ID cannot be only whitespace")
    if entity != entity.strip():
        raise invalid("Entity ID cannot have leading or trailing whitespace")


def check_tenant(tenant: str) -> None:
    if len(tenant) <= _LONGEST_TENANT and _PLAIN_TENANT.fullmatch(tenant):
        return
    if not tenant:
        raise invalid("Tenant ID cannot be empty")
    _check_length("Tenant ID", tenant, _LONGEST_TENANT)
    if not all(character in "-_" or character.isalpha() or _numeric(character) for character in tenant):
        raise invalid(
            f"Tenant ID '{tenant}' contains invalid characters. Only alphanumeric, hyphens, and underscores allowed"
        )


def _check_type(kind: str) -> None:
    if not kind:
        raise invalid("Event type cannot be empty")
    _check_length("Event type", kind, _LONGEST_NAME)
    if not all(character in "._" or character.islower() or _numeric(character) for character in kind):
        raise invalid(
            f"Event type '{kind}' must be lowercase with dots/underscores. Convention: namespace.entity.action"
        )
    if kind[0] == "." or kind[-1] == ".":
        raise invalid(f"Event type '{kind}' cannot start or end with a dot")
    if ".." in kind:
        raise invalid(f"Event type '{kind}' cannot have consecutive dots")


def _check_length(what: str, value: str, longest: int) -> None:
    size = len(value.encode())
    if size > longest:
        raise invalid(f"{what} cannot exceed {longest} characters, got {size}")


def _numeric(character: str) -> bool:
    """Rust's idea of a number: digits, letter numbers, other numbers, but no number words of Chinese."""
    return unicodedata.category(character) in ("Nd", "Nl", "No")
