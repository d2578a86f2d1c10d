"""Sign-in by email code, magic link, text message and wallet, and anonymous sign-in."""

from __future__ import annotations

from typing import Any

from better_auth import EmailAndPassword
from better_auth.config import EmailVerification, UserOptions
from better_auth.plugins_ext.anonymous import AnonymousPlugin
from better_auth.plugins_ext.email_otp import EmailOTPPlugin
from better_auth.plugins_ext.magic_link import MagicLinkPlugin
from better_auth.plugins_ext.phone_number import PhoneNumberPlugin
from better_auth.plugins_ext.siwe import SiwePlugin
from better_auth.schema import Field

from tests.integrations.better_auth.flows.registry import NEW, PAST, flow, note, put, where
from tests.integrations.better_auth.site import BASE, PASSWORD, Browser, Site

__all__: list[str] = []


def _counting(text: str) -> Any:
    made: list[str] = []

    def make() -> str:
        made.append(text)
        return f"{text}{len(made)}"

    return make


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
    await other.post("/update-user", 400, phoneNumber=number)
    await other.post("/update-user", phoneNumber=None)
    await other.get("/get-session")
    await other.post("/sign-in/phone-number", 401, phoneNumber="+449876543210", password=NEW)


@flow(
    lambda site: {
        "plugins": [
            PhoneNumberPlugin(
                send_otp=site.post_office("data"),
                send_password_reset_otp=site.post_office("data"),
                require_verification=True,
                allowed_attempts=2,
                callback_on_verification=site.post_office("verified"),
            )
        ],
        "email_and_password": EmailAndPassword(enabled=True, revoke_sessions_on_password_reset=True),
    }
)
async def phone_number_of_an_account(site: Site) -> None:
    ada, other = await site.browser(), await site.browser()
    number = "+441234567890"

    def code() -> str:
        return str([one for one in site.sent if "data" in one][-1]["data"]["code"])

    await ada.sign_up("ada")
    await put(site, "user", "email", "ada@example.org", phoneNumber=number)
    await other.post("/sign-in/phone-number", 401, phoneNumber=number, password=PASSWORD)
    await other.post("/phone-number/verify", phoneNumber=number, code=code(), disableSession=True)
    await other.post("/sign-in/phone-number", phoneNumber=number, password=PASSWORD)
    await other.get("/get-session")
    await other.post("/phone-number/verify", 400, phoneNumber=number, code=code())
    # A code that comes too late, one that is guessed at, and one for somebody else's number.
    await ada.post("/phone-number/send-otp", phoneNumber=number)
    await put(site, "verification", "identifier", number, expiresAt=PAST)
    await ada.post("/phone-number/verify", 400, phoneNumber=number, code=code())
    await ada.post("/phone-number/verify", 400, phoneNumber=number, code=code())
    await ada.post("/phone-number/send-otp", phoneNumber=number)
    for expect in (400, 400, 403, 400):
        await ada.post("/phone-number/verify", expect, phoneNumber=number, code="wrong")
    eve = await site.browser()
    await eve.sign_up("eve")
    await eve.post("/phone-number/send-otp", phoneNumber=number)
    await eve.post("/phone-number/verify", 400, phoneNumber=number, code=code(), updatePhoneNumber=True)
    await eve.post("/phone-number/send-otp", phoneNumber="+441111111111")
    await eve.post("/phone-number/verify", 500, phoneNumber="+441111111111", code=code())
    # The password is forgotten; that ends the sessions.
    await other.post("/phone-number/request-password-reset", phoneNumber="+442222222222")
    await other.post("/phone-number/request-password-reset", phoneNumber=number)
    reset = {"phoneNumber": number, "newPassword": NEW}
    await other.post("/phone-number/reset-password", 400, otp="wrong", **reset)
    await other.post("/phone-number/reset-password", otp=code(), **reset)
    await ada.get("/get-session")
    await other.get("/get-session")
    await other.post("/sign-in/phone-number", 401, phoneNumber=number, password=PASSWORD)
    await other.post("/sign-in/phone-number", phoneNumber=number, password=NEW)
    consumed = site.auth.plugins[0].consume_phone_number_otp
    await other.post("/phone-number/send-otp", phoneNumber=number)
    note(site, "consume_phone_number_otp", await consumed(number, code()))


@flow(
    lambda site: {
        "plugins": [
            PhoneNumberPlugin(
                send_otp=site.post_office("data"),
                verify_otp=lambda given, ctx: given["code"] == "sesame",
                sign_up_on_verification={
                    "get_temp_email": lambda number: f"{number[1:]}@phone.example.org",
                    "get_temp_name": lambda number: f"No {number}",
                },
            )
        ],
        "user": UserOptions(additional_fields={"theme": Field("string")}),
    }
)
async def phone_number_proven_elsewhere(site: Site) -> None:
    ada = await site.browser()
    number = {"phoneNumber": "+441234567890"}
    await ada.post("/phone-number/send-otp", **number)
    await ada.post("/phone-number/verify", 400, **number, code="wrong")
    await ada.post("/phone-number/verify", **number, code="sesame", theme="dark")
    await ada.get("/get-session")
    await ada.post("/phone-number/verify", **number, code="sesame")
    note(site, "verification", await site.auth.adapter.count("verification"))


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
    # Another process began with that, and never came to its end.
    eve_id = (await thief.sign_up("eve"))["user"]["id"]
    lock = f"revoke-unproven-account-access:{eve_id}"
    assert await site.auth.internal.reserve_verification_value(lock, eve_id, PAST)
    for _ in range(2):
        await ada.post("/sign-in/magic-link", email="eve@example.org")
        await ada.get("/magic-link/verify", token=site.sent[-1]["token"])
        await thief.get("/get-session")


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
    await ada.post("/email-otp/check-verification-otp", email=email, type="email-verification", otp=otp())
    await ada.post("/email-otp/verify-email", email=email, otp=otp())
    await ada.post("/email-otp/request-password-reset", email=email)
    await ada.post("/email-otp/reset-password", email=email, otp=otp(), password=NEW)
    await ada.post("/sign-in/email", email=email, password=NEW)
    await ada.post("/email-otp/request-email-change", newEmail="countess@example.org")
    await ada.post("/email-otp/change-email", newEmail="countess@example.org", otp=otp())
    await ada.get("/get-session")


def _letters(site: Site, **options: Any) -> EmailOTPPlugin:
    return EmailOTPPlugin(send_verification_otp=site.post_office(), **options)


@flow(
    lambda site: {
        "plugins": [
            _letters(
                site,
                store_otp="encrypted",
                resend_strategy="reuse",
                allowed_attempts=2,
                send_verification_on_sign_up=True,
                change_email={"enabled": True, "verify_current_email": True},
            )
        ],
        "email_and_password": EmailAndPassword(enabled=True, revoke_sessions_on_password_reset=True),
        "email_verification": EmailVerification(auto_sign_in_after_verification=True),
    }
)
async def email_otp_sent_again(site: Site) -> None:
    ada, bob, thief = await site.browser(), await site.browser(), await site.browser()

    def otp() -> str:
        return str(site.sent[-1]["otp"])

    email = "ada@example.org"
    await thief.sign_up("ada")
    first = otp()
    verifying = {"email": email, "type": "email-verification"}
    await ada.post("/email-otp/send-verification-otp", **verifying)
    assert otp() == first
    for expect in (400, 400, 403, 400):
        await ada.post("/email-otp/check-verification-otp", expect, **verifying, otp="wrong!")
    await ada.post("/email-otp/send-verification-otp", **verifying)
    assert otp() != first
    await put(site, "verification", "identifier", f"email-verification-otp-{email}", expiresAt=PAST)
    await ada.post("/email-otp/verify-email", 400, email=email, otp=otp())
    await ada.post("/email-otp/send-verification-otp", **verifying)
    await put(site, "verification", "identifier", f"email-verification-otp-{email}", expiresAt=PAST)
    await ada.post("/email-otp/check-verification-otp", 400, **verifying, otp=otp())
    await ada.post("/email-otp/send-verification-otp", email="nobody@example.org", type="email-verification")
    await ada.post("/email-otp/check-verification-otp", 400, email="nobody@example.org", type="sign-in", otp="1")
    # Who proves the address takes it from who only claimed it.
    await ada.post("/email-otp/send-verification-otp", email=email, type="sign-in")
    await ada.post("/sign-in/email-otp", email=email, otp=otp())
    await thief.get("/get-session")
    await thief.post("/sign-in/email", 401, email=email, password=PASSWORD)
    await ada.get("/list-accounts")
    # The password is set, and set again: that ends the sessions.
    for path, password in (("/forget-password/email-otp", NEW), ("/email-otp/request-password-reset", PASSWORD)):
        await ada.post(path, email="nobody@example.org")
        await ada.post(path, email=email)
        await ada.post("/email-otp/reset-password", 400, email=email, otp=otp(), password="short")
        await ada.post("/email-otp/reset-password", email=email, otp=otp(), password=password)
        await ada.get("/get-session")
        await ada.post("/sign-in/email", email=email, password=password)
    await bob.sign_up("bob")
    await bob.post("/email-otp/verify-email", email="bob@example.org", otp=otp())
    await bob.get("/get-session")
    # A new address, for which the old one is proven as well.
    await ada.post("/email-otp/request-email-change", 400, newEmail="countess@example.org")
    for new in ("bob@example.org", "countess@example.org"):
        await ada.post("/email-otp/send-verification-otp", **verifying)
        await ada.post("/email-otp/request-email-change", newEmail=new, otp=otp())
    await ada.post("/email-otp/change-email", 400, newEmail="bob@example.org", otp=otp())
    await ada.post("/email-otp/change-email", newEmail="countess@example.org", otp=otp())
    await ada.get("/get-session")
    plugin = site.auth.plugins[0]
    made = await plugin.create_verification_otp("Bob@example.org", "sign-in")
    assert await plugin.get_verification_otp("bob@example.org", "sign-in") == made
    assert await plugin.get_verification_otp("eve@example.org", "sign-in") is None
    await put(site, "user", "email", "bob@example.org", emailVerified=False)
    await bob.post("/email-otp/request-password-reset", email="bob@example.org")
    await bob.post("/email-otp/reset-password", email="bob@example.org", otp=otp(), password=NEW)
    await bob.post("/sign-in/email", email="bob@example.org", password=NEW)
    await bob.get("/get-session")


@flow(
    lambda site: {
        "plugins": [_letters(site, store_otp="hashed", disable_sign_up=True, override_default_email_verification=True)],
        "email_and_password": EmailAndPassword(enabled=True, require_email_verification=True),
    }
)
async def email_otp_instead_of_links(site: Site) -> None:
    ada = await site.browser()
    await ada.sign_up("ada")
    await ada.post("/sign-in/email", 403, email="ada@example.org", password=PASSWORD)
    await ada.post("/email-otp/verify-email", 400, email="ada@example.org", otp=site.sent[0]["otp"])
    await ada.post("/send-verification-email", email="ada@example.org")
    await ada.post("/email-otp/verify-email", email="ada@example.org", otp=site.sent[-1]["otp"])
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.get("/get-session")
    count = len(site.sent)
    await ada.post("/email-otp/send-verification-otp", email="nobody@example.org", type="sign-in")
    assert len(site.sent) == count
    await ada.post("/sign-in/email-otp", 400, email="nobody@example.org", otp="123456")


@flow(
    lambda site: {
        "plugins": [MagicLinkPlugin(send_magic_link=site.post_office(), store_token="hashed", disable_sign_up=True)]
    }
)
async def magic_link_for_members(site: Site) -> None:
    ada = await site.browser()
    await ada.post("/sign-in/magic-link", email="ada@example.org")
    await ada.get("/magic-link/verify", 302, token=site.sent[-1]["token"], errorCallbackURL="/oops")
    await ada.sign_up("ada")
    await ada.post("/sign-in/magic-link", email="ada@example.org")
    await ada.get("/magic-link/verify", token=site.sent[-1]["token"])
    await ada.get("/get-session")


@flow(lambda site: {"plugins": [AnonymousPlugin()]})
async def anonymous(site: Site) -> None:
    guest, other = await site.browser(), await site.browser()
    await guest.post("/sign-in/anonymous")
    await guest.get("/get-session")
    await guest.post("/sign-in/anonymous", 400)
    await guest.sign_up("ada")
    await guest.get("/get-session")
    await guest.post("/delete-anonymous-user", 403)
    await other.post("/delete-anonymous-user", 401)
    await other.post("/sign-in/anonymous")
    await other.post("/delete-anonymous-user")
    await other.get("/get-session")


async def _linked(site: Site, guest: Browser) -> None:
    await guest.post("/sign-in/magic-link", email="ada@example.org", name="Ada")
    await guest.get("/magic-link/verify", token=site.sent[-1]["token"])


def _moved(site: Site) -> Any:
    """Return a callback that copies the guest's theme to the new user."""

    async def move(given: dict[str, Any]) -> None:
        guest, person = given["anonymous_user"]["user"], given["new_user"]["user"]
        await given["ctx"].adapter.update("user", [where("id", person["id"])], {"theme": guest["theme"]})

    return move


def _guests(site: Site, **options: Any) -> dict[str, Any]:
    return {
        "plugins": [
            AnonymousPlugin(
                on_link_account=_moved(site),
                generate_name=lambda ctx: "Guest",
                email_domain_name="guests.example.org",
                **options,
            ),
            MagicLinkPlugin(send_magic_link=site.post_office()),
        ],
        "user": UserOptions(additional_fields={"theme": Field("string")}),
    }


async def _guest(site: Site) -> None:
    guest, other = await site.browser(), await site.browser()
    await guest.post("/sign-in/anonymous")
    await guest.post("/update-user", theme="dark")
    await guest.ask("POST", "/delete-anonymous-user", json={})
    if (await guest.get("/get-session")) is None:
        await guest.post("/sign-in/anonymous")
        await guest.post("/update-user", theme="light")
    await _linked(site, guest)
    await guest.get("/get-session")
    await other.post("/sign-in/anonymous")
    await other.post("/update-user", theme="blue")
    await _linked(site, other)
    await other.get("/get-session")
    await other.get("/list-sessions")
    note(site, "user", await site.auth.adapter.count("user"))


@flow(_guests)
async def anonymous_who_stays(site: Site) -> None:
    await _guest(site)


@flow(lambda site: _guests(site, disable_delete_anonymous_user=True))
async def anonymous_who_is_kept(site: Site) -> None:
    await _guest(site)


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


@flow(
    lambda site: {
        "plugins": [
            SiwePlugin(
                domain="auth.test",
                anonymous=False,
                email_domain_name="wallets.example.org",
                get_nonce=_counting("Nonce0000000000"),
                verify_message=lambda given: given["signature"] == "0xgood",
                ens_lookup=lambda given: {"name": "ada.eth", "avatar": "https://ens.example.org/ada.png"},
            )
        ]
    }
)
async def siwe_with_an_address(site: Site) -> None:
    ada = await site.browser()
    wallets = ("0x52908400098527886E0F7030069857D2E4169EE7", "0x8617E340B3D01FA5F11F306F4090FD50E238070D")

    async def verify(wallet: str, expect: int = 200, /, **more: Any) -> None:
        nonce = (await ada.post("/siwe/get-nonce"))["nonce"]
        message = (
            f"auth.test wants you to sign in with your Ethereum account:\n{wallet}\n\nSign in\n\nURI: {BASE}\nVersion: 1\n"
            f"Chain ID: 1\nNonce: {nonce}\nIssued At: 2026-01-01T00:00:00.000Z{more.pop('until', '')}"
        )
        given = {"message": message, "signature": "0xgood", "email": "ada@example.org", **more}
        await ada.post("/siwe/verify", expect, **given)
        await ada.post("/siwe/verify", 400 if expect == 400 else 401, **given)  # a nonce is used once

    await verify(wallets[0], 400, email="no address")
    await verify(wallets[0], 401, until="\nExpiration Time: 2026-01-02T00:00:00.000Z")
    await verify(wallets[0])
    await ada.get("/get-session")
    await verify(wallets[1])  # the address is another wallet's
    await ada.get("/get-session")
    await verify(wallets[0], email="else@example.org")
    await ada.get("/get-session")
    await ada.get("/list-accounts")
    for model in ("walletAddress", "verification"):
        note(site, model, await site.auth.adapter.count(model))
