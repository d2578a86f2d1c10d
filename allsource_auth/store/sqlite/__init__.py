"""The embedded event store: a SQLite file, or a database in memory."""
