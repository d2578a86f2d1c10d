"""What a flow is, and where they are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from better_auth.adapters.base import Where

from ..site import Site

__all__ = ["FLOWS", "NEW", "flow", "query", "token_of", "where"]

NEW = "an even better password"

Flow = Callable[[Site], Awaitable[None]]
Options = Callable[[Site], dict[str, Any]]

FLOWS: dict[str, tuple[Options, Flow]] = {}


def flow(options: Options) -> Callable[[Flow], Flow]:
    def keep(steps: Flow) -> Flow:
        FLOWS[steps.__name__] = options, steps
        return steps

    return keep


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def token_of(url: str) -> str:
    """The token in a link: in its query, else the last part of its path."""
    return query(url).get("token", urlsplit(url).path.rsplit("/", 1)[-1])


def where(field: str, value: Any) -> Any:
    return Where(field, value)
