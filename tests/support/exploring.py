"""How far the explorations go: ``ALLSOURCE_AUTH_EXPLORE`` is ``some`` in ``nox -s protocol``, ``all`` in ``nox -s matrix``."""

from __future__ import annotations

import os

__all__ = ["ALL", "SOME"]

_EXTENT = os.environ.get("ALLSOURCE_AUTH_EXPLORE", "")

ALL = _EXTENT == "all"
"""Everything, which takes hours."""

SOME = _EXTENT == "some"
"""More than in the ordinary run, in minutes."""
