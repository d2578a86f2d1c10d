"""Where plain reads go: to the read URLs in turn, past those that fail, and to Core when none is left.

* A URL at which a read failed in a way that says nothing about the request is *set aside*: for a second at first, then twice as
  long each time, up to half a minute. After that one read asks it again, and goes on elsewhere if it fails; nothing
  runs in the background. An answer puts the URL back in the rotation.
* Core is asked when all of them are set aside: what it answers is at least as new, so a Query Service that is gone stops no
  sign-in. But 429 comes from a server that lives and has too much to do; that load is not handed on to Core, which takes the
  writes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from itertools import cycle
from time import monotonic
from typing import Final

from allsource_auth.errors import AllsourceAuthError, RateLimited

__all__ = ["Reads"]

FIRST_PAUSE: Final = 1.0
"""Seconds for which a URL is set aside at first."""

LONGEST_PAUSE: Final = 30.0
"""Seconds between two reads that find out whether it is back, at most."""

_log = logging.getLogger("allsource_auth")


class _Aside:
    """A URL that is left out until a moment of `monotonic`.

    ``busy``: it lives, and takes no more requests for now. ``told``: the log says that it is left out.
    """

    __slots__ = ("busy", "pause", "told", "until")

    def __init__(self) -> None:
        self.pause = FIRST_PAUSE
        self.until = 0.0
        self.busy = self.told = False


class Reads:
    """The read URLs of one store, at least one, and Core's."""

    def __init__(self, urls: Sequence[str], core_url: str) -> None:
        # Many processes that live shortly would else all begin with the same one.
        first = random.randrange(len(urls))  # noqa: S311
        self._urls = (*urls[first:], *urls[:first])
        self._core_url = core_url
        self.aside: dict[str, _Aside] = {}
        """The URLs that are set aside. While there are none, an answer need not be told of (`answered`)."""
        self._healthy = cycle(self._urls)

    def turn(self) -> str:
        """The URL that the next read goes to."""
        if not self.aside:
            return next(self._healthy)
        now = monotonic()
        for url, aside in self.aside.items():
            if aside.until <= now:
                # This read finds out whether it is back; no other one shall wait for that.
                aside.pause = min(2 * aside.pause, LONGEST_PAUSE)
                aside.until = now + aside.pause
                return url
        return self._another(()) or self._core_url

    def answered(self, url: str) -> None:
        """``url`` has answered a read."""
        aside = self.aside.pop(url, None)
        if aside is not None:
            self._changed()
            if aside.told:
                _log.info("%s answers plain reads again", url)

    def instead(self, tried: Sequence[str], error: AllsourceAuthError, again: float | None = None) -> str | None:
        """The URL that a read goes to at once, after it was not answered at ``tried``; ``None`` if it was everywhere.

        ``error`` is what became of it at the last of them, which is set aside; ``again``: the seconds that it asked for.
        """
        url = tried[-1]
        if url in self._urls:
            self._set_aside(url, error, again)
        return self._another(tried)

    def _set_aside(self, url: str, error: AllsourceAuthError, again: float | None) -> None:
        busy = isinstance(error, RateLimited)
        asked_for = again or (LONGEST_PAUSE if busy and again is None else 0.0)
        aside = self.aside.get(url)
        if aside is None:
            aside = self.aside[url] = _Aside()
            self._changed()
        if not busy and not aside.told:
            aside.told = True
            _log.warning("plain reads leave out %s for now: %s", url, error)
        aside.busy = busy
        aside.until = max(aside.until, monotonic() + max(aside.pause, asked_for))

    def _changed(self) -> None:
        self._healthy = cycle([url for url in self._urls if url not in self.aside])

    def _another(self, tried: Sequence[str]) -> str | None:
        for _ in range(len(self._urls) - len(self.aside)):
            url = next(self._healthy)
            if url not in tried:
                return url
        busy = sorted((aside.until, url) for url, aside in self.aside.items() if aside.busy)
        left = [url for _, url in busy] or [self._core_url, *self._urls]
        return next((url for url in left if url not in tried), None)
