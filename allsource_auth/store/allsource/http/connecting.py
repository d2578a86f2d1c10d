"""Opening connections: addresses, TLS, and what a failure means."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable
from math import inf

from allsource_auth.store.allsource.http.connection import Connection
from allsource_auth.store.allsource.http.failures import ConnectFailed, TimedOut, client_certificate_problem
from allsource_auth.store.allsource.http.origin import Origin

__all__ = ["open_connection"]

STAGGER = 0.25
"""Seconds after which the next address of a host is tried as well (RFC 8305 recommends 250 ms)."""

KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A connection whose server has vanished is closed after a minute, where the system lets a program choose."""


async def open_connection(
    origin: Origin, create: Callable[[], Connection], tls: ssl.SSLContext | None, *, seconds: float
) -> Connection:
    """Open a connection to ``origin`` within ``seconds``. Raises `ConnectFailed` and `TimedOut`."""
    sock: socket.socket | None = None
    connection: Connection | None = None
    failure: BaseException
    try:
        async with asyncio.timeout(None if seconds == inf else seconds):
            sock = await _connect(origin)
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                create, sock=sock, ssl=tls, server_hostname=origin.host if tls is not None else None
            )
            connection.sock = sock
            return connection
    except TimeoutError as error:
        # The system's own limit, if it is shorter, raises the same class with a number.
        ours = error.errno is None
        failure = TimedOut("connect", seconds, unsent=True) if ours else ConnectFailed(explain(error))
    except (OSError, ssl.SSLError, ValueError) as error:  # ValueError: of certificates, and of names that are too long
        failure = ConnectFailed(explain(error))
    except BaseException:
        _close(sock)
        raise
    _close(sock)
    raise failure


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.close()


async def _connect(origin: Origin) -> socket.socket:
    """A connected socket: each address of the host is tried, the next one if the one before fails or takes long."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    addresses = _alternate(list(dict.fromkeys((family, address) for family, _, _, _, address in found)))
    if len(addresses) == 1:
        return await _connect_to(*addresses[0])
    attempts: dict[asyncio.Task[socket.socket], None] = {}
    errors: list[BaseException] = []
    waiting = iter(addresses)
    connected: socket.socket | None = None
    try:
        while connected is None:
            following = next(waiting, None)
            if following is not None:
                attempts[asyncio.ensure_future(_connect_to(*following))] = None
            if not attempts:
                raise errors[0]
            done, _ = await asyncio.wait(
                attempts, timeout=STAGGER if following is not None else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                del attempts[attempt]
                if (error := attempt.exception()) is not None:
                    errors.append(error)
                elif connected is None:
                    connected = attempt.result()
                else:
                    attempt.result().close()
        return connected
    except BaseException:
        _close(connected)
        raise
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_discard)


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _alternate(addresses: list[tuple[int, tuple[object, ...]]]) -> list[tuple[int, tuple[object, ...]]]:
    """The addresses in the order of the resolver, the families in turn."""
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, os.strerror(errno.ENOENT))
    first = [each for each in addresses if each[0] == addresses[0][0]]
    others = [each for each in addresses if each[0] != addresses[0][0]]
    found = [each for pair in zip(first, others, strict=False) for each in pair]
    return found + first[len(others) :] + others[len(first) :]


async def _connect_to(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def explain(error: Exception) -> str:
    """What went wrong, for an error message. Nothing of the error's own text, which may quote the host."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_reason(error)
    if isinstance(error, ssl.SSLError):
        if "HANDSHAKE_FAILURE" in (error.reason or ""):
            return "TLS could not be negotiated; does the server require a client certificate?"
        return client_certificate_problem(error) or "TLS could not be negotiated"
    if isinstance(error, ssl.CertificateError):
        return "its TLS certificate is for another name"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "the host name does not resolve"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused; is the server running there?"
    if isinstance(error, OSError):
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return "the network is unreachable"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "this process has too many open files"
    return "the connection could not be made"


def _certificate_reason(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case 9:
            return "its TLS certificate is not valid yet"
        case 10:
            return "its TLS certificate has expired"
        case 62 | 64:
            return "its TLS certificate is for another name"
        case 2 | 18 | 19 | 20 | 21:
            return "its TLS certificate is of an unknown authority; Tls(ca_file=) adds one"
        case 23:
            return "its TLS certificate was revoked"
        case _:
            return f"its TLS certificate is not trusted (OpenSSL's verification code {error.verify_code})"
