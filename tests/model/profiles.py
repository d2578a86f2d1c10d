"""How far the random sequences go: briefly and always the same, further, or far and anew (`tests.support.exploring`)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.exploring import ALL, SOME

__all__ = ["ALL_KINDS", "OVER_HTTP", "PROFILE", "SEVERAL_STORES"]

_NEVER_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

_BRIEF = settings(
    max_examples=14,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=_NEVER_SLOW,
)
_FURTHER = settings(max_examples=20, stateful_step_count=60, deadline=None, suppress_health_check=_NEVER_SLOW)
_FAR = settings(_FURTHER, max_examples=300, stateful_step_count=80, print_blob=True)

PROFILE = _FAR if ALL else _FURTHER if SOME else _BRIEF

OVER_HTTP = settings(PROFILE, max_examples=PROFILE.max_examples // 2)
"""For stores whose steps take several times as long."""

ALL_KINDS = settings(PROFILE, max_examples=PROFILE.max_examples * 2 // 3)

SEVERAL_STORES = settings(PROFILE, max_examples=PROFILE.max_examples // 7)
"""For steps that are taken on several stores together, and looked at from many sides."""
