"""The mutation protocol, checked by running every interleaving of a few clients on a simulated Core.

* `loop`: a deterministic asyncio event loop with virtual time.
* `draws`: random numbers and clocks that are the same in every run.
* `core`: the server, with the semantics of Allsource Core.
* `store`: an `EventStore` on that server whose requests advance only when they are told to.
* `world`: one run: the clients, what is on its way between them and the server, and the faults.
* `scenario`: what to run and what must hold afterwards.
* `explore`: all runs, one run again, or random runs.

::

    async def sign_up(store: SimStore, world: World) -> str:
        return (await Users(store).create(email="ada@example.org")).id

    async def one_owner(world: World) -> None:
        owners = [name for name, outcome in world.outcomes.items() if outcome.how == "returned"]
        assert len(owners) < 2, "two owners of one email"

    scenario = Scenario(name="two sign-ups", clients={"A": sign_up, "B": sign_up}, check=one_owner)
    assert explore(scenario, faults=1).complete
"""
