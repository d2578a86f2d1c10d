"""Closing a store waits for the thread of the connection pool."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from allsource_auth import StoreClosed, Tls
from tests.store.allsource.local import Local


async def test_close_waits_for_the_thread_of_the_pool(
    newer: Local, engine: Tls | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool's thread releases the interpreter's lock while it wakes the event loop; here that takes long.

    If the interpreter ended meanwhile, the thread would abort the process.
    """
    loop = asyncio.get_running_loop()
    wake = loop._write_to_self  # type: ignore[attr-defined]
    entered = left = 0

    def slowly() -> None:
        nonlocal entered, left
        if threading.current_thread() is threading.main_thread():
            wake()
            return
        entered += 1
        wake()
        time.sleep(0.1)
        left += 1

    adapter = newer.adapter()
    assert await adapter.users.get("nobody") is None
    monkeypatch.setattr(loop, "_write_to_self", slowly)
    assert await adapter.users.get("nobody") is None
    await adapter.aclose()
    assert entered == left
    if engine is None:
        assert entered


async def test_inherited_store_can_be_closed_in_a_forked_process(newer: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool cannot create another client in the child process."""

    def refused() -> None:
        raise RuntimeError("A pyreqwest runtime was initialized before fork().")

    adapter = newer.adapter()
    assert await adapter.users.get("nobody") is None
    monkeypatch.setattr("pyreqwest.client.SyncClientBuilder", refused)
    await adapter.aclose()
    with pytest.raises(StoreClosed):
        await adapter.users.get("nobody")
