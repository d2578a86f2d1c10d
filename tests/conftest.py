"""Assertions in the shared modules say what they compared, as those in tests do."""

import pytest

for module in ("canaries", "events", "ownership", "updates"):
    pytest.register_assert_rewrite(f"tests.support.{module}")
