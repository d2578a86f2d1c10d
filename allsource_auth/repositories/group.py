"""The ten repositories, as an adapter and a transaction offer them."""

from __future__ import annotations

from .accounts import Accounts
from .api_keys import ApiKeys
from .base import Core
from .invitations import Invitations
from .members import Members
from .organizations import Organizations
from .passkeys import Passkeys
from .sessions import Sessions
from .two_factors import TwoFactors
from .users import Users
from .verifications import Verifications

__all__ = ["Repositories"]


class Repositories:
    """One repository for each kind of entity, on one core."""

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

    def _open(self, core: Core) -> None:
        self.users = Users(core)
        self.sessions = Sessions(core)
        self.accounts = Accounts(core)
        self.verifications = Verifications(core)
        self.organizations = Organizations(core)
        self.members = Members(core)
        self.invitations = Invitations(core)
        self.two_factors = TwoFactors(core)
        self.api_keys = ApiKeys(core)
        self.passkeys = Passkeys(core)
