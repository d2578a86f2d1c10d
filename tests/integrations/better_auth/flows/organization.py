"""Organizations, with teams and roles of their own."""

from __future__ import annotations

from better_auth.access_control import ORG_DEFAULT_STATEMENTS, create_access_control
from better_auth.plugins_ext.organization import OrganizationPlugin

from ..site import Site
from .registry import flow, where

__all__: list[str] = []


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
        await site.auth.adapter.update("user", [where("email", f"{name}@example.org")], {"emailVerified": True})
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
