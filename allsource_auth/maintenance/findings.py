"""The results of `check`, `reindex` and `upgrade`."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

import msgspec

from allsource_auth.entities import HIDDEN, Redacted
from allsource_auth.errors import Json
from allsource_auth.kinds import KINDS

__all__ = ["Checked", "Finding", "Reindexed", "Upgraded"]

Problem = Literal[
    "duplicate",
    "undecodable",
    "missing_claim",
    "missing_entry",
    "orphan_claim",
    "dead_entry",
    "half_cascade",
    "half_transaction",
]

KEYS_SHOWN = frozenset(kind.name for kind in KINDS if kind.key not in kind.secrets)


class Finding(Redacted, frozen=True, kw_only=True):
    """An inconsistency in a store. It never contains a unique value.

    ``problem`` is one of

    * ``duplicate``: several living entities have the same unique value; ``keys`` are sorted from the oldest;
    * ``undecodable``: an event that cannot be decoded; ``stream`` (without a secret key), ``event_id`` and the ``path`` of the
      field tell which;
    * ``missing_claim``: a living entity that a search by its unique ``field`` does not find;
    * ``missing_entry``: living entities that are missing in the index of ``field``;
    * ``orphan_claim``: a claim that occupies a value although its owner does not have it;
    * ``dead_entry``: index entries whose entities do not exist or do not have the index key;
    * ``half_cascade``: a living child of a deleted entity; ``field`` is the kind of the parent;
    * ``half_transaction``: a transaction whose decision is stored, on the stream of the entity, and whose remaining events are
      not.

    ``keys`` are the keys of the entities: ids, or the tokens of sessions. The ``repr`` hides secret keys.
    """

    _shown: ClassVar[frozenset[str]] = frozenset({"problem", "kind", "field", "keys", "stream", "event_id", "path"})

    problem: Problem
    kind: str
    field: str | None = None
    keys: tuple[str, ...] = ()
    stream: str | None = None
    event_id: str | None = None
    path: str | None = None
    repaired: bool = False

    @property
    def shown_keys(self) -> tuple[str, ...]:
        """The keys, with secret ones replaced by a marker."""
        return self.keys if self.kind in KEYS_SHOWN else tuple(HIDDEN for _ in self.keys)

    def __repr__(self) -> str:
        return Redacted.__repr__(msgspec.structs.replace(self, keys=self.shown_keys))


class Reindexed(Redacted, frozen=True, kw_only=True):
    """The result of `reindex`: the number of living entities, and the numbers of claims and index entries it wrote."""

    entities: int
    claims: int
    entries: int
    duplicates: tuple[Finding, ...] = ()
    undecodable: tuple[Finding, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Reindexed(entities={self.entities}, claims={self.claims}, entries={self.entries}, "
            f"{len(self.duplicates)} duplicates, {len(self.undecodable)} undecodable)"
        )


class Checked(Redacted, frozen=True, kw_only=True):
    """The result of `check`: findings, and the numbers of living entities, events of entities and index streams it checked."""

    entities: int
    events: int
    index_streams: int
    findings: tuple[Finding, ...] = ()

    @property
    def remaining(self) -> tuple[Finding, ...]:
        """The findings that were not repaired."""
        return tuple(finding for finding in self.findings if not finding.repaired)

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings by problem."""
        return dict(Counter(finding.problem for finding in self.findings))

    def __repr__(self) -> str:
        return (
            f"Checked(entities={self.entities}, events={self.events}, index_streams={self.index_streams}, "
            f"{len(self.findings)} findings, {len(self.remaining)} not repaired)"
        )


class Upgraded(msgspec.Struct, frozen=True, kw_only=True):
    """The event format of a store before and after `AllsourceAuthAdapter.upgrade`."""

    before: int
    after: int


class Undecodable:
    """Collects the events that cannot be decoded, each once."""

    def __init__(self) -> None:
        self._found: dict[str | None, Finding] = {}

    def add(self, kind: str, error: Json) -> None:
        """Record the event that ``error`` names. Raises ``error`` if it names no stream."""
        if error.stream is None:
            raise error
        self._found.setdefault(
            error.event_id,
            Finding(
                problem="undecodable",
                kind=kind,
                stream=error.stream,
                event_id=error.event_id,
                path=error.path,
            ),
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One finding for each event."""
        return tuple(self._found.values())
