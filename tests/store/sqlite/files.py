"""Contents of SQLite files and folders: an event with a recognizable payload, and the bytes of all files."""

from __future__ import annotations

from pathlib import Path

from allsource_auth.store.base import NewEvent

__all__ = ["CANARY", "event", "files"]

CANARY = "hunter2-canary"


def event(stream: str = "s", *, guard: int | None = None, payload: str = f'"{CANARY}"') -> NewEvent:
    return NewEvent(type="auth.user.updated", stream=stream, payload=payload.encode(), metadata=b"", guard=guard)


def files(folder: Path) -> dict[str, bytes]:
    """The contents of a directory, without the shared memory of SQLite, which has locks but no content."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if not entry.name.endswith("-shm")}
