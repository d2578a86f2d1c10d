"""What can go wrong, as one tree.

::

    AllsourceAuthError
    ├── Http              network, connection, timeout              .ambiguous .timeout
    ├── Json              a payload that cannot be encoded or decoded   .path .stream .event_id
    ├── Api               a reply that is not a success              .status .message
    │   ├── Unauthorized      401, 403
    │   ├── RateLimited       429                                   .retry_after
    │   ├── Unavailable       502, 503, 504                         .ambiguous
    │   └── VersionConflict   409                                   .stream .expected .actual
    ├── Conflict          a unique value is taken                   .kind .field
    ├── NotFound          an update of something that is not there  .kind
    │   ├── UserNotFound
    │   └── SessionNotFound
    ├── InvalidInput      a value that cannot be stored             .field .reason   (also a ValueError)
    ├── Storage           the embedded file                         .reason .ambiguous
    ├── Overloaded        more callers than may wait
    └── StoreClosed       used after it was closed

Facts travel as attributes; messages name kinds, fields and options, never the value of one. ``ambiguous`` is true when a
write may have been stored although it failed for the caller.
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
]


class AllsourceAuthError(Exception):
    """The base of every error that this library raises on purpose."""

    ambiguous: bool = False
    """True when a write may have been stored although the call failed."""


class Http(AllsourceAuthError):
    """The server could not be reached, or the connection failed or timed out.

    ``timeout`` says which time limit was over: ``connect``, ``read`` or ``total``; ``None`` for all other failures.
    """

    def __init__(self, message: str, *, ambiguous: bool = False, timeout: str | None = None) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous
        self.timeout = timeout


class Json(AllsourceAuthError):
    """A payload cannot be decoded into its entity, or a reply is not the JSON it should be."""

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
    """The server replied with something other than success."""

    def __init__(self, message: str, *, status: int, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.ambiguous = ambiguous


class Unauthorized(Api):
    """The credential is missing, unknown or not enough (401, 403)."""


class RateLimited(Api):
    """Too many requests (429); ``retry_after`` in seconds where the server says it."""

    def __init__(self, message: str, *, status: int = 429, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class Unavailable(Api):
    """The server, or the gateway before it, cannot serve the request now (502, 503, 504)."""

    def __init__(self, message: str, *, status: int = 503, ambiguous: bool = False) -> None:
        super().__init__(message, status=status, ambiguous=ambiguous)


class VersionConflict(Api):
    """A stream is not at the version that an append was guarded with (409).

    ``stream`` is the stream whose guard failed, where the store knows it, without a key that is a secret; ``actual`` is its
    version now.
    """

    def __init__(self, *, expected: int, actual: int, stream: str | None = None) -> None:
        super().__init__(f"the stream is at version {actual}, the append expected version {expected}", status=409)
        self.expected = expected
        self.actual = actual
        self.stream = stream


class Conflict(AllsourceAuthError):
    """A unique value is taken by somebody else, or a value is not the ``expected`` one; the value itself is not repeated."""

    def __init__(self, kind: str, field: str, *, changed: bool = False) -> None:
        super().__init__(
            f"{kind}: the {field} is not the expected one" if changed else f"{kind}: this {field} is taken"
        )
        self.kind = kind
        self.field = field


class NotFound(AllsourceAuthError):
    """An update of something that does not exist, or does no longer."""

    kind: str = "entity"

    def __init__(self, kind: str | None = None) -> None:
        self.kind = kind or self.kind
        super().__init__(f"there is no such {self.kind}")


class UserNotFound(NotFound):
    kind = "user"


class SessionNotFound(NotFound):
    kind = "session"


class AccountNotFound(NotFound):
    kind = "account"


class VerificationNotFound(NotFound):
    kind = "verification"


class OrganizationNotFound(NotFound):
    kind = "org"


class MemberNotFound(NotFound):
    kind = "member"


class InvitationNotFound(NotFound):
    kind = "invitation"


class TwoFactorNotFound(NotFound):
    kind = "two_factor"


class ApiKeyNotFound(NotFound):
    kind = "api_key"


class PasskeyNotFound(NotFound):
    kind = "passkey"


class InvalidInput(AllsourceAuthError, ValueError):
    """A value that cannot be stored, or an option that cannot be used; nothing was written."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Storage(AllsourceAuthError):
    """The embedded file cannot be used.

    ``reason`` is one of ``locked``, ``full``, ``read-only``, ``corrupt``, ``newer format``, ``another application``,
    ``cannot open``, ``input/output``.
    """

    def __init__(self, message: str, *, reason: str, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.ambiguous = ambiguous


class Overloaded(AllsourceAuthError):
    """More callers than may wait in line; nothing was sent."""


class StoreClosed(AllsourceAuthError):
    """The adapter or its store was closed, or the transaction has ended; open a new one."""

    def __init__(self, message: str = "this adapter is closed") -> None:
        super().__init__(message)
