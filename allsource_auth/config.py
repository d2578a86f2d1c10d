"""The options of the adapter, validated once, when it is built; each error names the option."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args
from urllib.parse import urlsplit

import msgspec

from allsource_auth import values
from allsource_auth.errors import InvalidInput

if TYPE_CHECKING:
    import httpx

__all__ = ["Clock", "Connection", "ConnectionOptions", "Consistency", "Durability", "Timeouts", "Tls"]

Clock = Callable[[], datetime]
"""Returns the present as a timezone-aware datetime."""

Durability = Literal["full", "normal"]
"""``full``: an acknowledged write survives a power cut. ``normal``: it survives a crash of the process."""

Consistency = Literal["strong", "eventual"]
"""What plain reads ask a Query Service for: ``strong`` the leader, ``eventual`` any replica."""

MAX_IN_FLIGHT = 16
"""Core 0.27 serves 16 requests at a time (section 4 of its contract)."""

MAX_QUEUED = 20_000

CORE_URL = "ALLSOURCE_CORE_URL"
QUERY_URL = "ALLSOURCE_QUERY_URL"
API_KEY = "ALLSOURCE_API_KEY"
EMBEDDED_PATH = "ALLSOURCE_EMBEDDED_PATH"
TENANT = "ALLSOURCE_TENANT"

_log = logging.getLogger("allsource_auth")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits of one request, in seconds, the wait for its turn left out.

    ``connect``: until the connection stands. ``read``: for the next bytes of the answer. ``total``: from connecting to the
    last byte. The first read after a start of Core loads the tenant, about 10 s for 90,000 events (contract, section 8.4).
    """

    connect: float = 5.0
    read: float = 30.0
    total: float = 60.0


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to trust, and who we are, over https. All files are PEM. Verification cannot be switched off.

    The authorities of the operating system are trusted; ``ca_file`` adds to them, or with ``ca_only`` takes their place.
    ``client_cert`` and ``client_key`` are shown to a server that asks for them; the key must not be encrypted.
    """

    ca_file: str | os.PathLike[str] | None = None
    ca_only: bool = False
    client_cert: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None

    def read(self, name: str) -> bytes:
        """The contents of one of the files. Raises `InvalidInput`."""
        try:
            return Path(getattr(self, name)).read_bytes()
        except OSError as error:
            reason = error.strerror or "cannot be read"
        raise InvalidInput("tls", f"the {name} cannot be read: {reason}")

    def context(self) -> ssl.SSLContext:
        """The same as a context of the standard library. Raises `InvalidInput`."""
        try:
            if self.ca_only and self.ca_file is not None:
                context = ssl.create_default_context(cafile=self.ca_file)
            else:
                context = ssl.create_default_context()
                if self.ca_file is not None:
                    context.load_verify_locations(self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key, password="")
        except (OSError, ValueError):
            pass
        else:
            return context
        raise InvalidInput("tls", "the certificates cannot be used; they must be PEM files")


class ConnectionOptions(TypedDict, total=False):
    """The options of a connection over HTTP beyond the URLs and the API key. All are optional."""

    timeout: float | Timeouts | None
    """Seconds for one request, or `Timeouts`. The time in the request queue does not count."""
    tls: Tls | None
    """The trusted authorities and the client certificate, for https."""
    http_client: httpx.AsyncClient | None
    """A client of the caller's that carries all requests. The caller closes it."""
    max_in_flight: int
    """The maximum number of concurrent requests, 16 by default: as many as Core 0.27 serves at a time."""
    max_queued: int
    """The maximum number of requests in the queue, 20,000 by default. One more raises `Overloaded`."""
    read_consistency: Consistency
    """What plain reads ask a Query Service with replicas for; ``strong`` by default."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Where an Allsource is and how to speak to it; made by `connection`, which validates."""

    core_url: str
    query_urls: tuple[str, ...]
    """Where plain reads go; empty if that is Core alone."""
    credentials: Mapping[str, str]
    timeouts: Timeouts
    timeouts_given: bool
    tls: Tls
    http_client: httpx.AsyncClient | None
    max_in_flight: int
    max_queued: int
    consistency: Consistency

    def __repr__(self) -> str:
        urls = self.query_urls or (self.core_url,)
        return f"Connection(core_url={self.core_url!r}, query_url={urls[0] if len(urls) == 1 else list(urls)!r})"


def connection(
    core_url: object,
    query_url: object = None,
    api_key: object = None,
    **options: Unpack[ConnectionOptions],
) -> Connection:
    """Validate the options of a store over HTTP; ``query_url`` is one URL or a sequence of URLs.

    Raises `InvalidInput`, naming the option, and `TypeError` for an unknown one. Logs one warning for plain http to a host
    that is not loopback.
    """
    if unknown := options.keys() - ConnectionOptions.__annotations__.keys():
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    timeout, tls = options.get("timeout"), options.get("tls")
    core = url("core_url", core_url)
    queries = () if query_url is None else query_urls("query_url", query_url)
    exposed = [found for found in (core, *queries) if _is_exposed(found)]
    found = Connection(
        core_url=core,
        query_urls=() if queries == (core,) else queries,
        credentials={} if api_key is None else {"x-api-key": _header("api_key", api_key)},
        timeouts=_timeouts(timeout),
        timeouts_given=timeout is not None,
        tls=_tls(tls),
        http_client=_http_client(options.get("http_client"), tls),
        max_in_flight=_count("max_in_flight", options.get("max_in_flight", MAX_IN_FLIGHT), least=1),
        max_queued=_count("max_queued", options.get("max_queued", MAX_QUEUED), least=0),
        consistency=_one_of("read_consistency", options.get("read_consistency", "strong"), get_args(Consistency)),
    )
    if exposed:
        _log.warning("plain http to %s: whoever is on the way reads passwords and tokens; use https", exposed[0])
    return found


def url(name: str, value: object) -> str:
    """A base URL without a slash at its end; a path in it is kept. Raises `InvalidInput` without repeating credentials."""
    text = values.text(name, value)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidInput(name, "is not a URL such as http://localhost:3900") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidInput(name, "must begin with http:// or https://")
    if "@" in parts.netloc:
        raise InvalidInput(name, "must not hold a user name or password; the API key goes into api_key")
    if not host or port == 0 or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidInput(name, "is not a URL such as http://localhost:3900")
    if parts.query or parts.fragment:
        raise InvalidInput(name, "must end with the host, the port or a path; it has a query or a fragment")
    return text.rstrip("/")


def query_urls(name: str, value: object) -> tuple[str, ...]:
    """The read URLs: one, or several, which must differ. Raises `InvalidInput`; of several it names the place: ``name[1]``."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return (url(name, value),)
    found: list[str] = []
    for place, item in enumerate(value):
        one = url(f"{name}[{place}]", item)
        if one in found:
            raise InvalidInput(f"{name}[{place}]", f"is the same URL as {name}[{found.index(one)}]")
        found.append(one)
    if not found:
        raise InvalidInput(name, "is an empty list; name a URL, or leave the option out to read from Core")
    return tuple(found)


def _is_exposed(found: str) -> bool:
    parts = urlsplit(found)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _header(name: str, value: object) -> str:
    text = values.text(name, value)
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise InvalidInput(name, "must be printable ASCII without blanks around it, as it travels in a header")
    return text


def _timeouts(value: object) -> Timeouts:
    if value is None:
        return Timeouts()
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _seconds("timeout", value)
        standard = Timeouts()
        return Timeouts(connect=min(standard.connect, seconds), read=min(standard.read, seconds), total=seconds)
    if not isinstance(value, Timeouts):
        raise InvalidInput("timeout", "must be seconds, or Timeouts(connect=, read=, total=)")
    for name in ("connect", "read", "total"):
        _seconds(f"timeout.{name}", getattr(value, name))
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise InvalidInput(name, "must be a number of seconds above 0")
    return float(value)


def _tls(value: object) -> Tls:
    if value is None:
        return Tls()
    if not isinstance(value, Tls):
        raise InvalidInput("tls", "must be Tls(ca_file=, ca_only=, client_cert=, client_key=)")
    if value.ca_only and value.ca_file is None:
        raise InvalidInput("tls", "ca_only needs a ca_file")
    if (value.client_cert is None) != (value.client_key is None):
        raise InvalidInput("tls", "client_cert and client_key belong together")
    given = [name for name in ("ca_file", "client_cert", "client_key") if getattr(value, name) is not None]
    for name in given:
        value.read(name)
    if given:
        value.context()  # not every engine says that a file holds no certificate
    return value


def _http_client(value: object, tls: object) -> httpx.AsyncClient | None:
    if value is None:
        return None
    import httpx

    if not isinstance(value, httpx.AsyncClient):
        raise InvalidInput("http_client", "must be an httpx.AsyncClient")
    if tls is not None:
        raise InvalidInput("tls", "has no effect on a client of your own; give it to the http_client")
    return value


def _count(name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(name, f"must be a whole number of at least {least}")
    return value


def _one_of(name: str, value: object, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise InvalidInput(name, f"must be one of {', '.join(known)}")
    return value


def utc_now() -> datetime:
    return datetime.now(UTC)


def tenant_id(value: object) -> str:
    return values.tenant("tenant_id", value)


def clock(value: object) -> Clock:
    if not callable(value):
        raise InvalidInput("clock", "must be a function that returns a timezone-aware datetime")
    values.instant("clock", value())
    return value


def durability(value: object) -> Durability:
    found: Durability = _one_of("durability", value, get_args(Durability))
    return found


def path(value: object, *, name: str = "path") -> str | None:
    """The file of an embedded store; ``None`` for one in memory."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise InvalidInput(name, f"must be a path, not {type(value).__name__}")
    found = os.fspath(value)
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidInput(name, "must be the path of a file, as text")
    return str(Path(found))


class Environment:
    """The options that ``from_env`` finds: of a store over HTTP if there is a URL, else of an embedded one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.core_url = environment.get(CORE_URL) or None
        self.query_url = _several(environment.get(QUERY_URL) or None)
        self.api_key = environment.get(API_KEY) or None
        self.path: str | None = None
        if self.core_url is not None:
            url(CORE_URL, self.core_url)
            if self.query_url is not None:
                query_urls(QUERY_URL, self.query_url)
            if self.api_key is not None:
                _header(API_KEY, self.api_key)
        else:
            found = environment.get(EMBEDDED_PATH)
            if not found:
                raise InvalidInput(
                    EMBEDDED_PATH, f"is not set, and neither is {CORE_URL}; one must say where the store is"
                )
            self.path = path(found, name=EMBEDDED_PATH)
        self.tenant_id = values.tenant(TENANT, environment.get(TENANT) or "default")


def _several(text: str | None) -> str | list[str] | None:
    """A variable that may hold several values, separated by commas."""
    if text is None or "," not in text:
        return text
    return [part.strip() for part in text.split(",")]
