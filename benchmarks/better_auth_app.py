"""The application that `better_auth_http` measures: ``better_auth`` behind FastAPI.

The environment names the database: ``BENCH_FILE`` (embedded), ``BENCH_CORE`` with ``BENCH_KEY`` and ``BENCH_TENANT`` (an
Allsource), or ``BENCH_SQL`` (the adapter of ``better_auth`` itself).
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

# The benchmark compares databases. Hashing a password at full strength takes a hundred times as long as the rest of a request.
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
    environment = os.environ
    if "BENCH_SQL" in environment:
        return SQLAlchemyAdapter(create_async_engine(environment["BENCH_SQL"], pool_size=CONNECTIONS, max_overflow=0))
    if "BENCH_FILE" in environment:
        return AllsourceDatabaseAdapter(AllsourceAuthAdapter.embedded(environment["BENCH_FILE"]))
    core, key, tenant = environment["BENCH_CORE"], environment["BENCH_KEY"] or None, environment["BENCH_TENANT"]
    return AllsourceDatabaseAdapter(AllsourceAuthAdapter(core, None, key, tenant_id=tenant))


def app() -> Any:
    served = FastAPI()
    served.include_router(BetterAuthFastAPI(authentication(_adapter())).router)
    return served
