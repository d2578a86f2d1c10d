"""Maintenance of a whole store: checking and reindexing. Never on the path of a request."""
