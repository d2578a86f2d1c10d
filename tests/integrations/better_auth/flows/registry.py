"""The registry of flows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from better_auth.adapters.base import Where

from tests.integrations.better_auth.site import Site

__all__ = ["FLOWS", "NEW", "PAST", "flow", "note", "put", "query", "token_of", "where"]

NEW = "an even better password"
PAST = datetime(2020, 1, 1, tzinfo=UTC)

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
    """Return the token in a link, from its query or the last segment of its path."""
    return query(url).get("token", urlsplit(url).path.rsplit("/", 1)[-1])


def where(field: str, value: Any) -> Any:
    return Where(field, value)


async def put(site: Site, model: str, field: str, value: Any, **changes: Any) -> None:
    """Change the database directly, to simulate elapsed time or an operator's change."""
    assert await site.auth.adapter.update(model, [where(field, value)], changes) is not None


def note(site: Site, name: str, result: Any) -> None:
    """Add the result of a function without a route to the transcript."""
    site.transcript.append((name, 0, json.loads(json.dumps(result, default=str)), {}, []))
