"""The package itself: accounts, sessions, passwords, addresses, the limit of requests."""

from __future__ import annotations

from typing import Any

from better_auth import EmailAndPassword
from better_auth.config import (
    ChangeEmailOptions,
    DeleteUserOptions,
    EmailVerification,
    RateLimit,
    SessionOptions,
    UserOptions,
)
from better_auth.schema import Field

from ..site import PASSWORD, Site
from .registry import NEW, flow, token_of

__all__: list[str] = []


def _core(site: Site) -> dict[str, Any]:
    letter = site.post_office("user", "url", "token")
    return {
        "email_and_password": EmailAndPassword(
            enabled=True, send_reset_password=letter, revoke_sessions_on_password_reset=True
        ),
        "email_verification": EmailVerification(send_verification_email=letter, send_on_sign_up=True),
        "user": UserOptions(
            change_email=ChangeEmailOptions(enabled=True),
            delete_user=DeleteUserOptions(enabled=True),
            additional_fields={
                "theme": Field("string"),
                "level": Field("number", default=1),
                "tags": Field("string[]"),
                "settings": Field("json"),
            },
        ),
        "session": SessionOptions(additional_fields={"device": Field("string")}),
    }


@flow(_core)
async def core(site: Site) -> None:
    ada, phone, nobody = await site.browser(), await site.browser(), await site.browser()
    await nobody.get("/ok")
    await nobody.get("/get-session")
    await nobody.get("/list-sessions", 401)
    await nobody.post("/sign-in/email", 401, email="ada@example.org", password=PASSWORD)
    await nobody.post("/sign-up/email", 400, name="A", email="not an address", password=PASSWORD)
    await nobody.post("/sign-up/email", 400, name="A", email="a@example.org", password="short")
    await ada.sign_up("ada", email="Ada@Example.org", theme="dark", tags=["a", "b"])
    await nobody.post("/sign-up/email", 422, name="A", email="ADA@example.org", password=PASSWORD)
    await ada.get("/get-session")
    await phone.post("/sign-in/email", 401, email="ada@example.org", password="wrong password")
    await phone.post("/sign-in/email", email="ada@example.org", password=PASSWORD, rememberMe=False)
    sessions = await ada.get("/list-sessions")
    assert len(sessions) == 2
    await ada.post("/update-user", name="Countess", image="https://example.org/a.png", theme=None)
    await ada.post("/update-user", settings={"a": [1, None, {"b": "c"}]}, level=7, tags=[])
    await ada.post("/update-user", 400, email="other@example.org")
    await ada.post("/update-session", device="laptop")
    await ada.get("/get-session")
    await ada.post("/verify-password", password=PASSWORD)
    await ada.post("/verify-password", 400, password="wrong password")
    await ada.get("/list-accounts")
    await ada.post("/revoke-session", token=next(one["token"] for one in sessions if one != sessions[0]))
    await ada.post("/revoke-session", token="unknown")
    await phone.get("/get-session")
    # The address is proven, changed, and proven again.
    await ada.get("/verify-email", token=token_of(site.sent[0]["url"]))
    await ada.get("/get-session")
    await ada.post("/send-verification-email", email="ada@example.org")
    await ada.post("/change-email", newEmail="countess@example.org", callbackURL="/")
    await ada.get("/verify-email", token=token_of(site.sent[-1]["url"]))
    await ada.get("/get-session")
    await ada.get("/verify-email", 401, token="no token")
    # The password is changed, and forgotten.
    await phone.post("/sign-in/email", email="countess@example.org", password=PASSWORD)
    await ada.post("/change-password", 400, currentPassword="wrong password", newPassword=NEW)
    await ada.post("/change-password", currentPassword=PASSWORD, newPassword=NEW, revokeOtherSessions=True)
    await phone.get("/get-session")
    await ada.get("/get-session")
    await nobody.post("/request-password-reset", email="nobody@example.org", redirectTo="/reset")
    await nobody.post("/request-password-reset", email="countess@example.org", redirectTo="/reset")
    token = token_of(site.sent[-1]["url"].partition("?")[0])
    await nobody.get(f"/reset-password/{token}", 302, callbackURL="/reset")
    await nobody.get("/reset-password/unknown", 302, callbackURL="/reset")
    await nobody.post("/reset-password", 400, newPassword="short", token=token)
    await nobody.post("/reset-password", newPassword=PASSWORD, token=token)
    await nobody.post("/reset-password", 400, newPassword=NEW, token=token)
    await ada.get("/get-session")
    await nobody.post("/sign-in/email", 401, email="countess@example.org", password=NEW)
    await ada.post("/sign-in/email", email="countess@example.org", password=PASSWORD)
    await phone.post("/sign-in/email", email="countess@example.org", password=PASSWORD)
    await ada.post("/revoke-other-sessions")
    await phone.get("/get-session")
    await phone.post("/sign-in/email", email="countess@example.org", password=PASSWORD)
    await phone.post("/revoke-sessions")
    await ada.get("/get-session")
    await ada.post("/sign-in/email", email="countess@example.org", password=PASSWORD)
    await ada.post("/unlink-account", 400, accountId="unknown")
    await ada.post("/sign-out")
    await ada.get("/get-session")
    await ada.post("/sign-in/email", email="countess@example.org", password=PASSWORD)
    await ada.post("/delete-user", 400, password="wrong password")
    await ada.post("/delete-user", password=PASSWORD)
    await ada.get("/get-session")
    await ada.post("/sign-in/email", 401, email="countess@example.org", password=PASSWORD)
    await ada.sign_up("countess")


@flow(
    lambda site: {
        "email_and_password": EmailAndPassword(enabled=True, require_email_verification=True),
        "email_verification": EmailVerification(
            send_verification_email=site.post_office("user", "url", "token"), auto_sign_in_after_verification=True
        ),
        "user": UserOptions(
            delete_user=DeleteUserOptions(
                enabled=True, send_delete_account_verification=site.post_office("user", "url", "token")
            )
        ),
    }
)
async def verification_first(site: Site) -> None:
    ada = await site.browser()
    await ada.sign_up("ada")
    await ada.sign_up("ada")  # the same answer, so that nobody learns who is there
    await ada.post("/sign-in/email", 403, email="ada@example.org", password=PASSWORD)
    await ada.get("/verify-email", token=token_of(site.sent[-1]["url"]))
    await ada.get("/get-session")
    await ada.post("/delete-user", callbackURL="/gone")
    token = token_of(site.sent[-1]["url"])
    await ada.get("/delete-user/callback", token=token)
    await ada.get("/get-session")


@flow(lambda site: {"rate_limit": RateLimit(enabled=True, storage="database", window=60, max=5)})
async def rate_limit(site: Site) -> None:
    ada = await site.browser()
    for _ in range(5):
        await ada.get("/get-session")
    await ada.get("/get-session", 429)
    await ada.get("/ok")
