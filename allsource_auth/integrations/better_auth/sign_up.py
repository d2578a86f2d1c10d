"""``AtomicSignUp``: the framework's ``/sign-up/email`` as one transaction.

Version 1.1 writes the user, the account with the password and the session one after another, on any database: whoever is
interrupted in between leaves a user who cannot sign in and whose email is taken. A plugin's routes come before the
framework's own, so this one stands in front of it and runs it inside of a transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

from better_auth.auth import BetterAuth
from better_auth.endpoints import sign_up_email
from better_auth.plugins import Plugin, Route
from better_auth.types import AuthResponse, Ctx

from allsource_auth.errors import Conflict, InvalidInput
from allsource_auth.integrations.better_auth.adapter import AllsourceDatabaseAdapter, UniqueViolation

__all__ = ["AtomicSignUp"]

Step = Callable[[], Awaitable[Any]]


class AtomicSignUp(Plugin):
    """Make sign-up by email one append: user, account and session are all there, or nothing is.

    ``BetterAuth(adapter=AllsourceDatabaseAdapter(store), plugins=[AtomicSignUp()])``. Answers stay those of the framework. The
    ``after`` hooks of the database, and the letter that verifies an email, wait until everything is stored.

    Raises `InvalidInput` when `BetterAuth` is made with another adapter.
    """

    id = "allsource-atomic-sign-up"

    def init(self, auth: BetterAuth) -> None:
        """Look whether the database is ours; the framework calls it."""
        if not isinstance(auth.adapter, AllsourceDatabaseAdapter):
            raise InvalidInput("adapter", "AtomicSignUp needs an AllsourceDatabaseAdapter as the database")

    def routes(self) -> list[Route]:
        """The one route, which the framework finds before its own."""
        return [("POST", "/sign-up/email", _sign_up)]


async def _sign_up(ctx: Ctx) -> AuthResponse:
    waiting: list[Step] = []
    try:
        response = await _as_one(ctx, waiting)
    except Conflict:
        # Somebody was faster. The framework looks first, and answers as it answers those who come a moment later.
        try:
            response = await _as_one(ctx, waiting)
        except Conflict as conflict:
            raise UniqueViolation(conflict.kind, conflict) from None
    for step in waiting:
        await step()
    return response


async def _as_one(ctx: Ctx, waiting: list[Step]) -> AuthResponse:
    """The framework's sign-up as a transaction; what is to come after it is in ``waiting`` then."""
    auth = ctx.auth

    async def inside(_: Any) -> AuthResponse:
        waiting.clear()
        ctx.auth, ctx.new_session = _deferring(auth, waiting), None
        response: AuthResponse = await sign_up_email(ctx)
        return response

    try:
        response: AuthResponse = await auth.adapter.transaction(inside)
    finally:
        ctx.auth = auth
    return response


def _deferring(auth: BetterAuth, waiting: list[Step]) -> BetterAuth:
    """The application for one request, whose hooks and letters ``waiting`` takes."""
    deferring = copy(auth)
    deferring.internal = copy(auth.internal)
    deferring.internal._after_queue = waiting  # pyright: ignore[reportPrivateUsage]  # there is no public way
    send = auth.email_verification.send_verification_email
    if send is not None:

        async def later(*letter: Any) -> None:
            waiting.append(partial(send, *letter))

        deferring.email_verification = replace(auth.email_verification, send_verification_email=later)
    return deferring
