"""The test bed itself: what the suites lean on must hold, too."""
