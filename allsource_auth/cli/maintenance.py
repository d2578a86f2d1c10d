"""Output of the findings of ``check`` and ``reindex``, without stored values and secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json import dumps
from typing import Any, TextIO

from rich.table import Table
from rich.text import Text

from allsource_auth import Checked, Finding, Reindexed, Upgraded, __version__
from allsource_auth.cli.terminal import console, printable

__all__ = ["show_checked", "show_reindexed", "show_upgraded"]


def show_checked(checked: Checked, stream: TextIO, *, json: bool) -> None:
    """Write the result of ``check`` as one JSON document or as a table."""
    counts = {"entities": checked.entities, "events": checked.events, "index streams": checked.index_streams}
    _show(not checked.remaining, counts, checked.findings, stream, json=json)


def show_reindexed(reindexed: Reindexed, stream: TextIO, *, json: bool) -> None:
    """Write the result of ``reindex`` as one JSON document or as a table."""
    findings = (*reindexed.duplicates, *reindexed.undecodable)
    counts = {
        "entities": reindexed.entities,
        "claims written": reindexed.claims,
        "list entries written": reindexed.entries,
    }
    _show(not findings, counts, findings, stream, json=json)


def show_upgraded(upgraded: Upgraded, stream: TextIO, *, done: bool, json: bool) -> None:
    """Write the event formats before and after an upgrade, or before and after the one that is possible."""
    newest = upgraded.before == upgraded.after
    if json:
        document = {"version": __version__, "ok": newest or done, "before": upgraded.before, "after": upgraded.after}
        stream.write(dumps(document, indent=2) + "\n")
    elif newest:
        stream.write(f"The store has the newest event format, {upgraded.after}.\n")
    elif done:
        stream.write(f"The event format was raised from {upgraded.before} to {upgraded.after}.\n")
    else:
        stream.write(f"The store has event format {upgraded.before}; the newest one is {upgraded.after}.\n")


def _show(ok: bool, counts: Mapping[str, int], findings: Iterable[Finding], stream: TextIO, *, json: bool) -> None:
    records = [_record(finding) for finding in findings]
    if json:
        named = {name.replace(" ", "_"): count for name, count in counts.items()}
        document = {"version": __version__, "ok": ok, "counts": named, "findings": records}
        # ASCII only, so that the encoding of the stream does not matter.
        stream.write(dumps(document, indent=2) + "\n")
        return
    screen = console(stream)
    for name, count in counts.items():
        screen.print(Text(f"{count:,} {name}"))
    if not records:
        screen.print(Text("No findings."))
        return
    table = Table("problem", "kind", "field", "where", "repaired", header_style="bold")
    for record in records:
        where = "\n".join([*record["keys"], *filter(None, (record["stream"], record["event_id"], record["path"]))])
        cells = (record["problem"].replace("_", " "), record["kind"], record["field"] or "-")
        table.add_row(*map(Text, cells), Text(where, overflow="fold"), Text("yes" if record["repaired"] else "no"))
    screen.print(table)


def _record(finding: Finding) -> dict[str, Any]:
    """A finding as plain values. Stored text is made printable, so that it cannot control the terminal."""
    return {
        "problem": finding.problem,
        "kind": finding.kind,
        "field": finding.field,
        "keys": [printable(key) for key in finding.shown_keys],
        "stream": finding.stream and printable(finding.stream),
        "event_id": finding.event_id,
        "path": finding.path and printable(finding.path),
        "repaired": finding.repaired,
    }
