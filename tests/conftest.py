"""Assertions in the shared modules say what they compared, as those in tests do; Ctrl-C reaches what tests start."""

import signal

import pytest

for module in ("canaries", "events", "families", "ownership", "sign_ups", "updates"):
    pytest.register_assert_rewrite(f"tests.support.{module}")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever starts the tests in the background of a script has them ignore it, and so would every program that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
