"""Maintenance of a whole store: `check` and `reindex`. Requests of an application never call it."""
