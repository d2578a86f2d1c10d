"""What the clients of an application do, one flow for each part of the package: the options, and the requests in their order.

A flow says which status it expects, so that both sides failing alike is no success.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from better_auth import EmailAndPassword
from better_auth.access_control import ORG_DEFAULT_STATEMENTS, create_access_control
from better_auth.config import (
    ChangeEmailOptions,
    DeleteUserOptions,
    EmailVerification,
    RateLimit,
    SessionOptions,
    UserOptions,
)
from better_auth.endpoints import Ctx
from better_auth.plugins_ext.admin import AdminPlugin
from better_auth.plugins_ext.anonymous import AnonymousPlugin
from better_auth.plugins_ext.api_key import ApiKeyPlugin
from better_auth.plugins_ext.bearer import BearerPlugin
from better_auth.plugins_ext.custom_session import CustomSessionPlugin
from better_auth.plugins_ext.device_authorization import DeviceAuthorizationPlugin
from better_auth.plugins_ext.email_otp import EmailOTPPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.last_login_method import LastLoginMethodPlugin
from better_auth.plugins_ext.magic_link import MagicLinkPlugin
from better_auth.plugins_ext.multi_session import MultiSessionPlugin
from better_auth.plugins_ext.one_time_token import OneTimeTokenPlugin
from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.plugins_ext.passkey import PasskeyPlugin
from better_auth.plugins_ext.phone_number import PhoneNumberPlugin
from better_auth.plugins_ext.siwe import SiwePlugin
from better_auth.plugins_ext.two_factor import TwoFactorPlugin
from better_auth.plugins_ext.username import UsernamePlugin
from better_auth.schema import Field
from better_auth.types import AuthRequest

from .authenticator import Authenticator
from .site import BASE, PASSWORD, Site

__all__ = ["FLOWS", "flow"]

NEW = "an even better password"

Flow = Callable[[Site], Awaitable[None]]
Options = Callable[[Site], dict[str, Any]]

FLOWS: dict[str, tuple[Options, Flow]] = {}


def flow(options: Options) -> Callable[[Flow], Flow]:
    def keep(steps: Flow) -> Flow:
        FLOWS[steps.__name__] = options, steps
        return steps

    return keep


def token_of(url: str) -> str:
    """The token in a link: in its query, else the last part of its path."""
    parts = urlsplit(url)
    return parse_qs(parts.query).get("token", [parts.path.rsplit("/", 1)[-1]])[0]


# The core


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


# Accounts of others


def _github(site: Site) -> dict[str, Any]:
    people = {"one": (1, "Octo", "octo@example.org"), "two": (2, "Ada", "ada@example.org")}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/login/oauth/access_token":
            code = parse_qs(request.content.decode())["code"][0]
            return httpx.Response(200, json={"access_token": code, "scope": "user", "token_type": "bearer"})
        number, name, email = people[request.headers["authorization"].split()[-1]]
        if request.url.path == "/user/emails":
            return httpx.Response(200, json=[{"email": email, "primary": True, "verified": True}])
        return httpx.Response(200, json={"id": number, "login": name, "name": name, "email": email, "avatar_url": None})

    return {
        "social_providers": {"github": {"client_id": "id", "client_secret": "secret"}},
        "http_client": httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    }


@flow(_github)
async def social(site: Site) -> None:
    octo, ada = await site.browser(), await site.browser()

    async def come_back(browser: Any, url: str, code: str) -> None:
        await browser.get("/callback/github", 302, state=parse_qs(urlsplit(url).query)["state"][0], code=code)

    for _ in range(2):
        start = await octo.post("/sign-in/social", provider="github", callbackURL="/home")
        await come_back(octo, start["url"], "one")
        await octo.get("/get-session")
    await octo.get("/callback/github", 302, state="unknown", code="one")
    accounts = await octo.get("/list-accounts")
    await octo.post("/get-access-token", accountId=accounts[0]["id"])
    await octo.get("/account-info", accountId=accounts[0]["id"])
    await octo.post("/unlink-account", 400, accountId=accounts[0]["id"])
    await octo.post("/set-password", newPassword=PASSWORD)
    await octo.post("/unlink-account", accountId=accounts[0]["id"])
    await octo.get("/list-accounts")
    await ada.sign_up("ada")
    start = await ada.post("/link-social", provider="github", callbackURL="/home")
    await come_back(ada, start["url"], "two")
    await ada.get("/list-accounts")


# Plugins


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


@flow(lambda site: {"plugins": [AdminPlugin()]})
async def admin(site: Site) -> None:
    root, bob = await site.browser(), await site.browser()
    await root.sign_up("root")
    user = await bob.sign_up("bob")
    await root.get("/admin/list-users", 403)
    await site.auth.adapter.update("user", [_where("email", "root@example.org")], {"role": "admin"})
    created = (
        await root.post("/admin/create-user", name="Carol", email="Carol@example.org", password=PASSWORD, role="user")
    )["user"]
    await root.post("/admin/create-user", 400, name="Carol", email="carol@example.org", password=PASSWORD)
    for query in (
        {},
        {"limit": 1, "offset": 1},
        {"sortBy": "name", "sortDirection": "desc"},
        {"searchValue": "bob", "searchField": "email", "searchOperator": "starts_with"},
        {"searchValue": "example.org", "searchField": "email", "searchOperator": "ends_with", "limit": 2},
        {"filterField": "role", "filterValue": "admin", "filterOperator": "eq"},
        {"filterField": "role", "filterValue": "admin", "filterOperator": "ne"},
    ):
        await root.get("/admin/list-users", **query)
    await root.get("/admin/get-user", id=created["id"])
    await root.get("/admin/get-user", 404, id="unknown")
    await root.post("/admin/set-role", userId=created["id"], role=["user", "admin"])
    await root.post("/admin/update-user", userId=created["id"], data={"name": "Caroline"})
    await root.post("/admin/ban-user", userId=user["user"]["id"], banReason="spam", banExpiresIn=3600)
    await bob.get("/get-session")
    await bob.post("/sign-in/email", 403, email="bob@example.org", password=PASSWORD)
    await root.post("/admin/unban-user", userId=user["user"]["id"])
    await bob.post("/sign-in/email", email="bob@example.org", password=PASSWORD)
    sessions = await root.post("/admin/list-user-sessions", userId=user["user"]["id"])
    await root.post("/admin/revoke-user-session", sessionToken=sessions["sessions"][0]["token"])
    await bob.post("/sign-in/email", email="bob@example.org", password=PASSWORD)
    await root.post("/admin/revoke-user-sessions", userId=user["user"]["id"])
    await bob.get("/get-session")
    await root.post("/admin/set-user-password", userId=user["user"]["id"], newPassword=NEW)
    await bob.post("/sign-in/email", email="bob@example.org", password=NEW)
    await root.post("/admin/impersonate-user", userId=user["user"]["id"])
    await root.get("/get-session")
    await root.post("/admin/stop-impersonating")
    await root.get("/get-session")
    await root.post("/admin/has-permission", permissions={"user": ["ban"]})
    await root.post("/admin/remove-user", userId=user["user"]["id"])
    await bob.get("/get-session")
    await root.get("/admin/list-users")


def _where(field: str, value: Any) -> Any:
    from better_auth.adapters.base import Where

    return Where(field, value)


@flow(
    lambda site: {
        "plugins": [
            OrganizationPlugin(
                send_invitation_email=site.post_office(),
                teams={"enabled": True},
                dynamic_access_control={"enabled": True},
                ac=create_access_control(ORG_DEFAULT_STATEMENTS),
            )
        ]
    }
)
async def organization(site: Site) -> None:
    ada, bob, eve = await site.browser(), await site.browser(), await site.browser()
    await ada.sign_up("ada")
    bob_id = (await bob.sign_up("bob"))["user"]["id"]
    await eve.sign_up("eve")
    for name in ("bob", "eve"):
        await site.auth.adapter.update("user", [_where("email", f"{name}@example.org")], {"emailVerified": True})
    await ada.post("/organization/check-slug", slug="engines")
    made = await ada.post(
        "/organization/create",
        name="Engines",
        slug="engines",
        logo="https://e.org/l.png",
        metadata={"plan": "gold", "ä": [1]},
    )
    organization = {"organizationId": made["id"]}
    await ada.post("/organization/check-slug", 400, slug="engines")
    await eve.post("/organization/create", 400, name="Engines", slug="engines")
    await ada.get("/get-session")
    await ada.get("/organization/list")
    await ada.get("/organization/get-full-organization")
    await ada.get("/organization/get-organization", organizationSlug="engines")
    await eve.get("/organization/get-full-organization", 403, **organization)
    await ada.post("/organization/update", data={"name": "Difference", "metadata": {"plan": "lead"}}, **organization)
    await ada.post("/organization/set-active", organizationId=None)
    await ada.get("/get-session")
    await ada.post("/organization/set-active", organizationSlug="engines")
    invited = await ada.post("/organization/invite-member", email="bob@example.org", role="member")
    await ada.post("/organization/invite-member", 400, email="bob@example.org", role="member")
    await bob.get("/organization/list-user-invitations")
    await ada.get("/organization/list-invitations")
    await bob.get("/organization/get-invitation", id=invited["id"])
    await eve.post("/organization/accept-invitation", 403, invitationId=invited["id"])
    await bob.post("/organization/accept-invitation", invitationId=invited["id"])
    await bob.post("/organization/accept-invitation", 400, invitationId=invited["id"])
    refused = await ada.post("/organization/invite-member", email="eve@example.org", role="admin")
    await eve.post("/organization/reject-invitation", invitationId=refused["id"])
    canceled = await ada.post("/organization/invite-member", email="eve@example.org", role="member")
    await ada.post("/organization/cancel-invitation", invitationId=canceled["id"])
    members = await ada.get("/organization/list-members")
    member = next(one for one in members["members"] if one["userId"] == bob_id)
    for query in (
        {"limit": 1},
        {"sortBy": "role", "sortDirection": "desc"},
        {"filterField": "role", "filterValue": "owner", "filterOperator": "eq"},
        {"filterField": "role", "filterValue": "own", "filterOperator": "starts_with"},
    ):
        await ada.get("/organization/list-members", **query)
    await bob.post("/organization/has-permission", permissions={"member": ["delete"]})
    await ada.post("/organization/update-member-role", memberId=member["id"], role="admin")
    await bob.post("/organization/set-active", **organization)
    await bob.get("/organization/get-active-member")
    await bob.post("/organization/has-permission", permissions={"member": ["delete"]})
    # Teams
    team = await ada.post("/organization/create-team", name="Analysts")
    await ada.post("/organization/update-team", teamId=team["id"], data={"name": "Programmers"})
    await ada.get("/organization/list-teams")
    await ada.post("/organization/add-team-member", teamId=team["id"], userId=bob_id)
    await bob.post("/organization/set-active-team", teamId=team["id"])
    await bob.get("/organization/list-user-teams")
    await bob.get("/organization/list-team-members", teamId=team["id"])
    await ada.post("/organization/remove-team-member", teamId=team["id"], userId=bob_id)
    await ada.post("/organization/remove-team", teamId=team["id"])
    await ada.get("/organization/list-teams")
    # Roles of its own
    await ada.post("/organization/create-role", role="writer", permission={"invitation": ["create"]})
    await ada.post("/organization/create-role", 400, role="writer", permission={"invitation": ["create"]})
    await ada.get("/organization/list-roles")
    await ada.get("/organization/get-role", roleName="writer")
    await ada.post("/organization/update-role", roleName="writer", data={"permission": {"invitation": ["cancel"]}})
    await ada.post("/organization/update-member-role", memberId=member["id"], role="writer")
    await ada.post("/organization/delete-role", 400, roleName="writer")
    await ada.post("/organization/update-member-role", memberId=member["id"], role="member")
    await ada.post("/organization/delete-role", roleName="writer")
    # The end
    await bob.post("/organization/leave", **organization)
    await ada.post("/organization/leave", 400, **organization)
    again = await ada.post("/organization/invite-member", email="bob@example.org", role="member")
    await bob.post("/organization/accept-invitation", invitationId=again["id"])
    await ada.post("/organization/remove-member", memberIdOrEmail="bob@example.org")
    await ada.post("/organization/delete", **organization)
    await ada.get("/organization/list")
    await ada.get("/get-session")
    await eve.post("/organization/create", name="Engines", slug="engines")


@flow(
    lambda site: {
        "plugins": [
            ApiKeyPlugin(
                {
                    "enable_metadata": True,
                    "enable_session_for_api_keys": True,
                    "starting_characters_config": {"should_store": False},
                }
            )
        ]
    }
)
async def api_key(site: Site) -> None:
    ada = await site.browser()
    ada_id = (await ada.sign_up("ada"))["user"]["id"]
    made = await ada.post("/api-key/create", name="ci", prefix="ci_", metadata={"for": ["tests"]}, expiresIn=86400 * 2)
    await ada.post("/api-key/create", 400, name="ci", remaining=5)
    await ada.get("/api-key/get", id=made["id"])
    await ada.get("/api-key/get", 404, id="unknown")
    await ada.post("/api-key/update", keyId=made["id"], name="deploy", metadata={"for": []})
    await ada.get("/api-key/list")
    await ada.get("/api-key/list", limit=1, sortBy="name", sortDirection="desc")
    program = await site.browser()
    for _ in range(10):
        await program.ask("GET", "/get-session", headers={"x-api-key": made["key"]})
    await program.ask("GET", "/get-session", headers={"x-api-key": made["key"]})
    await program.ask("GET", "/get-session", headers={"x-api-key": "unknown"})
    plugin = site.auth.plugins[0]
    ctx = Ctx(auth=site.auth, request=AuthRequest(method="POST", path="/", headers={}, query={}, body=b""))
    server = {"userId": ada_id, "rateLimitEnabled": False}
    limited = await plugin.create_api_key(ctx, remaining=2, permissions={"a": ["b"]}, **server)
    refilled = await plugin.create_api_key(ctx, remaining=0, refillAmount=3, refillInterval=1, **server)
    said = [await plugin.verify_api_key(ctx, key=limited["key"], permissions={"a": ["b"]}) for _ in range(3)]
    said += [await plugin.verify_api_key(ctx, key=key) for key in (refilled["key"], refilled["key"], "unknown")]
    site.transcript.append(("verify_api_key", 0, json.loads(json.dumps(said, default=str)), {}, []))
    await ada.post("/api-key/update", keyId=made["id"], enabled=False)
    await ada.post("/api-key/delete", keyId=made["id"])
    await ada.get("/api-key/list")


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


def _user_code() -> str:
    """One that can be told from a word."""
    return f"A7{secrets.token_hex(3).upper()}"


@flow(lambda site: {"plugins": [DeviceAuthorizationPlugin(verification_uri="/device", generate_user_code=_user_code)]})
async def device(site: Site) -> None:
    ada, television = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "tv"}
    code = await television.post("/device/code", client_id="tv", scope="openid")
    poll = {**grant, "device_code": code["device_code"]}
    await television.post("/device/token", 400, **poll)
    await television.post("/device/token", 400, **poll)
    await ada.get("/device", user_code=code["user_code"])
    await ada.get("/device", 400, user_code="UNKNOWN")
    await ada.post("/device/approve", userCode=code["user_code"])
    await ada.post("/device/approve", 400, userCode=code["user_code"])
    # Five seconds later
    await site.auth.adapter.update("deviceCode", [_where("deviceCode", code["device_code"])], {"lastPolledAt": None})
    await television.post("/device/token", **poll)
    await television.post("/device/token", 400, **poll)
    code = await television.post("/device/code", client_id="tv")
    await ada.get("/device", user_code=code["user_code"])
    await ada.post("/device/deny", userCode=code["user_code"])
    await television.post("/device/token", 400, **{**grant, "device_code": code["device_code"]})
    await television.post("/device/token", 400, **{**grant, "device_code": "unknown"})


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


@flow(lambda site: {"plugins": [MultiSessionPlugin()]})
async def multi_session(site: Site) -> None:
    ada = await site.browser()
    first = await ada.sign_up("ada")
    await ada.sign_up("bob")
    await ada.get("/get-session")
    await ada.get("/multi-session/list-device-sessions")
    await ada.post("/multi-session/set-active", sessionToken=first["token"])
    await ada.get("/get-session")
    await ada.post("/multi-session/revoke", sessionToken=first["token"])
    await ada.get("/multi-session/list-device-sessions")
    await ada.post("/multi-session/set-active", 401, sessionToken=first["token"])
    await ada.post("/sign-out")
    await ada.get("/multi-session/list-device-sessions")


@flow(lambda site: {"plugins": [OneTimeTokenPlugin(), BearerPlugin()]})
async def one_time_token(site: Site) -> None:
    ada, other = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    token = (await ada.get("/one-time-token/generate"))["token"]
    session = await other.post("/one-time-token/verify", token=token)
    await other.post("/one-time-token/verify", 400, token=token)
    await other.get("/get-session")
    third = await site.browser()
    headers = {"authorization": f"Bearer {session['session']['token']}"}
    await third.ask("GET", "/get-session", headers=headers)
    await third.ask("GET", "/get-session", headers={"authorization": "Bearer unknown"})


@flow(lambda site: {"plugins": [JWTPlugin()]})
async def jwt(site: Site) -> None:
    ada = await site.browser()
    await ada.get("/token", 401)
    await ada.sign_up("ada")
    await ada.get("/token")
    await ada.get("/jwks")
    await ada.get("/get-session")


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


async def _greeting(given: Any, ctx: Any = None) -> dict[str, Any]:
    return {**given, "greeting": f"Hello {given['user']['name']}"}


@flow(lambda site: {"plugins": [CustomSessionPlugin(_greeting), LastLoginMethodPlugin(store_in_database=True)]})
async def custom_session_and_last_method(site: Site) -> None:
    ada = await site.browser()
    await ada.sign_up("ada")
    await ada.get("/get-session")
    await ada.post("/sign-out")
    await ada.post("/sign-in/email", email="ada@example.org", password=PASSWORD)
    await ada.get("/get-session")
