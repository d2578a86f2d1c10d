"""The extent of explorations, soaks and kills, from ``ALLSOURCE_AUTH_EXPLORE``.

It is ``some`` in ``nox -s protocol``, ``all`` in ``nox -s matrix`` and ``nox -s campaign``, and empty otherwise.
"""

from __future__ import annotations

import os

__all__ = ["ALL", "SOME", "size"]

_EXTENT = os.environ.get("ALLSOURCE_AUTH_EXPLORE", "")

ALL = _EXTENT == "all"
"""All schedules, which takes hours."""

SOME = _EXTENT == "some"
"""More than in an ordinary run; it takes minutes."""


def size(gate: int, campaign: int) -> int:
    """The number of repetitions: ``campaign`` at full size, else ``gate``, which takes at most 20 seconds."""
    return campaign if ALL else gate
