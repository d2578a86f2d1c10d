"""``better_auth`` (PyPI ``better-auth-server``) on allsource_auth: a database adapter for the framework.

::

    from allsource_auth import AllsourceAuthAdapter
    from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter, AtomicSignUp
    from better_auth import BetterAuth

    store = AllsourceAuthAdapter.embedded("auth.db")
    auth = BetterAuth(secret=..., adapter=AllsourceDatabaseAdapter(store), plugins=[AtomicSignUp()])

Requires the extra ``better-auth``.
"""

from __future__ import annotations

from importlib import import_module

try:
    import_module("better_auth")
except ModuleNotFoundError as _missing:
    raise ImportError(
        "this module requires better-auth-server: pip install 'allsource-auth[better-auth]'"
    ) from _missing

from allsource_auth.integrations.better_auth.adapter import AllsourceDatabaseAdapter
from allsource_auth.integrations.better_auth.sign_up import AtomicSignUp
from allsource_auth.integrations.better_auth.unique_violation import UniqueViolation

__all__ = ["AllsourceDatabaseAdapter", "AtomicSignUp", "UniqueViolation"]
