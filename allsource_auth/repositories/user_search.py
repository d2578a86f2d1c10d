"""Search, filter and order of `Users.list`.

Every living user is read, in pages, and matched in a worker thread. Memory is limited to the users up to the end of the
requested page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Literal

import anyio.to_thread

from allsource_auth import values
from allsource_auth.entities import Page, User
from allsource_auth.errors import InvalidInput
from allsource_auth.kind import Kind
from allsource_auth.store.base import Event

__all__ = ["FilterField", "FilterOperator", "SearchField", "SearchOperator", "SortDirection", "SortField", "UserSearch"]

SearchField = Literal["email", "name"]
SearchOperator = Literal["contains", "starts_with", "ends_with"]
FilterField = Literal["email", "name", "role"]
FilterOperator = Literal["contains", "starts_with", "ends_with", "eq", "ne"]
SortField = Literal["name", "createdAt", "created_at", "email"]
SortDirection = Literal["asc", "desc"]

Test = Callable[[str, str], bool]

SEARCHES: dict[str, Test] = {
    "contains": lambda text, wanted: wanted.lower() in text.lower(),
    "starts_with": lambda text, wanted: text.lower().startswith(wanted.lower()),
    "ends_with": lambda text, wanted: text.lower().endswith(wanted.lower()),
}
FILTERS: dict[str, Test] = {
    **SEARCHES,
    "eq": lambda text, wanted: text == wanted,
    "ne": lambda text, wanted: text != wanted,
}
SEARCHED = ("email", "name")
FILTERED = ("email", "name", "role")
SORTED = {"name": "name", "createdAt": "created_at", "created_at": "created_at"}

Condition = tuple[str, str, str | None]
"""Field, operator and value. Without a value it matches every user."""


class UserSearch:
    """One call of `Users.list`. Raises `InvalidInput` for invalid arguments.

    An unknown field is treated as ``email``.
    """

    def __init__(
        self,
        *,
        limit: int,
        offset: int,
        search: Condition,
        filter: Condition,  # noqa: A002
        sort_by: str | None,
        direction: str,
    ) -> None:
        self._limit = values.count("limit", limit)
        self._offset = values.count("offset", offset)
        self._tests = [
            test
            for test in (_test("search", search, SEARCHED, SEARCHES), _test("filter", filter, FILTERED, FILTERS))
            if test is not None
        ]
        attribute = "created_at" if sort_by is None else SORTED.get(sort_by, "email")
        self._reverse = direction == "desc" or sort_by is None
        self._attribute = attribute

    async def page(self, pages: AsyncIterator[list[Event]], kind: Kind[User]) -> Page[User]:
        """Return the page, given the newest events of all users."""
        best: list[User] = []
        total = 0
        async for events in pages:
            best, matching = await anyio.to_thread.run_sync(self._merge, best, events, kind)
            total += matching
        return Page(items=best[self._offset :], total=total, limit=self._limit, offset=self._offset)

    def _merge(self, best: list[User], events: list[Event], kind: Kind[User]) -> tuple[list[User], int]:
        """Return the first users of ``best`` and ``events`` in order, and the number of matches in ``events``."""
        users = map(kind.decode_if_readable, events)
        matching = [user for user in users if user is not None and all(test(user) for test in self._tests)]
        best = sorted(best + matching, key=self._sort_key, reverse=self._reverse)
        return best[: self._offset + self._limit], len(matching)

    def _sort_key(self, user: User) -> tuple[bool, str | datetime, str]:
        value = getattr(user, self._attribute)
        return value is None, "" if value is None else value, user.id


def _test(
    name: str, condition: Condition, fields: tuple[str, ...], operators: dict[str, Test]
) -> Callable[[User], bool] | None:
    field, operator, value = condition
    if value is None:
        return None
    wanted = values.text(f"{name}_value", value)
    if operator not in operators:
        raise InvalidInput(f"{name}_operator", f"must be one of {', '.join(operators)}")
    attribute, test = field if field in fields else "email", operators[operator]

    def matches(user: User) -> bool:
        found: Any = getattr(user, attribute)
        return found is not None and test(found, wanted)

    return matches
