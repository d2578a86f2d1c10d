"""How far the random sequences go: briefly and always the same, or, with ``ALLSOURCE_AUTH_EXPLORE=1``, far and anew."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["ALL_KINDS", "OVER_HTTP", "PROFILE", "SEVERAL_STORES"]

_NEVER_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

_BRIEF = settings(
    max_examples=30,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=_NEVER_SLOW,
)
_FAR = settings(
    max_examples=300, stateful_step_count=80, deadline=None, print_blob=True, suppress_health_check=_NEVER_SLOW
)

PROFILE = _FAR if os.environ.get("ALLSOURCE_AUTH_EXPLORE") == "1" else _BRIEF

OVER_HTTP = settings(PROFILE, max_examples=PROFILE.max_examples // 2)
"""For stores whose steps take several times as long."""

ALL_KINDS = settings(PROFILE, max_examples=PROFILE.max_examples * 2 // 3)

SEVERAL_STORES = settings(PROFILE, max_examples=PROFILE.max_examples // 7)
"""For steps that are taken on several stores together, and looked at from many sides."""
