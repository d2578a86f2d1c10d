"""An adapter on every store, watched for secrets."""

from __future__ import annotations

from tests.integrations.stores import adapter, clock, site, target, watch

__all__ = ["adapter", "clock", "site", "target", "watch"]
