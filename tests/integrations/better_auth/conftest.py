"""A database adapter of the framework on one store, with the models of all plugins that add models."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from better_auth.plugins_ext.admin import AdminPlugin
from better_auth.plugins_ext.api_key import ApiKeyPlugin
from better_auth.plugins_ext.device_authorization import DeviceAuthorizationPlugin
from better_auth.plugins_ext.jwt import JWTPlugin
from better_auth.plugins_ext.oauth_provider import OAuthProviderPlugin
from better_auth.plugins_ext.organization import OrganizationPlugin
from better_auth.plugins_ext.passkey import PasskeyPlugin
from better_auth.plugins_ext.phone_number import PhoneNumberPlugin
from better_auth.plugins_ext.two_factor import TwoFactorPlugin
from better_auth.plugins_ext.username import UsernamePlugin
from better_auth.schema import CORE_SCHEMA, merge_schema, rate_limit_model

from allsource_auth import AllsourceAuthAdapter
from allsource_auth.integrations.better_auth import AllsourceDatabaseAdapter
from allsource_auth.store.sqlite.log import SqliteLog
from allsource_auth.store.sqlite.store import SqliteStore
from tests.support.wrappers import CountingStore

PLUGINS = (
    AdminPlugin(),
    ApiKeyPlugin(),
    DeviceAuthorizationPlugin(),
    JWTPlugin(),
    OAuthProviderPlugin(),
    OrganizationPlugin(teams={"enabled": True}, dynamic_access_control={"enabled": True}),
    PasskeyPlugin(),
    PhoneNumberPlugin(),
    TwoFactorPlugin(),
    UsernamePlugin(),
)
SCHEMA = merge_schema(CORE_SCHEMA, {"rateLimit": rate_limit_model()}, *(plugin.schema for plugin in PLUGINS))


@pytest.fixture
def counted() -> CountingStore:
    return CountingStore(SqliteStore(SqliteLog(None)))


@pytest.fixture
async def store(counted: CountingStore) -> AsyncIterator[AllsourceAuthAdapter]:
    async with AllsourceAuthAdapter.with_store(counted) as store:
        yield store


@pytest.fixture
def database(store: AllsourceAuthAdapter) -> AllsourceDatabaseAdapter:
    adapter = AllsourceDatabaseAdapter(store)
    adapter.init(SCHEMA)
    return adapter
