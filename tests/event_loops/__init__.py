"""Adapters that are used by several event loops, in threads and across a fork."""
