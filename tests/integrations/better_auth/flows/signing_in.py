"""Ways to sign in, and a second factor."""

from __future__ import annotations

import base64
import hmac
import time
from urllib.parse import parse_qs, urlsplit

from better_auth.plugins_ext.anonymous import AnonymousPlugin
from better_auth.plugins_ext.email_otp import EmailOTPPlugin
from better_auth.plugins_ext.magic_link import MagicLinkPlugin
from better_auth.plugins_ext.passkey import PasskeyPlugin
from better_auth.plugins_ext.phone_number import PhoneNumberPlugin
from better_auth.plugins_ext.siwe import SiwePlugin
from better_auth.plugins_ext.two_factor import TwoFactorPlugin
from better_auth.plugins_ext.username import UsernamePlugin

from ..authenticator import Authenticator
from ..site import BASE, PASSWORD, Site
from .registry import NEW, flow

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
    await ada.get("/get-session")
    await bob.post("/sign-in/username", 401, username="ada", password=PASSWORD)


def _totp(uri: str) -> str:
    """The code of this half minute."""
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


@flow(
    lambda site: {
        "plugins": [
            PhoneNumberPlugin(
                send_otp=site.post_office("data"),
                send_password_reset_otp=site.post_office("data"),
                sign_up_on_verification={"get_temp_email": lambda number: f"{number[1:]}@phone.example.org"},
            )
        ]
    }
)
async def phone_number(site: Site) -> None:
    ada = await site.browser()

    def code() -> str:
        found = site.sent[-1]
        return str(found.get("code") or found["data"]["code"])

    number = "+441234567890"
    await ada.post("/phone-number/send-otp", phoneNumber=number)
    await ada.post("/phone-number/verify", 400, phoneNumber=number, code="000000x")
    await ada.post("/phone-number/verify", phoneNumber=number, code=code())
    await ada.get("/get-session")
    await ada.post("/phone-number/verify", 400, phoneNumber=number, code=code())
    await ada.post("/phone-number/send-otp", phoneNumber="+449876543210")
    await ada.post("/phone-number/verify", phoneNumber="+449876543210", code=code(), updatePhoneNumber=True)
    await ada.get("/get-session")
    await ada.post("/phone-number/request-password-reset", phoneNumber="+449876543210")
    await ada.post("/phone-number/reset-password", phoneNumber="+449876543210", otp=code(), newPassword=NEW)
    other = await site.browser()
    await other.post("/sign-in/phone-number", phoneNumber="+449876543210", password=NEW)
    await other.post("/sign-in/phone-number", 401, phoneNumber=number, password=NEW)
    await other.get("/get-session")


@flow(lambda site: {"plugins": [MagicLinkPlugin(send_magic_link=site.post_office())]})
async def magic_link(site: Site) -> None:
    ada = await site.browser()
    await ada.post("/sign-in/magic-link", email="Ada@example.org", name="Ada", callbackURL="/home")
    token = site.sent[-1]["token"]
    await ada.get("/magic-link/verify", 302, token=token, callbackURL="/home")
    await ada.get("/get-session")
    await ada.get("/magic-link/verify", 302, token=token, callbackURL="/home")
    # Who proves an address takes it from who only claimed it.
    thief = await site.browser()
    await thief.sign_up("bob")
    await ada.post("/sign-in/magic-link", email="bob@example.org")
    await ada.get("/magic-link/verify", token=site.sent[-1]["token"])
    await thief.get("/get-session")
    await thief.post("/sign-in/email", 401, email="bob@example.org", password=PASSWORD)


@flow(
    lambda site: {
        "plugins": [
            EmailOTPPlugin(send_verification_otp=site.post_office(), change_email={"enabled": True}, allowed_attempts=2)
        ]
    }
)
async def email_otp(site: Site) -> None:
    ada = await site.browser()

    def otp() -> str:
        return str(site.sent[-1]["otp"])

    email = "ada@example.org"
    await ada.post("/email-otp/send-verification-otp", email=email, type="sign-in")
    await ada.post("/email-otp/check-verification-otp", 400, email=email, type="sign-in", otp="wrong!")
    await ada.post("/sign-in/email-otp", email=email, otp=otp())
    await ada.get("/get-session")
    await ada.post("/sign-in/email-otp", 400, email=email, otp=otp())
    await ada.post("/email-otp/send-verification-otp", email=email, type="sign-in")
    for status in (400, 400, 403):
        await ada.post("/sign-in/email-otp", status, email=email, otp="wrong!")
    await ada.post("/sign-in/email-otp", 400, email=email, otp=otp())
    await ada.post("/email-otp/send-verification-otp", email=email, type="email-verification")
    await ada.post("/email-otp/verify-email", email=email, otp=otp())
    await ada.post("/email-otp/request-password-reset", email=email)
    await ada.post("/email-otp/reset-password", email=email, otp=otp(), password=NEW)
    await ada.post("/sign-in/email", email=email, password=NEW)
    await ada.post("/email-otp/request-email-change", newEmail="countess@example.org")
    await ada.post("/email-otp/change-email", newEmail="countess@example.org", otp=otp())
    await ada.get("/get-session")


@flow(lambda site: {"plugins": [AnonymousPlugin()]})
async def anonymous(site: Site) -> None:
    guest, other = await site.browser(), await site.browser()
    await guest.post("/sign-in/anonymous")
    await guest.get("/get-session")
    await guest.post("/sign-in/anonymous", 400)
    await guest.sign_up("ada")
    await guest.get("/get-session")
    await other.post("/sign-in/anonymous")
    await other.post("/delete-anonymous-user")
    await other.get("/get-session")


@flow(
    lambda site: {
        "plugins": [
            SiwePlugin(
                domain="auth.test",
                get_nonce=lambda: "A1b2C3d4E5f6G7h8J",
                verify_message=lambda given: given["signature"] == "0xgood",
            )
        ]
    }
)
async def siwe(site: Site) -> None:
    ada = await site.browser()
    wallet = "0x52908400098527886E0F7030069857D2E4169EE7"

    def message(chain: int) -> str:
        return (
            f"auth.test wants you to sign in with your Ethereum account:\n{wallet}\n\nSign in\n\nURI: {BASE}\nVersion: 1\n"
            f"Chain ID: {chain}\nNonce: A1b2C3d4E5f6G7h8J\nIssued At: 2026-01-01T00:00:00.000Z"
        )

    for chain, signature, status in ((1, "0xgood", 200), (1, "0xbad", 401), (1, "0xgood", 200), (137, "0xgood", 200)):
        await ada.post("/siwe/nonce")
        await ada.post("/siwe/verify", status, message=message(chain), signature=signature)
    await ada.get("/get-session")
    await ada.get("/list-accounts")
