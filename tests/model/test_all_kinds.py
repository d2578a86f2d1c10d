"""Random sequences of operations on all ten kinds: every store returns the results of the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from allsource_auth import (
    AllsourceAuthAdapter,
    AllsourceStore,
    Conflict,
    EventStore,
    InvalidInput,
    NotFound,
    Transaction,
)
from tests.model.machine import STEPS, Machine
from tests.model.operations import (
    CHANGES,
    CREATE,
    CREATIONS,
    LOOK_UPS,
    MOVED_VALUES,
    REMOVALS,
    RETURNS,
    SWEEPS,
    TAKES,
    TRANSACTIONS,
    Operation,
    every_look_up,
    refusal,
)
from tests.model.profiles import ALL_KINDS, SEVERAL_STORES
from tests.model.register import KINDS, Register
from tests.support.clocks import ManualClock
from tests.support.cores import NEWEST, OLDEST, Core, running
from tests.support.targets import TARGETS, Site, Target

REFUSALS = (Conflict, NotFound, InvalidInput)
LOOK_UPS_AFTER_EACH_STEP = 8
"""Number of look-ups after each step."""

STRIDE = 37
"""Distance between two look-ups of a step, so that they concern several kinds."""

ONE_IN_FIVE = st.sampled_from([False, False, False, False, True])

Outcome = tuple[str, Any]


class Broken(Exception):
    """The exception that aborts a transaction from inside."""


class AllKinds(Machine):
    """Several stores with two adapters each, and one model of their contents."""

    targets: tuple[Target, ...]

    def __init__(self) -> None:
        super().__init__()
        self.register = Register(self.clock)
        self.turn = 0
        self.looked = 0
        self.stores = [self.adapters_on(target) for target in self.targets]

    # Calling the stores and the model

    def _turn(self) -> list[AllsourceAuthAdapter]:
        """Return one adapter for each store; the order of the stores and the adapters rotate."""
        self.turn += 1
        first = self.turn // 2 % len(self.stores)
        return [adapters[self.turn % 2] for adapters in self.stores[first:] + self.stores[:first]]

    def _do(
        self, operation: Operation, groups: Sequence[AllsourceAuthAdapter | Transaction], register: Register
    ) -> bool:
        """Call the operation on the first store, which may make a key; then with that key on the others and in the model.

        Return whether it was refused.
        """
        operation = operation.settled(register)
        found = []
        for group in groups:
            found.append(self.run(_outcome(operation, group)))
            if operation.name == "create" and found[0][0] == "answer":
                operation = operation.named(found[0][1])
        expected = _expected(operation, register)
        for group, outcome in zip(groups, found, strict=True):
            assert outcome == expected, f"{operation} on {group!r}"
        return expected[0] == "refusal"

    def _sample(self, register: Register) -> list[Operation]:
        """Return a few look-ups, different ones each time."""
        look_ups = every_look_up(register)
        self.looked += LOOK_UPS_AFTER_EACH_STEP
        return [look_ups[(self.looked + number) * STRIDE % len(look_ups)] for number in range(LOOK_UPS_AFTER_EACH_STEP)]

    # Single operations

    @initialize(creations=st.tuples(*CREATE.values()))
    def begin(self, creations: tuple[Operation, ...]) -> None:
        """Create two users, an organization, and an entity of each kind, so that most operations find one."""
        for user_id in ("u0", "u1"):
            self.operate(Operation("users", "create", {"id": user_id, "email": f"{user_id}@x.org"}))
        self.operate(Operation("organizations", "create", {"id": "o0", "name": "Acme", "slug": "acme"}))
        for creation in creations:
            self.operate(creation)

    @rule(operation=CREATIONS)
    def create(self, operation: Operation) -> None:
        self.operate(operation)

    @rule(operation=CHANGES)
    def change(self, operation: Operation) -> None:
        self.operate(operation)

    @rule(operation=REMOVALS)
    def remove(self, operation: Operation) -> None:
        self.operate(operation)

    @rule(operation=RETURNS)
    def bring_back(self, operation: Operation) -> None:
        self.operate(operation)

    @rule(operation=TAKES)
    def take_once(self, operation: Operation) -> None:
        self.operate(operation)

    @rule(step=STEPS, sweeps=st.lists(SWEEPS, max_size=2))
    def time_passes(self, step: timedelta, sweeps: list[Operation]) -> None:
        self.clock.move(step)
        for sweep in sweeps:
            self.operate(sweep)

    @rule(look_ups=st.lists(LOOK_UPS, min_size=1, max_size=4))
    def look(self, look_ups: list[Operation]) -> None:
        for look in look_ups:
            self.operate(look)

    def operate(self, operation: Operation) -> None:
        self._do(operation, self._turn(), self.register)

    # Transactions

    @rule(operations=TRANSACTIONS, broken=ONE_IN_FIVE, impatient=ONE_IN_FIVE)
    def transact(self, operations: list[Operation], broken: bool, impatient: bool) -> None:
        """An exception aborts a ``broken`` one; a refusal inside aborts it if the application is ``impatient``."""
        inside = self.register.begin()
        transactions = [self.run(adapter.transaction().__aenter__()) for adapter in self._turn()]
        for operation in operations:
            if self._do(operation, transactions, inside) and impatient:
                broken = True
                break
        look_ups = [look for look in self._sample(inside) if look.repository != "adapter"]
        for transaction in transactions:
            self.run(_agrees(look_ups, transaction, inside))
        found = [self.run(_ended(transaction, broken)) for transaction in transactions]
        expected = None if broken else _committed(self.register, inside)
        assert found == [expected] * len(found), list(map(str, operations))

    @rule(operations=MOVED_VALUES, impatient=ONE_IN_FIVE)
    def move_value(self, operations: list[Operation], impatient: bool) -> None:
        self.transact(operations, broken=False, impatient=impatient)

    # Reading

    @invariant()
    def a_sample_of_look_ups_agrees(self) -> None:
        look_ups = self._sample(self.register)
        for adapter in self._turn():
            self.run(_agrees(look_ups, adapter, self.register))

    async def everything_agrees(self) -> None:
        """Compare all reads. `check` finds nothing but children of deleted parents, and repairs them."""
        look_ups = every_look_up(self.register)
        look_ups += [Operation(place[0], "history", {"key": place[1]}) for place in self.register.stories]
        orphans = self.register.orphans()
        for adapter in self._turn():
            await _agrees(look_ups, adapter, self.register)
            checked = await adapter.check(repair=bool(orphans))
            findings = [(finding.problem, finding.kind, *finding.keys) for finding in checked.findings]
            assert sorted(findings) == sorted(("half_cascade", KINDS[place[0]].name, place[1]) for place in orphans)
        for place in orphans:
            self.register.remove(*place)
        for adapter in self._turn() if orphans else ():
            assert (await adapter.check()).findings == ()
            await _agrees(every_look_up(self.register), adapter, self.register)


async def _outcome(operation: Operation, group: AllsourceAuthAdapter | Transaction) -> Outcome:
    try:
        return "answer", await operation.on(group)
    except REFUSALS as error:
        return "refusal", refusal(error)


def _expected(operation: Operation, register: Register) -> Outcome:
    try:
        return "answer", operation.asked_of(register)
    except REFUSALS as error:
        return "refusal", refusal(error)


async def _agrees(look_ups: Sequence[Operation], group: AllsourceAuthAdapter | Transaction, register: Register) -> None:
    found = await asyncio.gather(*[_outcome(look, group) for look in look_ups])
    for look, outcome in zip(look_ups, found, strict=True):
        assert outcome == _expected(look, register), f"{look} on {group!r}"


async def _ended(transaction: Transaction, broken: bool) -> Any:
    """Return the error at the end of the block, if any."""
    try:
        if broken:
            await transaction.__aexit__(Broken, Broken(), None)
        else:
            await transaction.__aexit__(None, None, None)
    except REFUSALS as refused:
        return refusal(refused)
    return None


def _committed(register: Register, inside: Register) -> Any:
    try:
        register.commit(inside)
    except REFUSALS as error:
        return refusal(error)
    return None


BY_NAME = {target.name: target for target in TARGETS}
EMBEDDED = BY_NAME["sqlite-memory"]


@pytest.mark.heavy
def test_random_operations_agree_with_the_model() -> None:
    machine = type("Embedded", (AllKinds,), {"targets": (EMBEDDED,)})
    run_state_machine_as_test(machine, settings=ALL_KINDS)


@pytest.mark.heavy
def test_random_operations_agree_with_the_model_over_http() -> None:
    machine = type("EmbeddedAndLocal", (AllKinds,), {"targets": (EMBEDDED, BY_NAME["local"])})
    run_state_machine_as_test(machine, settings=SEVERAL_STORES)


@pytest.fixture
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Core]:
    """A Core that keeps running while the machines use their own event loops."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(stack.enter_async_context(running(request.param, data=tmp_path / "core")))
        finally:
            runner.run(stack.aclose())


def _tenants_of(core: Core) -> Target:
    """Use a new tenant for every start."""
    tenants = count()

    @asynccontextmanager
    async def start(directory: Path, clock: ManualClock) -> AsyncIterator[Site]:
        tenant = f"example-{next(tenants)}"
        async with AsyncExitStack() as stores:

            def store(_: str) -> EventStore:
                opened = AllsourceStore(core.url, api_key=core.api_key, tenant_id=tenant)
                stores.push_async_callback(opened.close)
                return opened

            yield Site(store)

    return Target(f"tenants of {core.version}", start)


@pytest.mark.core
@pytest.mark.parametrize("core", [OLDEST, NEWEST], indirect=True)
def test_random_operations_agree_with_the_model_on_cores(core: Core) -> None:
    machine = type("EmbeddedAndCore", (AllKinds,), {"targets": (EMBEDDED, _tenants_of(core))})
    run_state_machine_as_test(machine, settings=SEVERAL_STORES)
