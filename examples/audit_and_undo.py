"""History, time travel, undo and restore of a user: ``python examples/audit_and_undo.py``."""

import asyncio

from allsource_auth import AllsourceAuthAdapter, audit


async def main() -> None:
    async with AllsourceAuthAdapter.embedded() as adapter:
        users = adapter.users

        # All events written inside the block have these audit fields in their metadata.
        with audit(actor="sign-up form", ip="203.0.113.7", request_id="r-1"):
            ada = await users.create(email="ada@example.org", username="ada", role="member")
        with audit(actor="support", reason="promotion"):
            await users.update(ada.id, role="administrator", name="Ada")

        history = await users.history(ada.id)
        for change in history:
            print(change.at, change.event, "by", change.actor, "changed", sorted(change.diff))
        created, promoted = history
        assert promoted.actor == "support"
        assert promoted.diff["role"] == ("member", "administrator")

        # Time travel: the state at a time, or right after an event.
        assert await users.as_of(ada.id, created.at) == ada
        print("before the promotion she was a", ada.role)

        # Undo: the former state is written as a new event. Nothing is erased.
        with audit(actor="support", reason="undo"):
            reverted = await users.revert(ada.id, to=created.event_id)
        assert (reverted.role, reverted.name) == ("member", None)
        print("reverted: she is a", reverted.role)

        await users.delete(ada.id)
        assert await users.get(ada.id) is None
        restored = await users.restore(ada.id)
        assert await users.get_by_email("ada@example.org") == restored
        events = [change.event for change in await users.history(ada.id)]
        assert events == ["UserCreated", "UserUpdated", "UserUpdated", "UserDeleted", "UserUpdated"]
        print("deleted and restored; the whole history:", ", ".join(events))


if __name__ == "__main__":
    asyncio.run(main())
