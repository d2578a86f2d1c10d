"""`UniqueViolation`: the error for a taken unique value, with the response that the framework gives for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from better_auth.types import APIError

from allsource_auth.errors import Conflict

__all__ = ["UniqueViolation"]

REFUSALS: Mapping[tuple[str, str], tuple[int, str, str | None]] = {
    ("user", "email"): (422, "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL", None),
    ("user", "username"): (400, "USERNAME_IS_ALREADY_TAKEN", "username"),
    ("user", "phone_number"): (400, "PHONE_NUMBER_EXIST", "phone_number"),
    ("organization", "slug"): (400, "ORGANIZATION_ALREADY_EXISTS", "organization"),
}
"""The framework's own refusal of a taken value, by model and unique value: status, code, and the plugin that defines the
message."""


class UniqueViolation(Conflict, APIError):
    """A unique value is taken. It is both a `Conflict` and the ``APIError`` that the framework raises for a taken value.

    The framework checks for a taken value before it writes. Concurrent requests can all pass this check; then one of them
    succeeds, and the others raise this error. Their clients receive the same response as if the check had failed.
    """

    def __init__(self, model: str, conflict: Conflict) -> None:
        status, code, plugin = REFUSALS.get((model, conflict.field), (409, "UNIQUE_CONSTRAINT_VIOLATION", None))
        message = _framework_message(code, plugin) or f"unique constraint: this {conflict.field} of a {model} is taken"
        Exception.__init__(self, message)
        self.kind: str = conflict.kind
        self.field: str = conflict.field
        self.status: int = status
        self.code: str = code
        self.message: str = message
        self.extra: dict[str, Any] | None = None
        self.headers: list[tuple[str, str]] | None = None


def _framework_message(code: str, plugin: str | None) -> str | None:
    """Return the framework's message for an error code, or ``None`` if it has none."""
    if plugin is not None:
        module = import_module(f"better_auth.plugins_ext.{plugin}")
        found: str | None = getattr(module, "ERROR_CODES", {}).get(code)
        return found
    return "User already exists. Use another email." if code == "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL" else None
