"""The mutation protocol, checked by running every interleaving of a few clients on a simulated Core.

* `loop`: a deterministic asyncio event loop with virtual time.
* `draws`: random numbers and clocks that are the same in every run.
* `core`: the server, with the semantics of Allsource Core.
* `store`: an `EventStore` on that server. The scheduler executes its requests step by step.
* `world`: one run: the clients, the requests and replies in flight, and the faults.
* `scenario`: the clients to run, and the check of the final state.
* `explore`: runs all interleavings, replays one, or runs random ones.
* `promises`: the repositories on the simulated server, and the checks that every run must pass.
* `situations`: the scenarios.

::

    async def sign_up(store: SimStore, world: World) -> str:
        return (await Users(store).create(email="ada@example.org")).id

    async def one_owner(world: World) -> None:
        owners = [name for name, outcome in world.outcomes.items() if outcome.how == "returned"]
        assert len(owners) < 2, "two owners of one email"

    scenario = Scenario(name="two sign-ups", clients={"A": sign_up, "B": sign_up}, check=one_owner)
    assert explore(scenario, faults=1).complete
"""
