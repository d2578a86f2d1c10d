"""An asyncio-native, event-sourced authentication store.

Users, sessions and eight more kinds of entities are stored as immutable events, in Allsource or in an embedded SQLite file.
Each entity has its complete history, can be read as of an earlier time, and can be restored or reverted. Start with
`AllsourceAuthAdapter`.
"""

from msgspec import UNSET

from allsource_auth.adapter import AllsourceAuthAdapter
from allsource_auth.audit import Change, audit
from allsource_auth.config import ConnectionOptions, Timeouts, Tls
from allsource_auth.entities import (
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
from allsource_auth.errors import (
    AccountNotFound,
    AllsourceAuthError,
    Api,
    ApiKeyNotFound,
    Conflict,
    Http,
    InvalidInput,
    InvitationNotFound,
    Json,
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
    WrongLoop,
)
from allsource_auth.kind import EventLabel
from allsource_auth.maintenance.findings import Checked, Finding, Reindexed, Upgraded
from allsource_auth.store.allsource.store import AllsourceStore
from allsource_auth.store.base import Acknowledged, Event, EventStore, Info, Latest, NewEvent
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from allsource_auth.transactions.transaction import Transaction
from allsource_auth.version import __version__

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
    "ConnectionOptions",
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
    "Upgraded",
    "User",
    "UserNotFound",
    "Verification",
    "VerificationNotFound",
    "VersionConflict",
    "WrongLoop",
    "__version__",
    "audit",
]
