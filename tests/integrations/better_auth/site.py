"""An application of the published package with its FastAPI binding on one database, and transcripts of its responses."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import better_auth.crypto
import httpx
from better_auth import BetterAuth, EmailAndPassword
from better_auth.adapters.base import BaseAdapter
from better_auth.config import RateLimit
from better_auth.integrations.fastapi import BetterAuthFastAPI
from fastapi import FastAPI

__all__ = ["BASE", "PASSWORD", "Browser", "Site", "Transcript", "application", "differences", "opened"]

# At full strength the hashing of passwords would take most of the time of the tests.
better_auth.crypto._SCRYPT_N = 16

BASE = "http://auth.test"
PASSWORD = "correct horse battery"

Transcript = list[tuple[str, int, Any, dict[str, Any], list[str]]]
"""Per request: method and path, status, body, selected headers, cookies."""

HEADERS = ("location", "x-retry-after", "set-auth-token", "set-auth-jwt", "set-ott", "cache-control", "content-type")


class Browser:
    """One client with its own cookies."""

    def __init__(self, site: Site, client: httpx.AsyncClient) -> None:
        self._site, self.client = site, client

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request and add it to the transcript."""
        options["headers"] = {"origin": BASE, **options.get("headers", {})}
        url = path if path.startswith("http") else f"/api/auth{path}"
        answer = await self.client.request(method, url, **options)
        try:
            body = answer.json()
        except ValueError:
            body = answer.text
        headers: dict[str, Any] = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
        if "x-retry-after" in headers:
            headers["x-retry-after"] = int(headers["x-retry-after"])
        cookies = [_cookie(text) for text in answer.headers.get_list("set-cookie")]
        request = f"{method} {re.sub(r'[?].*', '', path)}"
        self._site.transcript.append((request, answer.status_code, body, headers, cookies))
        return answer

    async def post(self, path: str, expect: int = 200, /, **body: Any) -> Any:
        """Post a JSON body and return the decoded response. Asserts the status."""
        answer = await self.ask("POST", path, json=body)
        assert answer.status_code == expect, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def get(self, path: str, expect: int = 200, /, **query: Any) -> Any:
        answer = await self.ask("GET", path, params=query)
        assert answer.status_code == expect, (path, answer.status_code, answer.text)
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer

    async def sign_up(self, name: str, **more: Any) -> Any:
        given = {"name": name.title(), "email": f"{name}@example.org", "password": PASSWORD, **more}
        return await self.post("/sign-up/email", **given)


def _cookie(text: str) -> str:
    """Return a cookie without its value: name, whether it is cleared, attributes."""
    name, _, rest = text.partition("=")
    value, _, attributes = rest.partition(";")
    attributes = re.sub(r"(expires=)[^;]*", r"\1...", attributes, flags=re.IGNORECASE)
    shown = "" if value.strip('"') == "" else "..."
    return f"{name}={shown};{attributes}"


class Site:
    """An application on one database."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.transcript: Transcript = []
        self.sent: list[dict[str, Any]] = []
        """Emails and text messages of the application."""
        self.auth: Any = None
        self.app: FastAPI

    async def browser(self) -> Browser:
        """Return a new client without cookies."""
        transport = httpx.ASGITransport(self.app)
        client = httpx.AsyncClient(transport=transport, base_url=BASE, timeout=60)
        return Browser(self, await self._stack.enter_async_context(client))

    def post_office(self, *names: str) -> Callable[..., Any]:
        """Return a callback that adds its arguments to ``sent``, positional ones under ``names``."""

        async def send(*values: Any, **named: Any) -> None:
            if len(values) and isinstance(values[0], dict) and not names:
                self.sent.append(values[0])
            else:
                self.sent.append({**dict(zip(names, values, strict=False)), **named})

        return send


Options = Callable[[Site], dict[str, Any]]


def application(adapter: BaseAdapter, **options: Any) -> tuple[Any, FastAPI]:
    given: dict[str, Any] = {
        "secret": "a secret of at least thirty-two characters",
        "base_url": BASE,
        "email_and_password": EmailAndPassword(enabled=True),
        "rate_limit": RateLimit(enabled=False),
        "adapter": adapter,
    } | options
    auth = BetterAuth(**given)
    app = FastAPI()
    app.include_router(BetterAuthFastAPI(auth).router)
    return auth, app


@asynccontextmanager
async def opened(adapter: BaseAdapter, options: Options = lambda site: {}) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        site = Site(stack)
        site.auth, site.app = application(adapter, **options(site))
        create = getattr(adapter, "create_tables", None)
        if create is not None:
            await create()
        yield site


# Comparing

_PIECES = re.compile(r"[A-Za-z0-9_\-+/=.~%]{8,}|\d{6}")


ROUNDED = 5
"""Additional tolerance for times in seconds, because they are rounded, some of them more than once."""


class _Pairs:
    """One-to-one mapping of generated values between both sides. ``apart`` is the tolerance for times in seconds."""

    def __init__(self, apart: float) -> None:
        self.apart = apart
        self._there: dict[str, str] = {}
        self._back: dict[str, str] = {}

    def match(self, left: str, right: str) -> bool:
        return self._there.setdefault(left, right) == right and self._back.setdefault(right, left) == left


def differences(left: Transcript, right: Transcript, *, apart: float) -> list[str]:
    """Return the differences between two transcripts.

    Generated values (ids, tokens) may differ if they map one to one. Times may differ by ``apart`` seconds, the time from the
    start of the first run to the end of the second.
    """
    found: list[str] = []
    pairs = _Pairs(apart + ROUNDED)
    for number, (ours, theirs) in enumerate(zip(left, right, strict=False)):
        place = f"{number}. {ours[0]}"
        found += _differ(pairs, place, list(ours), list(theirs))
    if len(left) != len(right):
        found.append(f"{len(left)} and {len(right)} requests")
    return found


def _differ(pairs: _Pairs, place: str, left: Any, right: Any) -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        if left.keys() != right.keys():
            return [f"{place}: the members {sorted(left)} and {sorted(right)}"]
        return [text for key in left for text in _differ(pairs, f"{place}.{key}", left[key], right[key])]
    if isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            return [f"{place}: {len(left)} and {len(right)} items"]
        items = enumerate(zip(left, right, strict=True))
        return [text for number, (one, other) in items for text in _differ(pairs, f"{place}[{number}]", one, other)]
    if isinstance(left, str) and isinstance(right, str):
        return [] if _same_text(pairs, left, right) else [f"{place}: {left!r} and {right!r}"]
    if type(left) is type(right) and isinstance(left, int | float) and left != right:
        # Durations and points in time, in seconds or milliseconds.
        size = min(left, right)
        near = pairs.apart * (1000 if size >= 10**11 or 100_000 < size <= 10**8 else 1)
        return [] if abs(left - right) <= near else [f"{place}: {left!r} and {right!r}"]
    return [] if left == right and type(left) is type(right) else [f"{place}: {left!r} and {right!r}"]


def _same_text(pairs: _Pairs, left: str, right: str) -> bool:
    moments = _moment(left), _moment(right)
    if moments[0] and moments[1]:
        return abs(moments[0] - moments[1]) <= timedelta(seconds=pairs.apart)
    if _PIECES.sub("*", left) != _PIECES.sub("*", right):
        return False
    pieces = zip(_PIECES.findall(left), _PIECES.findall(right), strict=True)
    return all(one == other or _alike(pairs, one, other) for one, other in pieces)


_TOKEN = re.compile(r"eyJ[\w-]+[.]eyJ[\w-]+[.][\w-]+")
"""A signed token. Its header and claims are compared, because two tokens of the same second are equal."""

_CLOCK = re.compile(r"(?:\w+=)?(\d{10}|\d{13})")
"""A point in time in seconds or milliseconds, alone or in a query."""


def _alike(pairs: _Pairs, left: str, right: str) -> bool:
    if _TOKEN.fullmatch(left) and _TOKEN.fullmatch(right):
        return all(_differ(pairs, "", *both) == [] for both in zip(_said(left), _said(right), strict=True))
    clocks = _CLOCK.fullmatch(left), _CLOCK.fullmatch(right)
    if clocks[0] and clocks[1]:
        return _differ(pairs, "", int(clocks[0][1]), int(clocks[1][1])) == []
    return _made_up(left, right) and pairs.match(left, right)


def _said(token: str) -> list[Any]:
    """Return the header and the claims of a signed token."""
    return [json.loads(urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


_CODE = re.compile(r"[A-Za-z0-9]{5}-[A-Za-z0-9]{5}|[A-HJ-NP-Z2-9]{8}")
"""A backup code or a device code. It may consist of lowercase or uppercase letters only, like a word."""


def _made_up(left: str, right: str) -> bool:
    """Return whether both look generated: neither plain words nor uppercase words."""
    if _CODE.fullmatch(left) and _CODE.fullmatch(right):
        return True
    return not any(re.fullmatch(r"[A-Z_]+|[a-z]+|[a-z-]+", text) and len(text) < 24 for text in (left, right))


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if len(text) > 10 else None
