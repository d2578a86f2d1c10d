"""How a history is shown: a table for people, plain values for machines, and in both no personal value in full.

Of a text that may say something about a person the first character is left, of an email also the domain. Only what
identifies and dates things is shown as it is; a field that somebody adds later is masked until it is named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from allsource_auth import Change, Session, User
from allsource_auth.cli.screen import printable

__all__ = ["change_record", "masked", "state_record", "state_table", "timeline_table"]

State = User | Session

HIDDEN = "***"

SECRET = frozenset({"token"})
"""Fields of which nothing at all is shown."""

CLEAR = frozenset({"active_organization_id", "id", "impersonated_by", "role", "user_id"})
"""Text fields that are shown as they are, unless they hold an email."""

EXPECTED = frozenset({"created_at", "id", "updated_at"})
"""Fields that differ with every creation or update, and that the table leaves out."""


def masked(field: str, value: Any) -> Any:
    """``value`` as it may be shown: numbers, flags, times and ``None`` as they are, texts masked, the rest hidden."""
    if value is None or isinstance(value, bool | int | float | datetime):
        return HIDDEN if field in SECRET and value is not None else value
    if not isinstance(value, str) or field in SECRET:
        return HIDDEN
    if field != "email" and field not in CLEAR:
        return _begun(value)
    name, at, domain = value.rpartition("@")
    if at:
        return f"{_begun(name)}@{printable(domain)}"
    return printable(value) if field in CLEAR else _begun(value)


def _begun(text: str) -> str:
    """The first character of ``text``, if that does not give it away, and a marker."""
    return (printable(text[0]) if len(text) > 1 else "") + HIDDEN


def shown(value: Any) -> str:
    """A masked value in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    return str(value)


def moment(when: datetime) -> str:
    """A time in UTC, to the microsecond, so that it can be given to ``as_of``."""
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds") + "Z"


def timeline_table(changes: Sequence[Change[Any]]) -> Table:
    """One row per change: time, event, who, what changed."""
    table = Table(header_style="bold")
    table.add_column("time", min_width=16)
    table.add_column("event", no_wrap=True)
    for title in ("who", "what changed"):
        table.add_column(title, overflow="fold")
    times = {change.event_id: change.at for change in changes}
    for change in changes:
        table.add_row(
            Text(moment(change.at)),
            Text(printable(str(change.event))),
            Text(_who(change)),
            Text(_what(change, times)),
        )
    return table


def _who(change: Change[Any]) -> str:
    actor = "-" if change.actor is None else str(masked("id", change.actor))
    return actor if change.impersonator is None else f"{actor} (by {masked('id', change.impersonator)})"


def _what(change: Change[Any], times: dict[str, datetime]) -> str:
    found = []
    for link, words in ((change.restores, "restored"), (change.reverted_to, "reverted")):
        if link is not None:
            state = moment(times[link]) if link in times else f"event {printable(link)}"
            found.append(f"{words} to the state of {state}")
    if change.state is None:
        return "gone; its history stays"
    if change.restores is None:
        differences = {name: pair for name, pair in change.diff.items() if name not in EXPECTED and any(pair)}
        for name, (old, new) in differences.items():
            former = "" if change.before is None else f"{shown(masked(name, old))} -> "
            found.append(f"{name}: {former}{shown(masked(name, new))}")
    return "\n".join(found) or "-"


def state_table(state: State) -> Table:
    """A state, one row per field that has a value."""
    table = Table("field", "value", header_style="bold")
    for name, value in msgspec.structs.asdict(state).items():
        if value is not None:
            table.add_row(Text(name), Text(shown(masked(name, value))))
    return table


def state_record(state: State | None) -> dict[str, Any] | None:
    """A state for machines: field to masked value."""
    if state is None:
        return None
    return {name: masked(name, value) for name, value in msgspec.structs.asdict(state).items()}


def change_record(change: Change[Any]) -> dict[str, Any]:
    """A change for machines; ``changes`` maps each field to its masked (old, new)."""
    return {
        "at": change.at,
        "event": printable(str(change.event)),
        "event_id": printable(change.event_id),
        "actor": masked("id", change.actor),
        "impersonator": masked("id", change.impersonator),
        "restores": masked("id", change.restores),
        "reverted_to": masked("id", change.reverted_to),
        "changes": {name: [masked(name, old), masked(name, new)] for name, (old, new) in change.diff.items()},
    }
