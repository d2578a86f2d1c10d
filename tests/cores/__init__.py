"""Tests that need real Allsource Cores (``-m core``), and the tools that they share."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.expected_state")
