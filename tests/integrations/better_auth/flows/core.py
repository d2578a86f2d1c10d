"""The core of the package: accounts, sessions, passwords, emails, rate limits."""

from __future__ import annotations

from typing import Any

from better_auth import EmailAndPassword
from better_auth.config import (
    ChangeEmailOptions,
    CookieCache,
    DeleteUserOptions,
    EmailVerification,
    OnAPIError,
    RateLimit,
    SessionOptions,
    UserOptions,
)
from better_auth.crypto import sign_email_verification_token
from better_auth.internal_adapter import VerificationOptions
from better_auth.plugins_ext.admin import AdminPlugin
from better_auth.plugins_ext.bearer import BearerPlugin
from better_auth.plugins_ext.device_authorization import DeviceAuthorizationPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.magic_link import MagicLinkPlugin
from better_auth.plugins_ext.multi_session import MultiSessionPlugin
from better_auth.plugins_ext.siwe import SiwePlugin
from better_auth.schema import Field
from better_auth.secondary_storage import MemorySecondaryStorage

from tests.integrations.better_auth.flows.registry import NEW, PAST, flow, note, put, token_of, where
from tests.integrations.better_auth.site import PASSWORD, Site

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
    await nobody.get("/error", error="a_reason")
    await nobody.get("/get-session")
    await nobody.post("/get-session", 405)
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
    await nobody.post("/forget-password", email="countess@example.org", redirectTo="/reset")
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


@flow(lambda site: {"rate_limit": RateLimit(enabled=True, storage="database", window=60, max=2)})
async def rate_limit_that_ends(site: Site) -> None:
    ada = await site.browser()
    for status in (200, 200, 429):
        await ada.get("/get-session", status)
    found = await site.auth.adapter.find_many("rateLimit")
    await put(site, "rateLimit", "id", found[0]["id"], lastRequest=found[0]["lastRequest"] - 120_000)
    for status in (200, 200, 429):
        await ada.get("/get-session", status)


@flow(
    lambda site: {
        "user": UserOptions(
            change_email=ChangeEmailOptions(
                enabled=True, send_change_email_confirmation=site.post_office("user", "to", "url")
            )
        ),
        "email_verification": EmailVerification(send_verification_email=site.post_office("user", "url", "token")),
        "on_api_error": OnAPIError(error_url="/oops#top"),
    }
)
async def address_confirmed_twice(site: Site) -> None:
    ada, other = await site.browser(), await site.browser()
    await ada.get("/error", 302, error="a_reason", error_description="in words")
    await ada.sign_up("ada")
    await other.sign_up("bob")
    await put(site, "user", "email", "ada@example.org", emailVerified=True)
    await ada.post("/change-email", 400, newEmail="ada@example.org")
    await ada.post("/change-email", newEmail="bob@example.org")  # the same answer, and no letter
    assert site.sent == []
    await ada.post("/change-email", newEmail="countess@example.org", callbackURL="/home")
    await other.get("/verify-email", 401, token=token_of(site.sent[-1]["url"]))
    await ada.get("/verify-email", 302, token=token_of(site.sent[-1]["url"]), callbackURL="/home")
    await ada.get("/get-session")
    third = await site.browser()
    await third.get("/verify-email", token=token_of(site.sent[-1]["url"]))  # who has no session gets one
    await third.get("/get-session")
    await ada.get("/get-session")
    # A link as it was sent before there were two steps.
    old = sign_email_verification_token(site.auth.secret, "countess@example.org", update_to="ada@example.org")
    await ada.get("/verify-email", token=old)
    await ada.get("/get-session")
    await ada.get("/verify-email", 401, token=old)
    await ada.get("/verify-email", 302, token=old, callbackURL="/home")


@flow(
    lambda site: {
        "user": UserOptions(change_email=ChangeEmailOptions(enabled=True, update_email_without_verification=True)),
        "email_and_password": EmailAndPassword(
            enabled=True, send_reset_password=site.post_office("user", "url", "token")
        ),
        "plugins": [MagicLinkPlugin(send_magic_link=site.post_office())],
    }
)
async def password_later(site: Site) -> None:
    """Three ways to set the first password of a user. An unverified email is changed without a confirmation."""
    for name in ("ada", "bob"):
        person = await site.browser()
        await person.post("/sign-in/magic-link", email=f"{name}@example.org", name=name.title())
        await person.get("/magic-link/verify", token=site.sent[-1]["token"])
        await person.get("/list-accounts")
        await person.post("/sign-in/email", 401, email=f"{name}@example.org", password=PASSWORD)
        await person.post("/change-password", 400, currentPassword=PASSWORD, newPassword=NEW)
        await person.post("/verify-password", 400, password=PASSWORD)
        if name == "ada":
            await person.post("/request-password-reset", email="ada@example.org")
            token = token_of(site.sent[-1]["url"].partition("?")[0])
            await person.post("/reset-password", newPassword=PASSWORD, token=token)
        else:
            await person.post("/set-password", newPassword=PASSWORD)
        await person.post("/set-password", 400, newPassword=PASSWORD)
        await person.post("/sign-in/email", email=f"{name}@example.org", password=PASSWORD)
        await person.get("/list-accounts")
    account = (await person.get("/list-accounts"))[0]
    await put(site, "account", "id", account["id"], password=None)
    await person.post("/sign-in/email", 401, email="bob@example.org", password=PASSWORD)
    await person.post("/set-password", newPassword=NEW)
    await person.post("/sign-in/email", email="bob@example.org", password=NEW)
    eve = await site.browser()
    await eve.sign_up("eve")
    await eve.post("/change-email", newEmail="bob@example.org")
    await eve.post("/change-email", newEmail="adam@example.org")
    await eve.get("/get-session")
    await eve.post("/sign-in/email", 401, email="eve@example.org", password=PASSWORD)
    await eve.post("/sign-in/email", email="adam@example.org", password=PASSWORD)
    # A link to a user who is gone.
    await eve.post("/request-password-reset", email="adam@example.org")
    token = token_of(site.sent[-1]["url"].partition("?")[0])
    await site.auth.adapter.delete_many("user", [where("email", "adam@example.org")])
    await eve.post("/reset-password", 400, newPassword=PASSWORD, token=token)
    await eve.get("/get-session")


async def _sessions_that_end(site: Site, *, posted: bool) -> None:
    ada, phone = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    token = (await ada.get("/get-session"))["session"]["token"]
    await ada.ask("POST", "/get-session")
    await ada.get("/get-session", disableRefresh=True)
    await phone.post("/sign-in/email", email="ada@example.org", password=PASSWORD, rememberMe=False)
    await phone.get("/get-session")
    await put(site, "session", "token", token, createdAt=PAST)
    await ada.post("/unlink-account", 403, accountId="any")
    await put(site, "session", "token", token, expiresAt=PAST)
    await phone.get("/list-sessions")
    # The request clears the cookie; that one it brings again by hand.
    cookies = dict(ada.client.cookies)
    await ada.get("/get-session")
    assert (await site.auth.adapter.count("session", [where("token", token)])) == posted
    ada.client.cookies.update(cookies)
    await ada.ask("POST", "/get-session")
    assert not await site.auth.adapter.count("session", [where("token", token)])
    await ada.get("/get-session")


@flow(lambda site: {"session": SessionOptions(update_age=0)})
async def sessions_that_slide(site: Site) -> None:
    await _sessions_that_end(site, posted=False)


@flow(lambda site: {"session": SessionOptions(update_age=0, defer_session_refresh=True)})
async def sessions_refreshed_by_post(site: Site) -> None:
    await _sessions_that_end(site, posted=True)


async def _cached(site: Site) -> None:
    ada, phone = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    await phone.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.get("/get-session")
    await ada.post("/update-user", name="Countess")
    await ada.get("/get-session")
    await phone.get("/get-session")  # what it was given
    await phone.get("/get-session", disableCookieCache=True)
    await phone.post("/revoke-other-sessions")
    await ada.get("/get-session")
    await ada.get("/get-session", disableCookieCache=True)


@flow(lambda site: {"session": SessionOptions(cookie_cache=CookieCache(enabled=True))})
async def cookie_cache(site: Site) -> None:
    await _cached(site)


@flow(
    lambda site: {
        "session": SessionOptions(cookie_cache=CookieCache(enabled=True, strategy="jwt")),
        "plugins": [JWTPlugin(session_cookie_cache=True, rotation_interval=3600)],
    }
)
async def cookie_cache_signed(site: Site) -> None:
    await _cached(site)
    await put(site, "jwks", "id", (await site.auth.adapter.find_many("jwks"))[0]["id"], expiresAt=PAST)
    ada = await site.browser()
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.get("/get-session")
    await ada.get("/jwks")


def _told(site: Site, name: str) -> Any:
    def tell(row: dict[str, Any] | None) -> None:
        site.sent.append(
            {"event": name, "row": row and {key: row[key] for key in row if key in ("email", "name", "token")}}
        )

    return tell


@flow(
    lambda site: {
        "database_hooks": {
            "user": {
                "create": {
                    "before": lambda user: {"data": {"name": user["name"].upper()}} if user["name"] != "Eve" else False,
                    "after": _told(site, "user"),
                },
                "update": {
                    "before": lambda user: False if user.get("name") == "Forbidden" else None,
                    "after": _told(site, "changed"),
                },
            },
            "session": {
                "create": {"after": _told(site, "session")},
                "delete": {"before": _told(site, "ending"), "after": _told(site, "ended")},
            },
            "account": {"create": {"after": _told(site, "account")}},
        },
        "user": UserOptions(
            delete_user=DeleteUserOptions(
                enabled=True,
                before_delete=site.post_office("user", "request"),
                send_delete_account_verification=site.post_office("user", "url", "token"),
            ),
            validate_user_info=lambda given, ctx: {"error": "no_robots"} if "robot" in given["user"]["email"] else None,
        ),
    }
)
async def hooks(site: Site) -> None:
    ada = await site.browser()
    await ada.post("/sign-up/email", 400, name="Eve", email="eve@example.org", password=PASSWORD)
    await ada.post("/sign-up/email", 403, name="Robot", email="robot@example.org", password=PASSWORD)
    await ada.sign_up("ada")
    await ada.get("/get-session")
    await ada.post("/update-user", name="Forbidden")
    await ada.post("/update-user", name="Countess")
    await ada.get("/get-session")
    await ada.post("/sign-out")
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.post("/delete-user")
    token = site.sent[-1]["token"]
    await ada.post("/delete-user", 404, token="unknown")
    await ada.post("/delete-user", token=token)
    await ada.post("/sign-in/email", 401, email="ada@example.org", password=PASSWORD)
    note(site, "hooks", [one for one in site.sent if "event" in one])


async def _kept_elsewhere(site: Site, *, impersonating: bool = True) -> None:
    """Use sessions and verifications, which the flow's options may keep in a secondary storage."""
    ada, root = await site.browser(), await site.browser()
    await ada.post("/sign-in/magic-link", email="ada@example.org", name="Ada")
    token = site.sent[-1]["token"]
    await ada.get("/magic-link/verify", 302, token="unknown", errorCallbackURL="/oops")
    await ada.get("/magic-link/verify", token=token)
    await ada.get("/magic-link/verify", 302, token=token)
    await ada.get("/get-session")
    await ada.get("/list-sessions")
    await ada.get("/multi-session/list-device-sessions")
    await ada.post("/request-password-reset", email="ada@example.org")
    token = token_of(site.sent[-1]["url"].partition("?")[0])
    for given in (token, "unknown"):
        await ada.get(f"/reset-password/{given}", 302, callbackURL="/reset")
    await ada.post("/reset-password", newPassword=PASSWORD, token=token)
    await ada.post("/reset-password", 400, newPassword=NEW, token=token)
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.get("/get-session")
    await root.sign_up("root")
    await put(site, "user", "email", "root@example.org", role="admin")
    ada_id = (await ada.get("/get-session"))["user"]["id"]
    if impersonating:
        await root.post("/admin/impersonate-user", userId=ada_id)
        await root.get("/get-session")
        await root.post("/admin/stop-impersonating")
    await root.post("/admin/list-user-sessions", userId=ada_id)
    await root.post("/admin/revoke-user-sessions", userId=ada_id)
    await ada.get("/get-session")
    await ada.post("/siwe/nonce")
    await ada.post("/siwe/get-nonce")
    await root.post("/sign-in/email", email="root@example.org", password=PASSWORD)
    television = await site.browser()
    code = await television.post("/device/code", client_id="tv")
    await root.get("/device", user_code=code["user_code"])
    await root.post("/device/approve", userCode=code["user_code"])
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "tv"}
    given = await television.post("/device/token", **grant, device_code=code["device_code"])
    headers = {"authorization": f"Bearer {given['access_token']}"}
    await television.ask("GET", "/get-session", headers=headers)
    await ada.post("/sign-out")
    for model in ("session", "verification"):
        note(site, model, await site.auth.adapter.count(model))


def _kept(site: Site, **more: Any) -> dict[str, Any]:
    return {
        "email_and_password": EmailAndPassword(
            enabled=True, send_reset_password=site.post_office("user", "url", "token")
        ),
        "plugins": [
            MagicLinkPlugin(send_magic_link=site.post_office()),
            MultiSessionPlugin(),
            AdminPlugin(),
            BearerPlugin(),
            DeviceAuthorizationPlugin(),
            SiwePlugin(domain="auth.test", get_nonce=lambda: "A1b2C3d4E5f6G7h8J", verify_message=lambda given: True),
        ],
    } | more


@flow(lambda site: _kept(site, verification=VerificationOptions(store_identifier="hashed")))
async def hashed_identifiers(site: Site) -> None:
    await _kept_elsewhere(site)


@flow(lambda site: _kept(site, secondary_storage=MemorySecondaryStorage()))
async def secondary_storage(site: Site) -> None:
    # The package makes the session of an impersonation there, and looks for it in the database.
    await _kept_elsewhere(site, impersonating=False)


@flow(
    lambda site: _kept(
        site,
        secondary_storage=MemorySecondaryStorage(),
        verification=VerificationOptions(store_in_database=True, store_identifier="hashed"),
    )
)
async def secondary_storage_and_database(site: Site) -> None:
    site.auth.internal.store_session_in_database = True  # which no option of this package sets
    await _kept_elsewhere(site)
