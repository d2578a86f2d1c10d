"""One session of an application on a store, by whichever version of the library is imported; prints what it sees as JSON.

``program.py PHASE PLACE``: the phases are ``create``, then any number of ``continue``, each possibly by another version.
``PLACE`` is the path of a file or the URL of a Core. Only calls and options that both versions have are used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import allsource_auth
from allsource_auth import AllsourceAuthAdapter, Conflict, audit

IN_A_YEAR = datetime.now(UTC) + timedelta(days=365)


def opened(place: str) -> AllsourceAuthAdapter:
    return AllsourceAuthAdapter(place) if place.startswith("http") else AllsourceAuthAdapter.embedded(place)


async def create(adapter: AllsourceAuthAdapter) -> None:
    with audit(actor="sign-up", ip="203.0.113.7"):
        await adapter.users.create(id="ada", email="ada@example.org", username="ada", metadata={"plan": "pro"})
        await adapter.users.create(id="bob", email="bob@example.org")
        await adapter.users.create(id="gone", email="gone@example.org")
        for number in range(70):  # enough for a snapshot of the index
            await adapter.sessions.create(user_id="ada", expires_at=IN_A_YEAR, token=f"session_{number:03}")
        for number in range(60):
            await adapter.sessions.delete(f"session_{number:03}")
        await adapter.organizations.create(id="org", name="Engines", slug="engines")
        await adapter.members.create(id="m1", organization_id="org", user_id="ada", role="owner")
        await adapter.accounts.create(
            id="acc", user_id="ada", provider_id="credential", account_id="ada", password="hash"
        )
        await adapter.api_keys.create(id="key", user_id="ada", key_hash="k" * 64, remaining=5)
        await adapter.verifications.create(id="v", identifier="ada", value="123456", expires_at=IN_A_YEAR)
        await adapter.two_factors.create(id="2fa", user_id="ada", secret="secret", backup_codes="a,b")
        await adapter.passkeys.create(id="pk", user_id="ada", credential_id="cred", public_key="pub")
    await adapter.users.delete("gone")
    async with adapter.transaction() as tx:
        await tx.users.create(id="eve", email="eve@example.org")
        await tx.sessions.create(user_id="eve", expires_at=IN_A_YEAR, token="session_eve")


async def proceed(adapter: AllsourceAuthAdapter) -> None:
    """Change something of each kind, so that the next version reads the events of this one."""
    with audit(actor="support", reason="check"):
        user = await adapter.users.get("ada")
        assert user is not None
        await adapter.users.update("ada", name=f"{user.name or ''}+", email=f"ada{len(user.name or '')}@example.org")
    await adapter.users.restore("gone")
    await adapter.users.delete("gone")
    await adapter.sessions.update_expiry("session_069", IN_A_YEAR)
    await adapter.api_keys.use("k" * 64)
    await adapter.members.update_role("m1", "owner,admin")
    async with adapter.transaction() as tx:
        await tx.users.update("bob", name="Bob")
        await tx.organizations.update("org", name="Engines")


async def seen(adapter: AllsourceAuthAdapter) -> dict[str, Any]:
    """What every version must see alike."""
    ada = await adapter.users.get("ada")
    assert ada is not None
    try:
        await adapter.users.create(email="EVE@example.org")
    except Conflict as conflict:
        taken = conflict.field
    else:
        taken = "nothing"
    checked = await adapter.check()
    loaded = await adapter.load_session("session_069")
    history = await adapter.users.history("ada")
    return {
        "name": ada.name,
        "metadata": ada.metadata,
        "found": getattr(await adapter.users.get_by_email((ada.email or "").upper()), "id", None),
        "former": getattr(await adapter.users.get_by_email("ada@example.org"), "id", None),
        "sessions": sorted(session.token for session in await adapter.sessions.list_for_user("ada")),
        "loaded": loaded is not None and loaded.user.id,
        "roles": [member.role for member in await adapter.members.list_for_organization("org")],
        "remaining": [key.remaining for key in await adapter.api_keys.list_for_user("ada")],
        "account": getattr(await adapter.accounts.get_by_provider("credential", "ada"), "id", None),
        "two_factor": getattr(await adapter.two_factors.get_by_user("ada"), "id", None),
        "passkey": getattr(await adapter.passkeys.get_by_credential_id("cred"), "id", None),
        "verification": getattr(await adapter.verifications.find("ada", "123456"), "id", None),
        "gone": await adapter.users.get("gone") is None,
        "history": [(change.event, change.actor) for change in history],
        "first": getattr(await adapter.users.as_of("ada", history[0].event_id), "email", None),
        "taken": taken,
        "findings": [finding.problem for finding in checked.findings],
        "events": checked.events,
    }


async def main(phase: str, place: str) -> None:
    async with opened(place) as adapter:
        await (create(adapter) if phase == "create" else proceed(adapter))
        print(json.dumps({"version": allsource_auth.__version__, "seen": await seen(adapter)}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
