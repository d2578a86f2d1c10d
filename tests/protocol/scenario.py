"""`Scenario`: clients that run concurrently, possible faults, and a check of the final state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from allsource_auth.errors import AllsourceAuthError
from tests.protocol.core import SECOND
from tests.protocol.store import SimStore

if TYPE_CHECKING:
    from tests.protocol.world import World

__all__ = ["ALL_FAULTS", "Client", "Fault", "Outcome", "Scenario"]

Client = Callable[[SimStore, "World"], Awaitable[object]]
"""A client program. Its return value is its outcome."""

Fault = Literal["death", "lost", "delay", "restart", "cancel", "clock"]
"""Kinds of faults.

* ``death``: the process of a client dies. Its requests may still be executed, event by event, or not.
* ``lost``: a request is executed, but its reply is lost.
* ``delay``: the client gets an ambiguous error for an append that is in flight. The append is executed later or never.
* ``restart``: the server is killed and restarted. Requests in flight are lost. An append that has not been sent is lost or
  reaches the restarted server.
* ``cancel``: the task of a client is cancelled. Its requests may still be executed.
* ``clock``: the wall clock of the server moves by ``clock_step``.
"""

ALL_FAULTS: frozenset[Fault] = frozenset(("death", "lost", "delay", "restart", "cancel"))
"""Every kind of fault except ``clock``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a client ended."""

    how: Literal["returned", "raised", "cancelled", "died"]
    value: object = None
    """The value that it returned."""
    error: BaseException | None = None
    """The exception that it raised."""

    def __str__(self) -> str:
        if self.how == "returned":
            return f"returns {self.value!r}"
        if self.how == "raised":
            return f"raises {type(self.error).__name__}: {self.error}"
        return "is cancelled" if self.how == "cancelled" else "died"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Clients that run concurrently, and a check.

    ``setup`` runs once, before all runs. Every run starts with the events that it stored, and its result is ``world.facts``.
    ``check`` runs after all clients have ended, and raises `AssertionError` for a violation. An exception of a client that is
    not in ``expected`` is a violation as well. Each client has its own store, of the tenant that ``tenants`` names, or else
    ``"t"``.
    """

    name: str
    clients: Mapping[str, Client]
    check: Callable[[World], Awaitable[None]]
    setup: Callable[[World], Awaitable[Mapping[str, Any] | None]] | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)
    expected: tuple[type[BaseException], ...] = (AllsourceAuthError,)

    faults: frozenset[Fault] = ALL_FAULTS
    clock_step: int = -3600 * SECOND
    """Nanoseconds by which the ``clock`` fault moves the server's clock."""

    versions: Literal["ones", "true"] = "ones"
    cold: bool | None = None
    """Whether a restart loses versions. By default only if ``versions`` is ``"ones"``. Never with ``atomic_batches``."""
    tick: int = 1_000_000
    clock: Literal["global", "stream"] = "stream"
    stamps: bool = False
    """Unguarded events may get their time before they are stored, at most ``time_skew`` nanoseconds earlier."""

    split: bool = False
    """A read gets the newest event and the version of a stream in two steps, as on Core. Never with ``atomic_batches``."""

    lagging: bool = False
    """An event is counted before it is visible, as on Core. Never with ``atomic_batches``."""

    atomic_batches: bool = False
    time_skew: int = 60 * SECOND
    warm: bool = True
    """A guarded append is sent only to a server that has loaded the tenant since its start."""
    loses_versions_on_restart: bool = False
    """The value of this attribute of the stores. If it is true, they do not load the tenant before appends: never ``warm``."""
    grace_over: bool = True
    """``server_time()`` is an hour after the newest time read, so that every grace period is over."""
    page: int = 1000

    timers: Literal["idle", "any"] = "idle"
    """``"idle"``: time passes only while no client waits for a reply. ``"any"``: at any step."""
    steps: int = 1000
    """A run with more steps than this is taken for one that does not terminate."""
