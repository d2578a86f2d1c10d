"""Random numbers and clocks that depend only on the client, and on how many numbers it has drawn.

A client must draw the same random numbers in every run in which it has received the same replies. Otherwise two runs in the
same state could continue differently.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from unittest import mock

__all__ = ["START", "WHO", "Identity", "deterministic"]

START = 1_800_000_000
"""The time of every clock at the start of a run, in seconds since the epoch."""

_RANDOM = (
    "betavariate",
    "choice",
    "choices",
    "expovariate",
    "gauss",
    "getrandbits",
    "randbytes",
    "randint",
    "random",
    "randrange",
    "sample",
    "shuffle",
    "triangular",
    "uniform",
)


class Identity:
    """A source of random numbers. Each name has its own sequence."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.drawn = 0

    def draw(self, size: int) -> bytes:
        """Return the next ``size`` bytes of the sequence."""
        self.drawn += 1
        seed = f"{self.name}:{self.drawn}".encode()
        if size <= 64:
            return hashlib.blake2b(seed, digest_size=max(size, 1)).digest()[:size]
        return hashlib.shake_128(seed).digest(size)


WHO: ContextVar[Identity | None] = ContextVar("WHO", default=None)
"""The client whose code is running."""

_urandom = os.urandom


def _draw(size: int) -> bytes:
    who = WHO.get()
    return _urandom(size) if who is None else who.draw(size)


class _Dice(random.Random):
    """The functions of `random`, which draw from the sequence of the client whose code is running."""

    def random(self) -> float:
        return (int.from_bytes(_draw(7), "big") >> 3) / (1 << 53)

    def getrandbits(self, k: int, /) -> int:
        return int.from_bytes(_draw((k + 7) // 8), "big") >> (-k % 8)


@contextmanager
def deterministic(now: Callable[[], float]) -> Iterator[None]:
    """Make `uuid`, `secrets`, `random`, `os.urandom` and `time` depend only on the client and on ``now`` (in seconds).

    `uuid.uuid4` and the functions of `secrets` call `os.urandom`, under its own name or under the name that the `random`
    module has for it. So names that were imported before are covered as well. ``datetime.now`` is not patched.
    """
    dice = _Dice()
    clocks: dict[str, Any] = {
        "time": lambda: START + now(),
        "time_ns": lambda: START * 1_000_000_000 + round(now() * 1_000_000_000),
        "monotonic": now,
        "monotonic_ns": lambda: round(now() * 1_000_000_000),
        "perf_counter": now,
        "perf_counter_ns": lambda: round(now() * 1_000_000_000),
    }
    functions: dict[str, Any] = {"_urandom": _draw} | {name: getattr(dice, name) for name in _RANDOM}
    with (
        mock.patch.multiple(time, **clocks),
        mock.patch.multiple(random, **functions),
        mock.patch.object(os, "urandom", _draw),
    ):
        yield
