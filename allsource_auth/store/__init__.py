"""Event stores: the `EventStore` protocol and its implementations."""
