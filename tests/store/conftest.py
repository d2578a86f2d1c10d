"""Fixtures for the tests of all stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.canaries import Watch, watched


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Check everything that the test logs, returns or raises for secrets."""
    with watched(monkeypatch) as watch:
        yield watch
