"""The repositories: the public operations of each kind of entity."""

from __future__ import annotations

from allsource_auth.engine.collection import EngineContext
from allsource_auth.repositories.accounts import Accounts
from allsource_auth.repositories.api_keys import ApiKeys
from allsource_auth.repositories.invitations import Invitations
from allsource_auth.repositories.members import Members
from allsource_auth.repositories.organizations import Organizations
from allsource_auth.repositories.passkeys import Passkeys
from allsource_auth.repositories.sessions import Sessions
from allsource_auth.repositories.two_factors import TwoFactors
from allsource_auth.repositories.users import Users
from allsource_auth.repositories.verifications import Verifications

__all__ = ["Repositories"]


class Repositories:
    """One repository for each kind of entity: the common base of `AllsourceAuthAdapter` and `Transaction`."""

    users: Users
    sessions: Sessions
    accounts: Accounts
    verifications: Verifications
    organizations: Organizations
    members: Members
    invitations: Invitations
    two_factors: TwoFactors
    api_keys: ApiKeys
    passkeys: Passkeys

    context: EngineContext
    """Internal: the engine below the repositories, for integrations and maintenance. It may change in any version."""

    def _open(self, context: EngineContext) -> None:
        self.context = context
        self.users = Users(context)
        self.sessions = Sessions(context)
        self.accounts = Accounts(context)
        self.verifications = Verifications(context)
        self.organizations = Organizations(context)
        self.members = Members(context)
        self.invitations = Invitations(context)
        self.two_factors = TwoFactors(context)
        self.api_keys = ApiKeys(context)
        self.passkeys = Passkeys(context)
