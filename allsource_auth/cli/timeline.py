"""Output of a history as a table or as plain values, with personal data masked in both.

Of a text that may be personal data only the first character is shown, of an email also the domain. Ids, times and the fields in
`CLEAR` are shown in full. A text field that is added to an entity later is masked until it is listed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from allsource_auth import Change, Session, User
from allsource_auth.cli.terminal import printable

__all__ = ["change_record", "masked", "state_record", "state_table", "timeline_table"]

State = User | Session

HIDDEN = "***"

SECRET = frozenset({"token"})
"""Fields whose values are hidden completely."""

CLEAR = frozenset({"active_organization_id", "id", "impersonated_by", "role", "user_id"})
"""Text fields that are shown in full, unless they contain an email."""

ROUTINE = frozenset({"created_at", "id", "updated_at"})
"""Fields that every creation or update changes; the table omits them."""


def masked(field: str, value: Any) -> Any:
    """``value`` without personal data: numbers, flags, times and ``None`` unchanged, texts masked, everything else hidden."""
    if value is None or isinstance(value, bool | int | float | datetime):
        return HIDDEN if field in SECRET and value is not None else value
    if not isinstance(value, str) or field in SECRET:
        return HIDDEN
    if field != "email" and field not in CLEAR:
        return _initial(value)
    name, at, domain = value.rpartition("@")
    if at:
        return f"{_initial(name)}@{printable(domain)}"
    return printable(value) if field in CLEAR else _initial(value)


def _initial(text: str) -> str:
    """The first character of ``text`` and a marker; of a single character only the marker."""
    return (printable(text[0]) if len(text) > 1 else "") + HIDDEN


def shown(value: Any) -> str:
    """The text for a masked value in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    return str(value)


def moment(when: datetime) -> str:
    """A time in UTC with microseconds, so that it can be passed to ``as_of``."""
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds") + "Z"


def timeline_table(changes: Sequence[Change[Any]]) -> Table:
    """One row per change: time, event, actor, changed fields."""
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
            Text(_actor(change)),
            Text(_changes(change, times)),
        )
    return table


def _actor(change: Change[Any]) -> str:
    actor = "-" if change.actor is None else str(masked("id", change.actor))
    return actor if change.impersonator is None else f"{actor} (by {masked('id', change.impersonator)})"


def _changes(change: Change[Any], times: dict[str, datetime]) -> str:
    lines: list[str] = []
    for link, action in ((change.restores, "restored"), (change.reverted_to, "reverted")):
        if link is not None:
            state = moment(times[link]) if link in times else f"event {printable(link)}"
            lines.append(f"{action} to the state of {state}")
    if change.state is None:
        return "deleted; its history is kept"
    if change.restores is None:
        differences = {name: pair for name, pair in change.diff.items() if name not in ROUTINE and any(pair)}
        for name, (old, new) in differences.items():
            former = "" if change.before is None else f"{shown(masked(name, old))} -> "
            lines.append(f"{name}: {former}{shown(masked(name, new))}")
    return "\n".join(lines) or "-"


def state_table(state: State) -> Table:
    """One row for each field of a state that is not ``None``."""
    table = Table("field", "value", header_style="bold")
    for name, value in msgspec.structs.asdict(state).items():
        if value is not None:
            table.add_row(Text(name), Text(shown(masked(name, value))))
    return table


def state_record(state: State | None) -> dict[str, Any] | None:
    """A state as plain values: field to masked value."""
    if state is None:
        return None
    return {name: masked(name, value) for name, value in msgspec.structs.asdict(state).items()}


def change_record(change: Change[Any]) -> dict[str, Any]:
    """A change as plain values; ``changes`` maps each field to its masked old and new value."""
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
