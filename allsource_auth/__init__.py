"""An asyncio-native, event-sourced authentication store.

Users and sessions live as immutable events in Allsource or in an embedded SQLite log, with their whole history, time travel
and undo. Begin with `AllsourceAuthAdapter`.
"""

from msgspec import UNSET

from .adapter import AllsourceAuthAdapter
from .audit import Change, audit
from .config import Timeouts, Tls
from .entities import Page, Session, SessionWithUser, User
from .errors import (
    AllsourceAuthError,
    Api,
    Conflict,
    Http,
    InvalidInput,
    Json,
    KeyMissing,
    NotFound,
    Overloaded,
    RateLimited,
    SessionNotFound,
    Storage,
    StoreClosed,
    Unauthorized,
    Unavailable,
    UserNotFound,
    VersionConflict,
)
from .kinds import EventLabel
from .store.allsource import AllsourceStore
from .store.base import Acknowledged, Event, EventStore, Info, Latest, NewEvent
from .store.sqlite import SqliteLog, SqliteStore
from .version import __version__

__all__ = [
    "UNSET",
    "Acknowledged",
    "AllsourceAuthAdapter",
    "AllsourceAuthError",
    "AllsourceStore",
    "Api",
    "Change",
    "Conflict",
    "Event",
    "EventLabel",
    "EventStore",
    "Http",
    "Info",
    "InvalidInput",
    "Json",
    "KeyMissing",
    "Latest",
    "NewEvent",
    "NotFound",
    "Overloaded",
    "Page",
    "RateLimited",
    "Session",
    "SessionNotFound",
    "SessionWithUser",
    "SqliteLog",
    "SqliteStore",
    "Storage",
    "StoreClosed",
    "Timeouts",
    "Tls",
    "Unauthorized",
    "Unavailable",
    "User",
    "UserNotFound",
    "VersionConflict",
    "__version__",
    "audit",
]
