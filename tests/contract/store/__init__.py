"""Contract tests of `EventStore`, for every implementation."""
