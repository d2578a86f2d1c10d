"""What `better_auth_http` measures: ``better_auth`` behind FastAPI, on the database that the environment names.

``BENCH_FILE`` (embedded), ``BENCH_CORE`` with ``BENCH_KEY`` and ``BENCH_TENANT`` (an Allsource), or ``BENCH_SQL`` (its own
adapter).
"""

from __future__ import annotations

import os
from typing import Any

import better_auth.crypto
from better_auth import BetterAuth, EmailAndPassword
from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
from better_auth.config import RateLimit
from better_auth.integrations.fastapi import BetterAuthFastAPI
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, AtomicSignUp

__all__ = ["BASE", "CONNECTIONS", "app", "authentication"]

BASE = "http://bench.test"
CONNECTIONS = 32

# What is compared is the store. Hashing a password at full strength takes a hundred times as long as all of it.
better_auth.crypto._SCRYPT_N = 16


def authentication(adapter: Any) -> Any:
    return BetterAuth(
        secret="a secret for the benchmarks, of 32 characters or more",
        base_url=BASE,
        email_and_password=EmailAndPassword(enabled=True),
        rate_limit=RateLimit(enabled=False),
        adapter=adapter,
        plugins=[AtomicSignUp()] if isinstance(adapter, AllsourceDatabaseAdapter) else [],
    )


def _adapter() -> Any:
    given = os.environ
    if "BENCH_SQL" in given:
        return SQLAlchemyAdapter(create_async_engine(given["BENCH_SQL"], pool_size=CONNECTIONS, max_overflow=0))
    if "BENCH_FILE" in given:
        return AllsourceDatabaseAdapter(AllsourceAuthAdapter.embedded(given["BENCH_FILE"]))
    core, key, tenant = given["BENCH_CORE"], given["BENCH_KEY"] or None, given["BENCH_TENANT"]
    return AllsourceDatabaseAdapter(AllsourceAuthAdapter(core, None, key, tenant_id=tenant))


def app() -> Any:
    served = FastAPI()
    served.include_router(BetterAuthFastAPI(authentication(_adapter())).router)
    return served
