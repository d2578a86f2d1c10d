"""Organizations with teams and dynamic roles."""

from __future__ import annotations

from typing import Any

from better_auth.access_control import ORG_DEFAULT_STATEMENTS, create_access_control
from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.schema import Field

from tests.integrations.better_auth.flows.registry import PAST, flow, note, put, where
from tests.integrations.better_auth.site import Site

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


def _hooks(site: Site) -> dict[str, Any]:
    """Hooks that add fields to rows, and hooks that record their calls in ``site.sent``."""

    def record(name: str) -> Any:
        return lambda given, *more: site.sent.append({"hook": name, "about": sorted(given)})

    names = (
        "add_member",
        "accept_invitation",
        "create_team",
        "delete_team",
        "remove_team_member",
        "delete_organization",
    )
    return {
        "before_create_organization": lambda given: {"data": {"seats": 3}},
        "before_create_invitation": lambda given: {"data": {"note": "Welcome"}},
        "before_update_member_role": lambda given: {"data": {"role": given["newRole"]}},
        "before_update_team": lambda given: {"data": {**given["updates"], "color": "red"}},
    } | {f"after_{name}": record(name) for name in names}


@flow(
    lambda site: {
        "plugins": [
            OrganizationPlugin(
                send_invitation_email=site.post_office(),
                organization_limit=2,
                membership_limit=3,
                invitation_limit=2,
                cancel_pending_invitations_on_re_invite=True,
                teams={"enabled": True, "maximum_teams": 3, "maximum_members_per_team": 2},
                dynamic_access_control={"enabled": True, "maximum_roles_per_organization": 1},
                ac=create_access_control(ORG_DEFAULT_STATEMENTS),
                additional_fields={
                    "organization": {"plan": Field("string"), "seats": Field("number")},
                    "invitation": {"note": Field("string")},
                    "team": {"color": Field("string")},
                },
                organization_hooks=_hooks(site),
            )
        ]
    }
)
async def organization_with_limits(site: Site) -> None:
    ada, bob, eve, carl = [await site.browser() for _ in range(4)]
    people = {}
    for name, browser in (("ada", ada), ("bob", bob), ("eve", eve), ("carl", carl)):
        people[name] = (await browser.sign_up(name))["user"]["id"]
        await put(site, "user", "id", people[name], emailVerified=True)
    made = await ada.post("/organization/create", name="Engines", slug="engines", plan="gold")
    this = {"organizationId": made["id"]}
    await ada.post("/organization/create", name="Second", slug="second", keepCurrentActiveOrganization=True)
    await ada.post("/organization/create", 403, name="Third", slug="third")
    await ada.get("/organization/get-full-organization")
    await ada.post("/organization/update", 400, **this, data={"slug": "second"})
    await ada.post("/organization/update", **this, data={"plan": "lead", "seats": None})
    team = await ada.post("/organization/create-team", name="Analysts", color="blue")
    other = await ada.post("/organization/create-team", name="Testers")
    await ada.post("/organization/create-team", 400, name="Too many")
    await ada.post("/organization/update-team", teamId=team["id"], data={"name": "Programmers"})
    # Invitations to teams: sent again, replaced, too many, for a team that is gone.
    invite = {"email": "bob@example.org", "role": "member", "teamId": [team["id"], other["id"]]}
    first = await ada.post("/organization/invite-member", **invite)
    await ada.post("/organization/invite-member", **invite, resend=True)
    await ada.post("/organization/invite-member", 400, **invite | {"teamId": "unknown"})  # the one before is canceled
    second = await ada.post("/organization/invite-member", **invite)
    await bob.post("/organization/accept-invitation", 400, invitationId=first["id"])
    await ada.post("/organization/invite-member", email="eve@example.org", role="member", teamId=team["id"])
    await ada.post("/organization/invite-member", 403, email="carl@example.org", role="member")
    await ada.post("/organization/remove-team", teamId=other["id"])
    await ada.get("/organization/list-invitations")
    await bob.post("/organization/accept-invitation", invitationId=second["id"])
    await bob.get("/get-session")
    await bob.get("/organization/list-user-teams")
    await put(site, "invitation", "email", "eve@example.org", expiresAt=PAST)
    pending = await eve.get("/organization/list-user-invitations")
    await eve.post("/organization/accept-invitation", 400, invitationId=pending[0]["id"])
    again = await ada.post(
        "/organization/invite-member", email="eve@example.org", role="admin,member", teamId=team["id"]
    )
    await eve.post("/organization/accept-invitation", invitationId=again["id"])
    await eve.get("/organization/get-active-member")
    for status, name in ((403, "ada"), (200, "bob")):
        await ada.post("/organization/add-team-member", status, teamId=team["id"], userId=people[name])
    invite = {"email": "carl@example.org", "role": "member", "teamId": team["id"]}
    await ada.post("/organization/invite-member", 403, **invite)
    # The team is full; a place becomes free, and another one.
    members = {one["userId"]: one["id"] for one in (await ada.get("/organization/list-members"))["members"]}
    for status in (200, 400):
        await ada.post("/organization/remove-team-member", status, teamId=team["id"], userId=people["bob"])
    late = await ada.post("/organization/invite-member", **invite)
    await carl.get("/organization/get-invitation", id=late["id"])
    await ada.post("/organization/add-team-member", teamId=team["id"], userId=people["ada"])
    await carl.post("/organization/accept-invitation", 403, invitationId=late["id"])  # three belong to it already
    await ada.post("/organization/remove-member", memberIdOrEmail="eve@example.org")
    await carl.post("/organization/accept-invitation", invitationId=late["id"])
    await carl.get("/organization/list-team-members", teamId=team["id"])
    row = await site.auth.adapter.find_one("team", [where("id", team["id"])])
    note(site, "team", row["memberCount"])
    # Somebody has to own it.
    await ada.post("/organization/update-member-role", 400, memberId=members[people["ada"]], role="member")
    await bob.post("/organization/update-member-role", 403, memberId=members[people["ada"]], role="member")
    await ada.post("/organization/update-member-role", memberId=members[people["bob"]], role=["owner", "admin"])
    await ada.post("/organization/update-member-role", memberId=members[people["ada"]], role="member")
    await bob.post("/organization/create-role", role="writer", permission={"invitation": ["create"]})
    await bob.post("/organization/create-role", 400, role="reader", permission={"invitation": ["create"]})
    await bob.post("/organization/update-role", roleName="writer", data={"roleName": "editor"})
    await bob.post("/organization/update-member-role", memberId=members[people["ada"]], role="editor")
    await ada.post("/organization/has-permission", permissions={"invitation": ["create"]})
    role = (await bob.get("/organization/list-roles"))[0]
    await bob.get("/organization/get-role", roleId=role["id"])
    await bob.post("/organization/delete-role", 400, roleId=role["id"])
    await ada.post("/organization/delete", 403, **this)
    await bob.post("/organization/delete", **this)
    await carl.get("/organization/list")
    for model in ("organization", "member", "invitation", "team", "teamMember", "organizationRole"):
        note(site, model, await site.auth.adapter.count(model))
    note(site, "hooks", [one for one in site.sent if "hook" in one])
