"""Lengths of the random sequences: short and reproducible, longer, or long and random (see `tests.support.exploring`)."""

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
"""For stores on which a step takes several times as long."""

ALL_KINDS = settings(PROFILE, max_examples=PROFILE.max_examples * 2 // 3)

SEVERAL_STORES = settings(PROFILE, max_examples=PROFILE.max_examples // 7)
"""For steps on several stores at once, each followed by many look-ups."""
