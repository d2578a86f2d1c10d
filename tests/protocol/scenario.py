"""`Scenario`: what runs against what, and what must hold afterwards."""

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
"""A client program; what it returns is its outcome."""

Fault = Literal["death", "lost", "delay", "restart", "cancel", "clock"]
"""What can go wrong.

* ``death``: a client's process dies. What it has sent may still be executed, element by element, or not.
* ``lost``: a request was executed, its reply is lost.
* ``delay``: the client gets an ambiguous error although its append is on its way, to be executed at any later time or
  never.
* ``restart``: the server dies and comes back. Everything that was on its way is gone; an append that was about to be
  sent is gone or meets the new server.
* ``cancel``: the client's task is cancelled. What it has sent may still be executed.
* ``clock``: the server's wall clock moves by ``clock_step``.
"""

ALL_FAULTS: frozenset[Fault] = frozenset(("death", "lost", "delay", "restart", "cancel"))
"""Every kind of fault except ``clock``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a client ended."""

    how: Literal["returned", "raised", "cancelled", "died"]
    value: object = None
    """What it returned."""
    error: BaseException | None = None
    """What it raised."""

    def __str__(self) -> str:
        if self.how == "returned":
            return f"returns {self.value!r}"
        if self.how == "raised":
            return f"raises {type(self.error).__name__}: {self.error}"
        return "is cancelled" if self.how == "cancelled" else "died"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Clients that run at the same time, and a check.

    ``setup`` runs once, alone; what it stores, every run finds, and what it returns is in ``world.facts``. ``check``
    runs when all clients are done, alone; it raises `AssertionError` for a violation. A client that raises something
    outside ``expected`` is a violation as well. Each client gets a store of its own; ``tenants`` names the tenants of
    those that are not in ``"t"``.
    """

    name: str
    clients: Mapping[str, Client]
    check: Callable[[World], Awaitable[None]]
    setup: Callable[[World], Awaitable[Mapping[str, Any] | None]] | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)
    expected: tuple[type[BaseException], ...] = (AllsourceAuthError,)

    faults: frozenset[Fault] = ALL_FAULTS
    clock_step: int = -3600 * SECOND
    """How far, in nanoseconds, the ``clock`` fault moves the server's clock."""

    versions: Literal["ones", "true"] = "ones"
    cold: bool | None = None
    """Whether a restart forgets the counters; by default where ``versions`` is ``"ones"``. Never if ``atomic``."""
    tick: int = 1_000_000
    clock: Literal["global", "stream"] = "stream"
    stamps: bool = False
    """Unguarded events may be stamped before they are stored, at most ``time_skew`` earlier."""

    split: bool = False
    """The newest event and the version of a stream are two steps of one read, as on Core. Never if ``atomic``."""

    lagging: bool = False
    """An event is counted before it can be read, as on Core. Never if ``atomic``."""

    atomic_batches: bool = False
    time_skew: int = 60 * SECOND
    warm: bool = True
    """A guarded append only reaches a server that has loaded the tenant since it started."""
    loses_versions_on_restart: bool = False
    """Stores know that a restart forgets versions, and do nothing against it: never ``warm``."""
    grace_over: bool = True
    """``server_time()`` lies an hour beyond the newest time seen, so that every grace period is over."""
    page: int = 1000

    timers: Literal["idle", "any"] = "idle"
    """``"idle"``: time passes only while no live request is on its way; ``"any"``: at any step."""
    steps: int = 1000
    """A run with more steps than this does not terminate."""
