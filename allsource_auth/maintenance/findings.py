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


class Upgraded(msgspec.Struct, frozen=True, kw_only=True):
    """The event format of a store before and after `AllsourceAuthAdapter.upgrade`."""

    before: int
    after: int


class Finding(Redacted, frozen=True, kw_only=True):
    """Something in a store that is not as it should be. It never holds a unique value.

    ``problem`` is one of

    * ``duplicate``: several living entities have one unique value; ``keys`` are theirs, the oldest first;
    * ``undecodable``: an event that cannot be read as what its stream is of: ``stream`` (without a key that is a secret),
      ``event_id``, ``path`` of the field;
    * ``missing_claim``: a living entity that is not found by its unique ``field``;
    * ``missing_entry``: living entities that are not in the list of ``field`` in which they should be;
    * ``orphan_claim``: a claim that keeps a value although its owner does not have it;
    * ``dead_entry``: entries of a list that lead to nothing that stands in it;
    * ``half_cascade``: a living child of a deleted entity; ``field`` is the kind of its parent;
    * ``half_transaction``: a transaction that is decided, by an event of the entity, and has still to write to others.

    ``keys`` are the keys of the entities: ids; for sessions tokens. The ``repr`` hides those that are secrets.
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
        """The keys, with a marker in place of those that are secrets."""
        return self.keys if self.kind in KEYS_SHOWN else tuple(HIDDEN for _ in self.keys)

    def __repr__(self) -> str:
        return Redacted.__repr__(msgspec.structs.replace(self, keys=self.shown_keys))


class Reindexed(Redacted, frozen=True, kw_only=True):
    """What `reindex` did: how many living entities it met, and how many claims and list entries it wrote."""

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
    """What `check` found, and how many living entities, events of entities and index streams it looked at."""

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
        """How many findings there are of each problem."""
        return dict(Counter(finding.problem for finding in self.findings))

    def __repr__(self) -> str:
        return (
            f"Checked(entities={self.entities}, events={self.events}, index_streams={self.index_streams}, "
            f"{len(self.findings)} findings, {len(self.remaining)} not repaired)"
        )


class Undecodable:
    """The events that could not be decoded, each once."""

    def __init__(self) -> None:
        self._found: dict[str | None, Finding] = {}

    def add(self, kind: str, error: Json) -> None:
        """Remember an event that cannot be decoded; raises ``error`` if it is not about an event of a stream."""
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
        return tuple(self._found.values())
