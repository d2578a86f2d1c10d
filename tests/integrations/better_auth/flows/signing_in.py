"""Sign-in methods and second factors."""

from __future__ import annotations

import base64
import hmac
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from better_auth.plugins_ext.admin import AdminPlugin
from better_auth.plugins_ext.email_otp import EmailOTPPlugin
from better_auth.plugins_ext.magic_link import MagicLinkPlugin
from better_auth.plugins_ext.passkey import PasskeyPlugin
from better_auth.plugins_ext.two_factor import TwoFactorPlugin
from better_auth.plugins_ext.username import UsernamePlugin

from tests.integrations.better_auth.authenticator import Authenticator
from tests.integrations.better_auth.flows.registry import PAST, flow, note, put
from tests.integrations.better_auth.site import BASE, PASSWORD, Browser, Site

__all__: list[str] = []


@flow(lambda site: {"plugins": [UsernamePlugin()]})
async def username(site: Site) -> None:
    ada, bob = await site.browser(), await site.browser()
    await ada.post("/is-username-available", username="ada")
    await ada.sign_up("ada", username="Ada", displayUsername="The Countess")
    await ada.post("/is-username-available", username="ADA")
    given = {"name": "Bob", "email": "bob@example.org", "password": PASSWORD}
    await bob.post("/sign-up/email", 400, username="ADA", **given)
    await bob.post("/sign-up/email", 400, username="a", **given)
    await bob.sign_up("bob", username="bob")
    await bob.post("/sign-in/username", username="ADA", password=PASSWORD)
    await bob.post("/sign-in/username", 401, username="ada", password="wrong password")
    await bob.post("/sign-in/username", 401, username="nobody", password=PASSWORD)
    await ada.post("/update-user", username="lovelace")
    await ada.post("/update-user", 400, username="bob")
    await ada.post("/update-user", displayUsername="Countess of Lovelace")
    await ada.get("/get-session")
    await bob.post("/sign-in/username", 401, username="ada", password=PASSWORD)
    await ada.post("/is-username-available", 422, username="a")


@flow(
    lambda site: {
        "plugins": [
            UsernamePlugin(min_username_length=2, display_username_validator=lambda name: "admin" not in name.lower()),
            EmailOTPPlugin(send_verification_otp=site.post_office()),
            AdminPlugin(),
        ]
    }
)
async def username_of_another_way_in(site: Site) -> None:
    """A username that is set through the routes of other plugins."""
    ada, bob = await site.browser(), await site.browser()

    async def come(browser: Browser, who: str, expect: int = 200, /, **more: Any) -> None:
        email = f"{who}@example.org"
        await browser.post("/email-otp/send-verification-otp", email=email, type="sign-in")
        await browser.post("/sign-in/email-otp", expect, email=email, otp=site.sent[-1]["otp"], **more)
        await browser.get("/get-session")

    await come(ada, "ada", username="Al", displayUsername="Countess")
    await come(bob, "bob", 400, username="al")
    await come(bob, "bob", 400, username="bo", displayUsername="The Admin")
    await come(bob, "bob", username="bo", name="Bob")
    bob_id = (await bob.get("/get-session"))["user"]["id"]
    await put(site, "user", "email", "ada@example.org", role="admin")
    await ada.post("/admin/update-user", 400, userId=bob_id, data={"username": "al"})
    await ada.post("/admin/update-user", userId=bob_id, data={"username": "bobby"})
    await ada.post("/is-username-available", username="bo")


def _totp(uri: str) -> str:
    """Return the TOTP code of the current 30 seconds."""
    key = base64.b32decode(
        parse_qs(urlsplit(uri).query)["secret"][0] + "======"[: -len(parse_qs(urlsplit(uri).query)["secret"][0]) % 8]
    )
    mac = hmac.digest(key, int(time.time() // 30).to_bytes(8, "big"), "sha1")
    start = mac[-1] & 15
    return f"{(int.from_bytes(mac[start : start + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


@flow(lambda site: {"plugins": [TwoFactorPlugin(issuer="Test", otp_options={"send_otp": site.post_office()})]})
async def two_factor(site: Site) -> None:
    ada = await site.browser()
    await ada.sign_up("ada")
    await ada.post("/two-factor/enable", 400, password="wrong password")
    made = await ada.post("/two-factor/enable", password=PASSWORD)
    await ada.post("/two-factor/get-totp-uri", password=PASSWORD)
    await ada.post("/two-factor/verify-totp", 401, code="000000")
    await ada.post("/two-factor/verify-totp", code=_totp(made["totpURI"]))
    await ada.get("/get-session")
    await ada.post("/sign-out")
    phone = await site.browser()
    await phone.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await phone.get("/get-session")
    await phone.post("/two-factor/send-otp")
    await phone.post("/two-factor/verify-otp", 401, code="wrong")
    await phone.post("/two-factor/verify-otp", code=site.sent[-1]["otp"])
    await phone.get("/get-session")
    other = await site.browser()
    await other.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await other.post("/two-factor/verify-backup-code", 401, code="wrong")
    await other.post("/two-factor/verify-backup-code", code=made["backupCodes"][0], trustDevice=True)
    await other.post("/sign-out")
    await other.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    third = await site.browser()
    await third.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await third.post("/two-factor/verify-backup-code", 401, code=made["backupCodes"][0])
    await third.post("/two-factor/verify-backup-code", code=made["backupCodes"][1])
    await third.post("/two-factor/generate-backup-codes", password=PASSWORD)
    await third.post("/two-factor/disable", password=PASSWORD)
    await third.get("/get-session")
    await third.post("/two-factor/enable", password=PASSWORD)


@flow(
    lambda site: {
        "plugins": [
            TwoFactorPlugin(
                otp_options={"send_otp": site.post_office(), "store_otp": "encrypted", "allowed_attempts": 2},
                backup_code_options={"amount": 2, "store_backup_codes": "plain"},
                account_lockout={"enabled": True, "max_failed_attempts": 7, "duration_seconds": 600},
            )
        ]
    }
)
async def two_factor_that_locks(site: Site) -> None:
    ada, phone = await site.browser(), await site.browser()
    ada_id = (await ada.sign_up("ada"))["user"]["id"]
    # With codes that are sent, and then with an app as well.
    await ada.post("/two-factor/send-otp")
    await ada.post("/two-factor/verify-otp", code=site.sent[-1]["otp"])
    await ada.get("/get-session")
    await ada.post("/two-factor/enable", password=PASSWORD, method="otp")
    await ada.post("/two-factor/enable", password=PASSWORD)
    made = await ada.post("/two-factor/enable", password=PASSWORD)  # the first one was never used
    await ada.post("/two-factor/verify-totp", code=_totp(made["totpURI"]))
    await ada.post("/two-factor/enable", 400, password=PASSWORD)
    note(site, "view_backup_codes", (await site.auth.plugins[0].view_backup_codes(ada_id))["backupCodes"])

    async def begin() -> None:
        await phone.post("/sign-in/email", email="ada@example.org", password=PASSWORD)

    await begin()
    for expect in (401, 401, 401, 401, 401, 400, 401):
        await phone.post("/two-factor/verify-totp", expect, code="wrong")
    await phone.post("/two-factor/verify-totp", 401, code=_totp(made["totpURI"]))
    await begin()
    await phone.post("/two-factor/send-otp")
    for expect in (401, 401, 429, 429):
        await phone.post("/two-factor/verify-otp", expect, code="wrong")
    await phone.post("/two-factor/verify-totp", 429, code=_totp(made["totpURI"]))
    await put(site, "twoFactor", "userId", ada_id, lockedUntil=PAST)
    await phone.post("/two-factor/verify-totp", code=_totp(made["totpURI"]), trustDevice=True)
    # A device that is trusted is not asked again, until the second factor is given up.
    await phone.post("/sign-out")
    await begin()
    await phone.get("/get-session")
    await phone.post("/two-factor/disable", 400, password="wrong password")
    await phone.post("/two-factor/disable", password=PASSWORD)
    await begin()
    await phone.get("/get-session")
    await phone.post("/two-factor/get-totp-uri", 400, password=PASSWORD)
    await phone.post("/two-factor/verify-totp", 400, code="000000")
    await phone.post("/two-factor/generate-backup-codes", 400, password=PASSWORD)


@flow(
    lambda site: {
        "plugins": [
            TwoFactorPlugin(
                skip_verification_on_enable=True,
                allow_passwordless=True,
                two_factor_table="secondFactor",
                totp_options={"digits": 6},
            ),
            MagicLinkPlugin(send_magic_link=site.post_office()),
        ]
    }
)
async def two_factor_without_password(site: Site) -> None:
    ada = await site.browser()
    await ada.post("/sign-in/magic-link", email="ada@example.org", name="Ada")
    await ada.get("/magic-link/verify", token=site.sent[-1]["token"])
    made = await ada.post("/two-factor/enable", issuer="Elsewhere")
    await ada.get("/get-session")
    await ada.post("/two-factor/get-totp-uri")
    await ada.post("/two-factor/verify-backup-code", code=made["backupCodes"][0], disableSession=True)
    await ada.post("/two-factor/verify-backup-code", 401, code=made["backupCodes"][0])
    await ada.post("/two-factor/generate-backup-codes")
    await ada.post("/two-factor/enable", 400, method="otp")
    await ada.post("/two-factor/disable")
    await ada.get("/get-session")


@flow(lambda site: {"plugins": [PasskeyPlugin(rp_id="auth.test", rp_name="Test", origin=BASE)]})
async def passkey(site: Site) -> None:
    ada = await site.browser()
    await ada.sign_up("ada")
    key = Authenticator("auth.test", BASE)
    options = await ada.get("/passkey/generate-register-options", name="key")
    made = await ada.post("/passkey/verify-registration", response=key.register(options), name="my key")
    await ada.post("/passkey/verify-registration", 400, response=key.register(options), name="again")
    await ada.get("/passkey/list-user-passkeys")
    await ada.post("/passkey/update-passkey", id=made["id"], name="renamed")
    phone = await site.browser()
    for _ in range(2):
        options = await phone.get("/passkey/generate-authenticate-options")
        await phone.post("/passkey/verify-authentication", response=key.sign(options))
        await phone.get("/get-session")
    await phone.post("/passkey/verify-authentication", 400, response=key.sign(options))
    eve = await site.browser()
    await eve.sign_up("eve")
    await eve.post("/passkey/delete-passkey", 401, id=made["id"])
    await ada.post("/passkey/delete-passkey", id=made["id"])
    await ada.get("/passkey/list-user-passkeys")
    await ada.post("/passkey/delete-passkey", 401, id=made["id"])


def _whoever(ctx: Any, context: str) -> dict[str, str]:
    return {"id": context, "name": "whoever"}


@flow(
    lambda site: {
        "plugins": [
            PasskeyPlugin(
                rp_id="auth.test",
                rp_name="Test",
                origin=BASE,
                registration={"require_session": False, "resolve_user": _whoever},
            )
        ]
    }
)
async def passkey_before_any_session(site: Site) -> None:
    ada, phone = await site.browser(), await site.browser()
    ada_id = (await ada.sign_up("ada"))["user"]["id"]
    key = Authenticator("auth.test", BASE)
    options = await phone.get("/passkey/generate-register-options", context=ada_id)
    await phone.post("/passkey/verify-registration", response=key.register(options), createSession=True)
    await phone.get("/get-session")
    await phone.get("/passkey/list-user-passkeys")
    third = await site.browser()
    options = await third.get("/passkey/generate-register-options", context="nobody")
    await third.post("/passkey/verify-registration", 500, response=key.register(options), createSession=True)
    await third.post("/passkey/verify-registration", 400, response=key.register(options))
