"""The entities as users of the library see them, and the shapes of results.

Every struct here is frozen and keyword-only. Its ``repr`` shows what identifies and dates it and hides the rest, so that
an entity may be logged. To change an entity, call its repository; a changed one comes back as a new object.

Field names in JSON are the camelCase ones that the Rust crate writes (``rust-interop.md``); times are UTC, in microseconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec

__all__ = ["Entity", "Instant", "Page", "Session", "SessionWithUser", "User"]

E = TypeVar("E")

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A timezone-aware moment; entities hold it in UTC."""

HIDDEN = "***"


class Redacted(msgspec.Struct, frozen=True, kw_only=True):
    """A struct whose ``repr`` shows flags, numbers, times and the fields named in ``_shown``, and hides everything else.

    A field that somebody adds later is hidden until it is named: the safe side is the default.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id"})

    def __repr__(self) -> str:
        def shown(name: str) -> str:
            value = getattr(self, name)
            if isinstance(value, datetime):
                return value.isoformat()
            if value is None or isinstance(value, bool | int | float | Redacted) or name in self._shown:
                return repr(value)
            return HIDDEN

        fields = ", ".join(f"{name}={shown(name)}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"


class Entity(Redacted, frozen=True, kw_only=True, rename="camel"):
    """What all entities have in common: an id, a time of creation, and a ``repr`` that keeps secrets."""

    id: str
    created_at: Instant


class User(Entity, frozen=True, kw_only=True, rename="camel"):
    """A person or a machine that can have sessions (section A.1 of the model).

    ``email`` is unique ignoring case and keeps its spelling; ``username`` is unique as it is written.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "role"})

    updated_at: Instant
    name: str | None = None
    email: str | None = None
    email_verified: bool = False
    image: str | None = None
    username: str | None = None
    display_username: str | None = None
    two_factor_enabled: bool = False
    role: str | None = None
    banned: bool = False
    ban_reason: str | None = None
    ban_expires: Instant | None = None
    metadata: dict[str, Any] | None = None


class Session(Entity, frozen=True, kw_only=True, rename="camel"):
    """A signed-in user on one device (section A.2 of the model). ``token`` is the secret that the device holds."""

    _shown: ClassVar[frozenset[str]] = frozenset({"id", "user_id", "impersonated_by", "active_organization_id"})

    updated_at: Instant
    expires_at: Instant
    token: str
    user_id: str
    ip_address: str | None = None
    user_agent: str | None = None
    impersonated_by: str | None = None
    active_organization_id: str | None = None


class SessionWithUser(Redacted, frozen=True, kw_only=True):
    """A session that is valid now, and its user."""

    session: Session
    user: User


class Page(msgspec.Struct, Generic[E], frozen=True, kw_only=True):
    """A part of a list: ``total`` counts everything that matches, before ``limit`` and ``offset``."""

    items: list[E]
    total: int
    limit: int
    offset: int

    def __repr__(self) -> str:
        return f"Page({len(self.items)} items, total={self.total}, limit={self.limit}, offset={self.offset})"
