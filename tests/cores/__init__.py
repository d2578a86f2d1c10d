"""What only real Allsource Cores can show."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.book")
