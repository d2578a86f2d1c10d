"""What the options of several benchmarks are parsed with; each raises what ``argparse`` tells the user."""

from __future__ import annotations

import argparse

from benchmarks.servers import NAMES

__all__ = ["STORES", "count", "counts", "stores"]

STORES = ("embedded", *NAMES)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    """Several of them, with commas."""
    return [count(part) for part in text.split(",")]


def stores(text: str) -> list[str]:
    """Some of `STORES`, with commas, each once."""
    names = text.split(",")
    if not set(names) <= set(STORES):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(STORES)}")
    return list(dict.fromkeys(names))
