"""Options of the adapter. They are validated when the adapter is created, and errors name the option."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, get_args
from urllib.parse import urlsplit

import msgspec

from allsource_auth import values
from allsource_auth.errors import InvalidInput

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Clock",
    "Connection",
    "ConnectionOptions",
    "Consistency",
    "Durability",
    "Timeouts",
    "Tls",
    "TrustStore",
]

Clock = Callable[[], datetime]
"""Returns the current time as a timezone-aware datetime."""

Durability = Literal["full", "normal"]
"""``full``: acknowledged writes survive a power failure. ``normal``: they survive a crash of the process."""

TrustStore = Literal["certifi", "system"]
"""Whose authorities are trusted: ``certifi`` those of that package, ``system`` those of the operating system."""

Consistency = Literal["strong", "eventual"]
"""What reads request from a Query Service with replicas: ``strong`` the leader, ``eventual`` any replica."""

MAX_IN_FLIGHT = 16
"""Core 0.27 serves 16 requests at a time ("Admission" in docs/reference/allsource-api.md)."""

MAX_QUEUED = 20_000

CORE_URL = "ALLSOURCE_CORE_URL"
QUERY_URL = "ALLSOURCE_QUERY_URL"
API_KEY = "ALLSOURCE_API_KEY"
EMBEDDED_PATH = "ALLSOURCE_EMBEDDED_PATH"
TENANT = "ALLSOURCE_TENANT"

_log = logging.getLogger("allsource_auth")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits of one HTTP request, in seconds. Time in the request queue does not count.

    The first read after a start of Core loads the events of the tenant, about 10 s for 90,000 events. Leave room for it.
    """

    connect: float = 5.0
    """Seconds until the connection is established."""
    read: float = 30.0
    """Seconds until the next bytes of the response arrive."""
    total: float = 60.0
    """Seconds from the start of connecting to the last byte of the response."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS settings: trusted authorities and client certificate. All files are PEM files.

    By default the authorities of the package ``certifi`` are trusted, or those in the file and the folder that the environment
    variables ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name. Verification cannot be disabled.
    """

    ca_file: str | os.PathLike[str] | None = None
    """File with further trusted authorities."""
    ca_only: bool = False
    """Trust only the authorities in ``ca_file``. It excludes ``store``."""
    store: TrustStore | None = None
    """Whose authorities are trusted, besides those in ``ca_file``: ``"certifi"`` (default), or ``"system"`` for those of the
    operating system, which needs the extra ``truststore``."""
    client_cert: str | os.PathLike[str] | None = None
    """File with the certificate to authenticate with, if the server requests one. Needs ``client_key``."""
    client_key: str | os.PathLike[str] | None = None
    """File with the private key of ``client_cert``. The key must not be encrypted."""

    def context(self) -> ssl.SSLContext:
        """Return an SSL context with these settings, for HTTP/1.1. It loads files, which takes milliseconds.

        Raises `InvalidInput` if a file is not a valid PEM file.
        """
        if self.store == "system":
            import truststore

            context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if not self.ca_only:
                _load_default_authorities(context)
        self.load(context)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Load the given files into ``context``. Raises `InvalidInput` if one cannot be read or is not a valid PEM file."""
        for name in ("ca_file", "client_cert", "client_key"):
            self._check_readable(name)
        reason = ""
        try:
            if self.ca_file is not None:
                context.load_verify_locations(self.ca_file)
        except (OSError, ValueError):
            reason = "the ca_file must be a PEM file with a certificate"
        try:
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key, password="")
        except (OSError, ValueError):
            reason = "client_cert and client_key must be PEM files of a certificate and of its unencrypted key"
        if reason:
            raise InvalidInput("tls", reason)

    def _check_readable(self, name: str) -> None:
        path = getattr(self, name)
        if path is None:
            return
        try:
            Path(path).read_bytes()
        except OSError as error:
            reason = error.strerror or "unknown error"
        else:
            return
        raise InvalidInput("tls", f"the {name} cannot be read: {reason}")


def _load_default_authorities(context: ssl.SSLContext) -> None:
    """Load what the environment names, else the authorities of certifi: the same ones on every machine."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    bundled = file is None and folder is None
    if bundled:
        import certifi

        file = certifi.where()
    try:
        context.load_verify_locations(file, folder)
    except (OSError, ValueError):
        pass
    else:
        return
    source = "of certifi" if bundled else "that SSL_CERT_FILE or SSL_CERT_DIR names"
    raise InvalidInput("tls", f"the trusted authorities {source} cannot be loaded")


class ConnectionOptions(TypedDict, total=False):
    """Optional settings of a connection over HTTP, as keyword arguments."""

    timeout: float | Timeouts | None
    """Time limit of one request: seconds in total, or `Timeouts`. Time in the request queue does not count."""
    tls: Tls | None
    """The trusted authorities and the client certificate, for https."""
    http_client: httpx.AsyncClient | None
    """An existing client to send all requests with. The caller closes it. It excludes ``tls``."""
    max_in_flight: int
    """The maximum number of concurrent requests to each server, 16 by default: as many as Core 0.27 serves at a time. Others
    are queued. Appends leave a quarter of them to reads."""
    max_queued: int
    """The maximum number of requests in the queue of each server, 20,000 by default. One more raises `Overloaded`."""
    read_consistency: Consistency
    """What reads request from a Query Service with replicas: ``"strong"`` (default) or ``"eventual"``. See `Consistency`."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Validated settings of a connection to an Allsource, created by `connection`."""

    core_url: str
    query_urls: tuple[str, ...]
    """The URLs of Query Services. Empty if Core serves all reads."""
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
    """Validate the options of a store over HTTP.

    Logs a warning for an ``http`` URL whose host is not loopback.

    Args:
        core_url: URL of Core.
        query_url: URL of a Query Service, or a sequence of URLs.
        api_key: the API key, if one is required.
        **options: see `ConnectionOptions`.

    Raises:
        InvalidInput: an option is invalid; the error names it.
        TypeError: an option is unknown.
    """
    if unknown := options.keys() - ConnectionOptions.__annotations__.keys():
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    timeout, tls = options.get("timeout"), options.get("tls")
    core = url("core_url", core_url)
    queries = () if query_url is None else query_urls("query_url", query_url)
    exposed = [base_url for base_url in (core, *queries) if _is_exposed(base_url)]
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
        _log.warning("plain http to %s: passwords and tokens are sent unencrypted; use https", exposed[0])
    return found


def url(name: str, value: object) -> str:
    """Validate a base URL and return it without a trailing slash. It may have a path.

    Raises `InvalidInput`. The message does not repeat the URL, which may contain credentials.
    """
    text = values.text(name, value)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidInput(name, "is not a URL such as http://localhost:3900") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidInput(name, "must begin with http:// or https://")
    if "@" in parts.netloc:
        raise InvalidInput(name, "must not contain a user name or password; use the option api_key for an API key")
    if not host or port == 0 or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidInput(name, "is not a URL such as http://localhost:3900")
    if parts.query or parts.fragment:
        raise InvalidInput(name, "must not have a query or a fragment")
    return text.rstrip("/")


def query_urls(name: str, value: object) -> tuple[str, ...]:
    """Validate one read URL or a sequence of different ones. Raises `InvalidInput` that names an item as ``name[1]``."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return (url(name, value),)
    found: list[str] = []
    for number, item in enumerate(cast("Sequence[object]", value)):
        one = url(f"{name}[{number}]", item)
        if one in found:
            raise InvalidInput(f"{name}[{number}]", f"is the same URL as {name}[{found.index(one)}]")
        found.append(one)
    if not found:
        raise InvalidInput(name, "is an empty list; give a URL, or omit the option to read from Core")
    return tuple(found)


def _is_exposed(base_url: str) -> bool:
    """Return whether a URL sends credentials unencrypted to a host that is not loopback."""
    parts = urlsplit(base_url)
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
        raise InvalidInput(name, "must be printable ASCII without surrounding spaces, because it is sent in a header")
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
        raise InvalidInput("tls", "must be Tls(ca_file=, ca_only=, store=, client_cert=, client_key=)")
    if value.ca_only and value.ca_file is None:
        raise InvalidInput("tls", "ca_only needs a ca_file")
    if value.store is not None:
        _one_of("tls.store", value.store, get_args(TrustStore))
        if value.ca_only:
            raise InvalidInput("tls", "ca_only excludes store: it trusts the authorities in ca_file alone")
        if value.store == "system" and find_spec("truststore") is None:
            raise InvalidInput("tls", 'store="system" needs a package; install allsource-auth[truststore]')
    if (value.client_cert is None) != (value.client_key is None):
        raise InvalidInput("tls", "client_cert and client_key must be given together")
    value.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # an unusable file is refused here, not at the first connection
    return value


def _http_client(value: object, tls: object) -> httpx.AsyncClient | None:
    if value is None:
        return None
    import httpx

    if not isinstance(value, httpx.AsyncClient):
        raise InvalidInput("http_client", "must be an httpx.AsyncClient")
    if tls is not None:
        raise InvalidInput("tls", "cannot be combined with http_client; configure TLS on that client")
    return value


def _count(name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(name, f"must be an integer of at least {least}")
    return value


def _one_of(name: str, value: object, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise InvalidInput(name, f"must be one of {', '.join(known)}")
    return value


def utc_now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


def tenant_id(value: object) -> str:
    """Validate the option ``tenant_id``. Raises `InvalidInput`."""
    return values.tenant("tenant_id", value)


def clock(value: object) -> Clock:
    """Validate the option ``clock``; calls it once. Raises `InvalidInput`."""
    if not callable(value):
        raise InvalidInput("clock", "must be a function that returns a timezone-aware datetime")
    values.instant("clock", value())
    return cast("Clock", value)


def durability(value: object) -> Durability:
    """Validate the option ``durability``. Raises `InvalidInput`."""
    found: Durability = _one_of("durability", value, get_args(Durability))
    return found


def path(value: object, *, name: str = "path") -> str | None:
    """Validate the path of an embedded store; ``None`` stands for a store in memory. Raises `InvalidInput`."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise InvalidInput(name, f"must be a path, not {type(value).__name__}")
    found = os.fspath(cast("str | os.PathLike[str] | os.PathLike[bytes]", value))
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidInput(name, "must be a non-empty path as text")
    return str(Path(found))


class Environment:
    """The options of `AllsourceAuthAdapter.from_env`: those of a store over HTTP if there is a URL, else of an embedded one.

    Raises `InvalidInput` that names the variable.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.core_url: str | None = environment.get(CORE_URL) or None
        self.query_url: str | list[str] | None = _split(environment.get(QUERY_URL) or None)
        self.api_key: str | None = environment.get(API_KEY) or None
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
                raise InvalidInput(EMBEDDED_PATH, f"is not set, and neither is {CORE_URL}; set one of them")
            self.path = path(found, name=EMBEDDED_PATH)
        self.tenant_id: str = values.tenant(TENANT, environment.get(TENANT) or "default")


def _split(text: str | None) -> str | list[str] | None:
    """Split the value of a variable at its commas, if it has any."""
    if text is None or "," not in text:
        return text
    return [part.strip() for part in text.split(",")]
