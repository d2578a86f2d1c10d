"""How far the explorations, soaks and kills go.

``ALLSOURCE_AUTH_EXPLORE`` is ``some`` in ``nox -s protocol`` and ``all`` in ``nox -s matrix`` and ``nox -s campaign``.
"""

from __future__ import annotations

import os

__all__ = ["ALL", "SOME", "size"]

_EXTENT = os.environ.get("ALLSOURCE_AUTH_EXPLORE", "")

ALL = _EXTENT == "all"
"""Everything, which takes hours."""

SOME = _EXTENT == "some"
"""More than in the ordinary run, in minutes."""


def size(gate: int, campaign: int) -> int:
    """The number of repetitions: ``campaign`` at full size, else ``gate``, which takes at most 20 seconds."""
    return campaign if ALL else gate
