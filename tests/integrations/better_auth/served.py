"""The application for uvicorn with several workers. The environment variable ``PLACE`` is a path or the URL of an Allsource."""

from __future__ import annotations

import os
from typing import Any

from better_auth import EmailAndPassword
from better_auth.config import RateLimit
from better_auth.plugins import Plugin
from fastapi import FastAPI

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, AtomicSignUp
from tests.integrations.better_auth.site import application

__all__ = ["database", "served"]


async def nowhere(*letter: Any) -> None:
    """Discard an email. The tests read the token from the store."""


def database(store: AllsourceAuthAdapter, *plugins: Plugin) -> tuple[AllsourceDatabaseAdapter, FastAPI]:
    adapter = AllsourceDatabaseAdapter(store)
    _, app = application(
        adapter,
        plugins=list(plugins),
        email_and_password=EmailAndPassword(enabled=True, send_reset_password=nowhere),
        rate_limit=RateLimit(
            enabled=True,
            storage="database",
            window=600,
            max=100_000,
            custom_rules={"/sign-up/email": False, "/reset-password": False, "/request-password-reset": False},
        ),
    )
    return adapter, app


def served() -> FastAPI:
    place = os.environ["PLACE"]
    store = AllsourceAuthAdapter(place) if place.startswith("http") else AllsourceAuthAdapter.embedded(place)
    return database(store, AtomicSignUp())[1]
