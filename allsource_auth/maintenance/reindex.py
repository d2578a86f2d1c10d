"""Reindexing: write the missing claims and index entries of living entities, so that they can be found.

Other writers, such as the Rust crate, write only the streams of the entities, without claims and index entries. `reindex` reads
every living entity and writes what is missing: a claim for each unique value, and an entry for each index key. It can run
while other processes write, and stopping it halfway is harmless. A claim written for a living owner is live at once, because
its owner has the value. An index entry is a hint that readers verify.
"""

from __future__ import annotations

from contextlib import aclosing

from allsource_auth.engine.collection import EngineContext
from allsource_auth.maintenance.findings import Finding, Reindexed, Undecodable
from allsource_auth.maintenance.inspection import Inspection, Progress

__all__ = ["reindex"]


async def reindex(context: EngineContext, progress: Progress | None) -> Reindexed:
    """Write the claims and index entries that living entities lack."""
    undecodable = Undecodable()
    total = claims = entries = 0
    duplicates: list[Finding] = []
    for collection in context.collections.values():
        inspection = Inspection(collection, undecodable, take_over=True)
        of_kind = 0
        async with aclosing(inspection.pages()) as pages:
            async for entities in pages:
                claims += await inspection.claim_all(await inspection.unclaimed(entities))
                entries += await inspection.add_all(entities)
                of_kind += len(entities)
                if progress is not None:
                    progress(collection.kind.name, of_kind)
        total += of_kind
        duplicates += inspection.duplicates
    return Reindexed(
        entities=total,
        claims=claims,
        entries=entries,
        duplicates=tuple(duplicates),
        undecodable=undecodable.findings,
    )
