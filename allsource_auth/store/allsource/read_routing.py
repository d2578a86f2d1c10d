"""Read routing: plain reads are spread round-robin over the healthy read URLs.

* Each read URL has a circuit breaker. A failure that says nothing about the request (no connection, a gateway's error, 429)
  opens the circuit, and the URL is skipped: for one second at first, then for twice as long each time, up to 30 seconds.
* When that time is over the circuit is half-open: one read probes the URL, and fails over to another URL if the probe fails.
  A success closes the circuit. There is no background task.
* If all circuits are open, Core answers plain reads. Its answers are at least as new, so sign-ins continue while a Query
  Service is down. Overload (429) is the exception: Core accepts the writes and must not get that load as well.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from itertools import cycle
from time import monotonic
from typing import Final

from allsource_auth.errors import AllsourceAuthError, RateLimited
from allsource_auth.per_loop import shared_lock

__all__ = ["ReadRouter"]

FIRST_PAUSE: Final = 1.0
"""Seconds for which a circuit stays open after the first failure."""

MAX_PAUSE: Final = 30.0
"""Maximum seconds between two probes of a URL whose circuit is open."""

_log = logging.getLogger("allsource_auth")


class _OpenCircuit:
    """State of a URL that is skipped until ``probe_at``, a time of `monotonic`.

    ``overloaded``: the last failure was 429. ``logged``: a warning was logged, so the recovery is logged, too.
    """

    __slots__ = ("logged", "overloaded", "pause", "probe_at")

    def __init__(self) -> None:
        self.pause = FIRST_PAUSE
        self.probe_at = 0.0
        self.overloaded = self.logged = False


class ReadRouter:
    """Chooses among the read URLs of one store, of which there is at least one, and Core's URL.

    Event loops in several threads share it. Its state changes only while `shared_lock` is held.
    """

    def __init__(self, urls: Sequence[str], core_url: str) -> None:
        # A random start, so that many short-lived processes do not all begin with the same URL.
        first = random.randrange(len(urls))  # noqa: S311
        self._urls = (*urls[first:], *urls[:first])
        self._core_url = core_url
        self.open_circuits: dict[str, _OpenCircuit] = {}
        """By URL. While it is empty, successes need not be reported with `succeeded`."""
        self._all = self._healthy = cycle(self._urls)

    def next_url(self) -> str:
        """The URL for the next read."""
        if not self.open_circuits:
            return next(self._all)
        now = monotonic()
        with shared_lock:
            for url, circuit in self.open_circuits.items():
                if circuit.probe_at <= now:
                    # Half-open: this read probes the URL. Postponing the next probe keeps other reads away from it.
                    circuit.pause = min(2 * circuit.pause, MAX_PAUSE)
                    circuit.probe_at = now + circuit.pause
                    return url
            return self._untried(()) or self._core_url

    def succeeded(self, url: str) -> None:
        """Close the circuit of ``url`` after it has answered a read."""
        with shared_lock:
            circuit = self.open_circuits.pop(url, None)
            if circuit is not None:
                self._rebuild_rotation()
        if circuit is not None and circuit.logged:
            _log.info("read URL %s is healthy again", url)

    def fail_over(self, tried: Sequence[str], error: AllsourceAuthError, retry_in: float | None = None) -> str | None:
        """Open the circuit of the last URL in ``tried``; return another URL for the same read, or ``None`` if none is left.

        ``error`` is the failure at that URL, ``retry_in`` the pause in seconds that it asked for.
        """
        url = tried[-1]
        with shared_lock:
            newly_skipped = url in self._urls and self._open_circuit(url, error, retry_in)
            other = self._untried(tried)
        if newly_skipped:
            _log.warning("read URL %s is skipped for now: %s", url, error)
        return other

    def _open_circuit(self, url: str, error: AllsourceAuthError, retry_in: float | None) -> bool:
        """Open the circuit of ``url``. Returns whether that must be logged."""
        overloaded = isinstance(error, RateLimited)
        # A 429 without `retry_in` asked for a longer pause than is followed.
        asked_for = retry_in or (MAX_PAUSE if overloaded and retry_in is None else 0.0)
        circuit = self.open_circuits.get(url)
        if circuit is None:
            circuit = self.open_circuits[url] = _OpenCircuit()
            self._rebuild_rotation()
        must_log = not overloaded and not circuit.logged
        circuit.logged = circuit.logged or must_log
        circuit.overloaded = overloaded
        circuit.probe_at = max(circuit.probe_at, monotonic() + max(circuit.pause, asked_for))
        return must_log

    def _rebuild_rotation(self) -> None:
        self._healthy = cycle([url for url in self._urls if url not in self.open_circuits])

    def _untried(self, tried: Sequence[str]) -> str | None:
        """A URL that is not in ``tried``: a healthy one, else the overloaded ones, else Core or any other."""
        for _ in range(len(self._urls) - len(self.open_circuits)):
            url = next(self._healthy)
            if url not in tried:
                return url
        overloaded = sorted(
            (circuit.probe_at, url) for url, circuit in self.open_circuits.items() if circuit.overloaded
        )
        candidates = [url for _, url in overloaded] or [self._core_url, *self._urls]
        return next((url for url in candidates if url not in tried), None)
