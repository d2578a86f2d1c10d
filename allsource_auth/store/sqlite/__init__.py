"""The embedded store: events in one SQLite file, or in memory."""
