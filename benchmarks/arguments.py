"""Types of command line options that several benchmarks share. Invalid values raise ``argparse.ArgumentTypeError``."""

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
    """Whole numbers of at least 1, separated by commas."""
    return [count(part) for part in text.split(",")]


def stores(text: str) -> list[str]:
    """Names from `STORES`, separated by commas, without repetitions."""
    names = text.split(",")
    if not set(names) <= set(STORES):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(STORES)}")
    return list(dict.fromkeys(names))
