"""Use an Allsource over HTTP: ``python examples/over_http.py [CORE_URL [QUERY_URL]]``.

Without a URL the example starts a local Allsource. The rest of the code is the same for a real one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allsource_auth import AllsourceAuthAdapter, AllsourceStore, Info, SqliteLog, Timeouts, Tls
from allsource_auth.server import LocalAllsource, serving


@asynccontextmanager
async def allsource_urls(urls: list[str]) -> AsyncIterator[list[str]]:
    """Yield the URLs of Core and of the Query Service."""
    if urls:
        yield urls
        return
    log = SqliteLog(None)
    async with serving(LocalAllsource(log)) as running:
        yield [running.core_url, running.query_url]
    await log.close()


async def main() -> None:
    async with allsource_urls(sys.argv[1:3]) as urls:
        timeouts = Timeouts(connect=2, read=10, total=20)
        async with AllsourceAuthAdapter(*urls, tenant_id="example", timeout=timeouts, tls=Tls()) as adapter:
            info: Info = await adapter.info()
            print(f"server: {info.server} {info.server_version}, HTTP engine: {info.engine}")

            users = await asyncio.gather(*(adapter.users.create(name=f"User {n}") for n in range(20)))
            found = await adapter.users.get_many(user.id for user in users)
            assert list(found.values()) == users

            health = await adapter.http.get("/health")  # on the same connection pool
            assert health.json()["status"] == "healthy"

        store = AllsourceStore(*urls, tenant_id="example")  # raw events
        created = (await store.latest(f"auth-user:{users[0].id}")).event
        assert created is not None
        print(f"the newest event of {users[0].name} is {created.type}")
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
