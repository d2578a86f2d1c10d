"""An asyncio-native, event-sourced authentication store.

Users, sessions and eight more kinds of entities live as immutable events in Allsource or in an embedded SQLite log, with their
whole history, time travel and undo. Begin with `AllsourceAuthAdapter`.
"""

from msgspec import UNSET

from .adapter import AllsourceAuthAdapter
from .audit import Change, audit
from .config import Timeouts, Tls
from .entities import (
    Account,
    ApiKey,
    ApiKeyUse,
    Invitation,
    Member,
    Organization,
    Page,
    Passkey,
    Session,
    SessionWithUser,
    TwoFactor,
    User,
    Verification,
)
from .errors import (
    AccountNotFound,
    AllsourceAuthError,
    Api,
    ApiKeyNotFound,
    Conflict,
    Http,
    InvalidInput,
    InvitationNotFound,
    Json,
    KeyMissing,
    MemberNotFound,
    NotFound,
    OrganizationNotFound,
    Overloaded,
    PasskeyNotFound,
    RateLimited,
    SessionNotFound,
    Storage,
    StoreClosed,
    TwoFactorNotFound,
    Unauthorized,
    Unavailable,
    UserNotFound,
    VerificationNotFound,
    VersionConflict,
)
from .kinds import EventLabel
from .repositories.findings import Checked, Finding, Reindexed
from .repositories.transactions import Transaction
from .store.allsource import AllsourceStore
from .store.base import Acknowledged, Event, EventStore, Info, Latest, NewEvent
from .store.sqlite import SqliteLog, SqliteStore
from .version import __version__

__all__ = [
    "UNSET",
    "Account",
    "AccountNotFound",
    "Acknowledged",
    "AllsourceAuthAdapter",
    "AllsourceAuthError",
    "AllsourceStore",
    "Api",
    "ApiKey",
    "ApiKeyNotFound",
    "ApiKeyUse",
    "Change",
    "Checked",
    "Conflict",
    "Event",
    "EventLabel",
    "EventStore",
    "Finding",
    "Http",
    "Info",
    "InvalidInput",
    "Invitation",
    "InvitationNotFound",
    "Json",
    "KeyMissing",
    "Latest",
    "Member",
    "MemberNotFound",
    "NewEvent",
    "NotFound",
    "Organization",
    "OrganizationNotFound",
    "Overloaded",
    "Page",
    "Passkey",
    "PasskeyNotFound",
    "RateLimited",
    "Reindexed",
    "Session",
    "SessionNotFound",
    "SessionWithUser",
    "SqliteLog",
    "SqliteStore",
    "Storage",
    "StoreClosed",
    "Timeouts",
    "Tls",
    "Transaction",
    "TwoFactor",
    "TwoFactorNotFound",
    "Unauthorized",
    "Unavailable",
    "User",
    "UserNotFound",
    "Verification",
    "VerificationNotFound",
    "VersionConflict",
    "__version__",
    "audit",
]
