"""What is promised of an `EventStore` itself."""
