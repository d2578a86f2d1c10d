"""``AtomicSignUp``: the framework's ``/sign-up/email`` as one transaction.

Version 1.1 of the framework writes the user, the account with the password and the session one after another, on any database.
If the request is interrupted in between, the user cannot sign in, and the email is taken. The framework matches routes of
plugins before its own. So this plugin's route handles the request and runs the framework's handler inside a transaction.
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
from allsource_auth.integrations.better_auth.adapter import AllsourceDatabaseAdapter
from allsource_auth.integrations.better_auth.unique_violation import UniqueViolation

__all__ = ["AtomicSignUp"]

Step = Callable[[], Awaitable[Any]]


class AtomicSignUp(Plugin):
    """Store the user, account and session of a sign-up by email in one append.

    ``BetterAuth(adapter=AllsourceDatabaseAdapter(store), plugins=[AtomicSignUp()])``. The responses are those of the framework.
    The ``after`` hooks of the database and the verification email run after the append.

    Raises `InvalidInput` if `BetterAuth` is created with another adapter.
    """

    id = "allsource-atomic-sign-up"

    def init(self, auth: BetterAuth) -> None:
        """Check the type of the database adapter. Called by the framework."""
        if not isinstance(auth.adapter, AllsourceDatabaseAdapter):
            raise InvalidInput("adapter", "must be an AllsourceDatabaseAdapter to use AtomicSignUp")

    def routes(self) -> list[Route]:
        """Return the route for sign-up, which takes precedence over the framework's own."""
        return [("POST", "/sign-up/email", _sign_up)]


async def _sign_up(ctx: Ctx) -> AuthResponse:
    deferred: list[Step] = []
    try:
        response = await _sign_up_in_transaction(ctx, deferred)
    except Conflict:
        # A concurrent request took the email. In a second run the framework finds it taken and returns its regular response.
        try:
            response = await _sign_up_in_transaction(ctx, deferred)
        except Conflict as conflict:
            raise UniqueViolation(conflict.kind, conflict) from None
    for step in deferred:
        await step()
    return response


async def _sign_up_in_transaction(ctx: Ctx, deferred: list[Step]) -> AuthResponse:
    """Run the framework's sign-up in a transaction. Put the steps to run after the commit in ``deferred``."""
    auth = ctx.auth

    async def inside(_: Any) -> AuthResponse:
        deferred.clear()
        ctx.auth, ctx.new_session = _copy_with_deferred_steps(auth, deferred), None
        response: AuthResponse = await sign_up_email(ctx)
        return response

    try:
        response: AuthResponse = await auth.adapter.transaction(inside)
    finally:
        ctx.auth = auth
    return response


def _copy_with_deferred_steps(auth: BetterAuth, deferred: list[Step]) -> BetterAuth:
    """Return a shallow copy of the application for one request. Its ``after`` hooks and emails are put in ``deferred``."""
    copied = copy(auth)
    copied.internal = copy(auth.internal)
    copied.internal._after_queue = deferred  # pyright: ignore[reportPrivateUsage]  # there is no public way
    send = auth.email_verification.send_verification_email
    if send is not None:

        async def later(*letter: Any) -> None:
            deferred.append(partial(send, *letter))

        copied.email_verification = replace(auth.email_verification, send_verification_email=later)
    return copied
