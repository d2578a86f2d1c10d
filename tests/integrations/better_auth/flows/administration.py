"""Users that others look after, and keys for programs."""

from __future__ import annotations

import json

from better_auth.endpoints import Ctx
from better_auth.plugins_ext.admin import AdminPlugin
from better_auth.plugins_ext.api_key import ApiKeyPlugin
from better_auth.types import AuthRequest

from ..site import PASSWORD, Site
from .registry import NEW, flow, where

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
