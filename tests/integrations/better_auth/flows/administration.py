"""Administration of users, and API keys."""

from __future__ import annotations

from typing import Any

from better_auth.plugins_ext.admin import AdminPlugin
from better_auth.plugins_ext.api_key import ApiKeyPlugin
from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.types import AuthRequest, Ctx

from tests.integrations.better_auth.flows.registry import NEW, PAST, flow, note, put, where
from tests.integrations.better_auth.site import PASSWORD, Site

__all__: list[str] = []


@flow(lambda site: {"plugins": [AdminPlugin()]})
async def admin(site: Site) -> None:
    root, bob = await site.browser(), await site.browser()
    await root.sign_up("root")
    user = await bob.sign_up("bob")
    await root.get("/admin/list-users", 403)
    await site.auth.adapter.update("user", [where("email", "root@example.org")], {"role": "admin"})
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


@flow(lambda site: {"plugins": [AdminPlugin(default_role="member", banned_user_message="Not you")]})
async def admin_of_others(site: Site) -> None:
    root, bob, eve = await site.browser(), await site.browser(), await site.browser()
    await root.sign_up("root")
    bob_id = (await bob.sign_up("bob"))["user"]["id"]
    await eve.sign_up("eve")
    await put(site, "user", "email", "root@example.org", role="admin")
    this = {"userId": bob_id}
    await root.post("/admin/update-user", 400, **this, data={"email": "eve@example.org"})
    await root.post("/admin/update-user", **this, data={"email": "Robert@example.org", "emailVerified": True})
    await bob.get("/get-session")
    await root.post("/admin/update-user", **this, data={"banned": True, "banReason": "spam"})
    await bob.get("/get-session")
    await bob.post("/sign-in/email", 403, email="robert@example.org", password=PASSWORD)
    await put(site, "user", "id", bob_id, banExpires=PAST)
    await bob.post("/sign-in/email", email="robert@example.org", password=PASSWORD)
    await root.get("/admin/get-user", id=bob_id)
    made = (await root.post("/admin/create-user", name="Carol", email="carol@example.org"))["user"]
    await eve.post("/sign-in/email", 401, email="carol@example.org", password=PASSWORD)
    for password in (PASSWORD, NEW):
        await root.post("/admin/set-user-password", userId=made["id"], newPassword=password)
        await eve.post("/sign-in/email", email="carol@example.org", password=password)
    await root.post("/admin/set-role", userId=made["id"], role="admin")
    await root.post("/admin/impersonate-user", 403, userId=made["id"])
    await root.post("/admin/stop-impersonating", 400)
    await root.post("/admin/impersonate-user", **this)
    await bob.get("/list-sessions")
    await root.post("/admin/ban-user", 403, userId=made["id"])
    await root.post("/admin/stop-impersonating")
    root_id = (await root.get("/get-session"))["user"]["id"]
    await root.post("/admin/ban-user", 400, userId=root_id)
    await root.post("/admin/remove-user", 400, userId=root_id)
    for path, more in (
        ("ban-user", {}),
        ("unban-user", {}),
        ("remove-user", {}),
        ("update-user", {"data": {"name": "Nobody"}}),
        ("set-user-password", {"newPassword": NEW}),
        ("impersonate-user", {}),
    ):
        await root.post(f"/admin/{path}", 404, userId="unknown", **more)


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
    results = [await plugin.verify_api_key(ctx, key=limited["key"], permissions={"a": ["b"]}) for _ in range(3)]
    results += [await plugin.verify_api_key(ctx, key=key) for key in (refilled["key"], refilled["key"], "unknown")]
    note(site, "verify_api_key", results)
    await ada.post("/api-key/update", keyId=made["id"], enabled=False)
    await ada.post("/api-key/delete", keyId=made["id"])
    await ada.get("/api-key/list")


@flow(
    lambda site: {
        "plugins": [
            ApiKeyPlugin(
                [
                    {
                        "config_id": "default",
                        "rate_limit": {"enabled": True, "time_window": 3_600_000, "max_requests": 2},
                        "key_expiration": {"default_expires_in": 86400, "min_expires_in": 0},
                        "permissions": {"default_permissions": {"files": ["read"]}},
                        "require_name": True,
                        "starting_characters_config": {"characters_length": 16},
                    },
                    {
                        "config_id": "companies",
                        "references": "organization",
                        "disable_key_hashing": True,
                        "default_prefix": "org_",
                        "starting_characters_config": {"characters_length": 20},
                        "rate_limit": {"enabled": False},
                        "api_key_headers": ["x-company-key"],
                        "enable_session_for_api_keys": True,
                    },
                ]
            ),
            OrganizationPlugin(),
        ]
    }
)
async def api_keys_of_two_kinds(site: Site) -> None:
    ada, eve = await site.browser(), await site.browser()
    await ada.sign_up("ada")
    await eve.sign_up("eve")
    organization = {"organizationId": (await ada.post("/organization/create", name="Engines", slug="engines"))["id"]}
    await ada.post("/api-key/create", 400)
    mine = await ada.post("/api-key/create", name="mine")
    company = {"configId": "companies", **organization}
    await eve.post("/api-key/create", 403, **company)
    await ada.post("/api-key/create", 400, configId="companies")
    ours = await ada.post("/api-key/create", **company)
    for query in ({}, company, {"limit": 1, "offset": 1}, {"configId": "companies"}):
        await ada.get("/api-key/list", **query)
    await eve.get("/api-key/list", 403, **company)
    await ada.get("/api-key/get", id=ours["id"], configId="companies")
    await eve.get("/api-key/get", 403, id=ours["id"], configId="companies")
    await eve.get("/api-key/get", 404, id=mine["id"])
    await ada.post("/api-key/update", keyId=ours["id"], configId="companies", name="renamed")
    await eve.ask("GET", "/get-session", headers={"x-company-key": ours["key"]})
    plugin = site.auth.plugins[0]
    ctx = Ctx(auth=site.auth, request=AuthRequest(method="POST", path="/", headers={}, query={}, body=b""))

    async def verify(**given: Any) -> None:
        note(site, "verify_api_key", await plugin.verify_api_key(ctx, **given))

    for wish in ({"files": ["read"]}, {"files": ["write"]}, {"files": ["read"]}, {"files": ["read"]}):
        await verify(key=mine["key"], permissions=wish)
    await put(site, "apikey", "id", mine["id"], lastRequest=PAST)
    await verify(key=mine["key"])
    for _ in range(3):
        await verify(key=ours["key"], config_id="companies")
    await put(site, "apikey", "id", mine["id"], expiresAt=PAST)
    await verify(key=mine["key"])
    await ada.get("/api-key/get", 404, id=mine["id"])
    late = await ada.post("/api-key/create", name="late")
    await put(site, "apikey", "id", late["id"], expiresAt=PAST)
    note(site, "delete_all_expired_api_keys", await plugin.delete_all_expired_api_keys(ctx))
    await ada.get("/api-key/list")
    await eve.post("/api-key/delete", 403, keyId=ours["id"], configId="companies")
    await ada.post("/api-key/delete", keyId=ours["id"], configId="companies")
    await ada.get("/api-key/list", **company)
