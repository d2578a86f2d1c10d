"""The exceptions of the library, in one tree.

::

    AllsourceAuthError                                                   .ambiguous
    ├── Http              network failure or timeout                     .timeout
    ├── Json              a payload or reply that cannot be decoded      .path .stream .event_id
    ├── Api               a reply with an error status                   .status .message
    │   ├── Unauthorized      401, 403
    │   ├── RateLimited       429                                        .retry_after
    │   ├── Unavailable       502, 503, 504
    │   └── VersionConflict   409                                        .stream .expected .actual
    ├── Conflict          a unique value is taken                        .kind .field
    ├── NotFound          the entity to change does not exist            .kind
    │   ├── UserNotFound, SessionNotFound, AccountNotFound, VerificationNotFound, OrganizationNotFound,
    │   └── MemberNotFound, InvitationNotFound, TwoFactorNotFound, ApiKeyNotFound, PasskeyNotFound
    ├── InvalidInput      an invalid value or option; also a ValueError  .field .reason
    ├── Storage           the embedded file cannot be used               .reason
    ├── Overloaded        the request queue is full
    ├── StoreClosed       the adapter, store or transaction is closed
    └── WrongLoop         a second event loop uses an embedded store; also a RuntimeError

Facts are available as attributes. Messages name kinds, fields and options, never values.
"""

from __future__ import annotations

__all__ = [
    "AccountNotFound",
    "AllsourceAuthError",
    "Api",
    "ApiKeyNotFound",
    "Conflict",
    "Http",
    "InvalidInput",
    "InvitationNotFound",
    "Json",
    "MemberNotFound",
    "NotFound",
    "OrganizationNotFound",
    "Overloaded",
    "PasskeyNotFound",
    "RateLimited",
    "SessionNotFound",
    "Storage",
    "StoreClosed",
    "TwoFactorNotFound",
    "Unauthorized",
    "Unavailable",
    "UserNotFound",
    "VerificationNotFound",
    "VersionConflict",
    "WrongLoop",
]


class AllsourceAuthError(Exception):
    """Base class of all exceptions that the library raises deliberately."""

    ambiguous: bool = False
    """Whether a write may have been stored although the call failed. Read the entity before you retry."""


class Http(AllsourceAuthError):
    """The server could not be reached, or the connection failed or timed out.

    Attributes:
        timeout: the limit of `Timeouts` that was exceeded, ``"connect"``, ``"read"`` or ``"total"``. ``None`` for any other
            failure.
    """

    def __init__(self, message: str, *, ambiguous: bool = False, timeout: str | None = None) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous
        self.timeout = timeout


class Json(AllsourceAuthError):
    """A stored payload cannot be decoded into its entity, or a reply is not the expected JSON.

    Attributes:
        path: path of the invalid field, such as ``$.email``, if known.
        stream: id of the stream, if the error is about an event. A key that is a secret is hidden.
        event_id: id of the event, if the error is about one.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        stream: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.stream = stream
        self.event_id = event_id


class Api(AllsourceAuthError):
    """The server replied with an error status.

    Attributes:
        status: the HTTP status.
        message: the message of this exception.
    """

    def __init__(self, message: str, *, status: int, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.ambiguous = ambiguous


class Unauthorized(Api):
    """The API key is missing or unknown, or has insufficient permissions (401, 403)."""


class RateLimited(Api):
    """The server still limited the rate of requests after retries (429).

    Attributes:
        retry_after: seconds to wait before the next attempt, if the server stated them.
    """

    def __init__(self, message: str, *, status: int = 429, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class Unavailable(Api):
    """The server, or a gateway in front of it, cannot serve the request now (502, 503, 504)."""

    def __init__(self, message: str, *, status: int = 503, ambiguous: bool = False) -> None:
        super().__init__(message, status=status, ambiguous=ambiguous)


class VersionConflict(Api):
    """A stream is not at the expected version (409).

    Repositories retry after such a conflict. They raise it when other writers have changed the entity for ten seconds.

    Attributes:
        expected: the version that the append expected.
        actual: the version of the stream.
        stream: id of the stream, if the store reports it. A key that is a secret is hidden.
    """

    def __init__(self, *, expected: int, actual: int, stream: str | None = None) -> None:
        super().__init__(f"the stream is at version {actual}, the append expected version {expected}", status=409)
        self.expected = expected
        self.actual = actual
        self.stream = stream


class Conflict(AllsourceAuthError):
    """A unique value belongs to another entity, a key was used before, or a value differs from ``expected``.

    Attributes:
        kind: the kind of the entity, such as ``user``.
        field: the unique constraint, the key or the compared field, such as ``email``. The value is not included.
    """

    def __init__(self, kind: str, field: str, *, changed: bool = False) -> None:
        super().__init__(
            f"{kind}: the {field} differs from the expected value" if changed else f"{kind}: this {field} is taken"
        )
        self.kind = kind
        self.field = field


class NotFound(AllsourceAuthError):
    """The entity to change does not exist, or was deleted. Reads return ``None`` instead."""

    kind: str = "entity"
    """The kind of the entity, such as ``user``."""

    def __init__(self, kind: str | None = None) -> None:
        self.kind = kind or self.kind
        super().__init__(f"this {self.kind} does not exist")


class UserNotFound(NotFound):
    """The user does not exist, or was deleted."""

    kind = "user"


class SessionNotFound(NotFound):
    """The session does not exist, or was deleted."""

    kind = "session"


class AccountNotFound(NotFound):
    """The account does not exist, or was deleted."""

    kind = "account"


class VerificationNotFound(NotFound):
    """The verification does not exist, or was deleted."""

    kind = "verification"


class OrganizationNotFound(NotFound):
    """The organization does not exist, or was deleted."""

    kind = "org"


class MemberNotFound(NotFound):
    """The membership does not exist, or was deleted."""

    kind = "member"


class InvitationNotFound(NotFound):
    """The invitation does not exist, or was deleted."""

    kind = "invitation"


class TwoFactorNotFound(NotFound):
    """The second factor does not exist, or was deleted."""

    kind = "two_factor"


class ApiKeyNotFound(NotFound):
    """The API key does not exist, or was deleted."""

    kind = "api_key"


class PasskeyNotFound(NotFound):
    """The passkey does not exist, or was deleted."""

    kind = "passkey"


class InvalidInput(AllsourceAuthError, ValueError):
    """An argument or an option is invalid. Nothing was written.

    Attributes:
        field: the name of the argument or option.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Storage(AllsourceAuthError):
    """The embedded file cannot be used.

    Attributes:
        reason: ``"locked"``, ``"full"``, ``"read-only"``, ``"corrupt"``, ``"newer format"``, ``"another application"``,
            ``"cannot open"``, ``"input/output"`` or ``"forked"``.
    """

    def __init__(self, message: str, *, reason: str, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.ambiguous = ambiguous


class Overloaded(AllsourceAuthError):
    """The request queue is full (option ``max_queued``). Nothing was sent."""


class StoreClosed(AllsourceAuthError):
    """The adapter or its store is closed, or the block of the transaction has ended. Create a new one."""

    def __init__(self, message: str = "this adapter is closed") -> None:
        super().__init__(message)


class WrongLoop(AllsourceAuthError, RuntimeError):
    """Another event loop has a call of this embedded adapter in flight. Nothing was written by this call.

    An embedded adapter may be used by one event loop after another, but not by two at the same time.
    """

    def __init__(self) -> None:
        super().__init__(
            "another event loop is using this store; open one adapter per event loop; one file may be opened many times"
        )
