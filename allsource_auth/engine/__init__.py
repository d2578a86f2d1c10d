"""The event-sourcing engine: streams, mutations, claims, indexes, histories. Internal; the repositories are built on it."""
