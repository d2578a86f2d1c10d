"""Where events are kept: the `EventStore` protocol and its implementations."""
