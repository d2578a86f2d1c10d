"""The integration with ``better_auth``. ``nox -s integrations`` installs the package; elsewhere these tests are skipped."""

import pytest

pytest.importorskip("better_auth", reason="better-auth-server is not installed; nox -s integrations installs it")
