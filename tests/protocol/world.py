"""`World`: one run of a scenario: its clients, the requests and replies in flight, and the faults.

Whenever no client can continue, `World` lists the possible next steps and lets a `Chooser` pick one:

* The server executes the next event of an append, a read, or half a read; or a reply arrives.
* A timer fires, when no client waits for a reply.
* A fault happens, while the number of faults is not used up.
* When all clients have ended: the run ends, or delayed requests are executed first.

With ``reduce``, a step that only one client can observe is decided as early as possible. This loses no final state: the steps
of other clients could as well happen later, and a client that observes something earlier can still do everything that it
could do later.

* The death of a client, its cancellation and the delay of its requests are decided right after it has observed something. In
  each case its requests stay in flight. A lost reply is a delayed append that is executed before the client's next step.
* A reply arrives right after the last event is executed, if its client waits for nothing else and neither a restart nor a
  timer can precede it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tests.protocol.core import SECOND, Interner, SimCore
from tests.protocol.draws import WHO, Identity
from tests.protocol.loop import SimLoop
from tests.protocol.scenario import Outcome, Scenario
from tests.protocol.store import Append, Read, SimStore

__all__ = ["Broken", "Chooser", "World"]

Request = Append | Read
Step = tuple[Callable[..., None], *tuple[Any, ...]]


class Broken(Exception):
    """A run that cannot continue: it does not terminate, or no step is possible."""


class Chooser(Protocol):
    """Chooses the next step."""

    def pick(self, world: World, steps: int, faults: int) -> int:
        """Return the number of an ordinary step (of ``steps``), or of one of the ``faults`` after them; -1 ends the run."""
        ...

    def ends(self, world: World) -> bool:
        """Called when the clients have ended. Returns false if the check is not needed."""
        ...


class Process(Identity):
    """One client."""

    def __init__(self, name: str, index: int) -> None:
        super().__init__(name)
        self.index = index
        self.sent = 0
        self.trail = 0
        self.notes = 0
        self.fresh = True
        self.cancelled = False
        self.task: asyncio.Task[object] | None = None
        self.outcome: Outcome | None = None
        self.numbers: dict[Request, int] = {}
        self.ended: object = None


class World:
    """One run."""

    def __init__(
        self,
        scenario: Scenario,
        loop: SimLoop,
        ids: Interner,
        core: SimCore,
        chooser: Chooser,
        *,
        facts: Mapping[str, Any],
        faults: int = 0,
        reduce: bool = True,
        lines: list[str] | None = None,
    ) -> None:
        self.core = core
        self.facts = facts
        """The result of ``setup``."""
        self.outcomes: dict[str, Outcome] = {}
        """The outcome of each client that has ended."""
        self.notes: dict[str, list[object]] = {}
        """The notes of each client."""
        self.used = 0
        """Number of faults so far."""
        self._scenario = scenario
        self._loop = loop
        self._ids = ids
        self._chooser = chooser
        self._budget = faults
        self._reduce = reduce
        self._lines = lines
        self._processes: list[Process] = []
        self._running = 0
        self._in_flight: list[tuple[Process, Request]] = []
        self._steps = 0
        self._alone = False
        self._closed = False
        self._line = 0
        self._over = False
        self._check_needed = False

    # -- for scenarios

    def store(self, tenant: str = "t") -> SimStore:
        """Return a new store, for the setup, the check, or a client that needs a second one."""
        scenario = self._scenario
        return SimStore(
            self,
            self.core,
            self._ids,
            tenant=tenant,
            atomic_batches=scenario.atomic_batches,
            time_skew=0 if scenario.atomic_batches else scenario.time_skew,
            stamps=scenario.stamps and not scenario.atomic_batches,
            split=scenario.split and not scenario.atomic_batches,
            warm=scenario.warm and not scenario.loses_versions_on_restart,
            lagging=scenario.lagging and not scenario.atomic_batches and not self._alone,
            loses_versions_on_restart=scenario.loses_versions_on_restart,
            ahead=3600 * SECOND if scenario.grace_over else 0,
            page=scenario.page,
        )

    def note(self, value: object) -> None:
        """Record a hashable value for the check, under the name of the running client."""
        process = WHO.get()
        if not isinstance(process, Process):
            raise TypeError("only a client can note something")
        self.notes.setdefault(process.name, []).append(value)
        process.notes = self._ids[process.notes, type(value), value]

    # -- running

    def run(self) -> bool:
        """Run the clients to their end and check. Returns false if the chooser ended the run or needs no check."""
        for index, (name, client) in enumerate(self._scenario.clients.items()):
            self._start(Process(name, index), client)
        self._loop.run(self._idle)
        self._raise_errors()
        if not self._check_needed:
            return False
        self.check_outcomes()
        self.alone("check", self._scenario.check)
        return True

    def alone(self, name: str, program: Callable[[World], Any]) -> Any:
        """Run one coroutine alone and return its result. Requests in flight are dropped."""
        self._in_flight.clear()
        self.core.reveal()
        self._processes = []
        self._alone = True
        self._steps = 0
        process = Process(name, 0)
        self._running = 0
        self._start(process, lambda store, world: program(world))
        self._loop.run(self._idle)
        self._raise_errors()
        outcome = process.outcome
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def close(self) -> None:
        """Cancel all tasks. Their further requests have no effect."""
        self._closed = True
        self._in_flight.clear()
        self._loop.wipe()

    def check_outcomes(self) -> None:
        """Raise `Broken` for a client that ended with an unexpected error."""
        for name, outcome in self.outcomes.items():
            if outcome.error is not None and not isinstance(outcome.error, self._scenario.expected):
                raise Broken(f"{name} {outcome}") from outcome.error

    def key(self) -> tuple[object, ...]:
        """Return all state that the rest of the run depends on."""
        in_flight = [(process.index, process.numbers[request], request.trail, request.since, request.future is None)
                  for process, request in self._in_flight]  # fmt: skip
        timers = self._loop.has_timers
        busy = {process.index for process, request in self._in_flight if request.future is not None}
        return (
            self.core.key(),
            tuple(sorted(in_flight)),
            *[self._process_key(process, timers or process.index in busy) for process in self._processes],
            self._loop.now,
        )

    def _process_key(self, process: Process, busy: bool) -> object:
        if process.outcome is None:
            return process.trail, process.notes, process.fresh
        if busy:
            return process.trail, process.notes, process.ended
        return process.ended

    def _start(self, process: Process, client: Callable[[SimStore, World], Any]) -> None:
        context = contextvars.copy_context()
        context.run(WHO.set, process)
        store = self.store(self._scenario.tenants.get(process.name, "t"))
        process.task = self._loop.create_task(_main(client, store, self), name=process.name, context=context)
        process.task.add_done_callback(lambda task: self._ended(process, task))
        self._processes.append(process)
        self._running += 1

    def _ended(self, process: Process, task: asyncio.Task[object]) -> None:
        if process.outcome is not None or self._closed:
            return
        if task.cancelled():
            outcome = Outcome("cancelled")
        elif (error := task.exception()) is not None:
            outcome = Outcome("raised", error=error)
        else:
            outcome = Outcome("returned", task.result())
        self._finish(process, outcome)

    def _finish(self, process: Process, outcome: Outcome) -> None:
        process.outcome = outcome
        process.ended = self._ids["ended", outcome.how, _fingerprint(outcome, process.trail), process.notes]
        self._running -= 1
        if not self._alone:
            self.outcomes[process.name] = outcome
        if self._lines is not None and not self._alone and outcome.how != "died":
            self._lines.append(f"     {process.name} {outcome}")

    def _raise_errors(self) -> None:
        if self._loop.errors:
            raise Broken("; ".join(self._loop.errors))

    # -- the network

    def submit(self, request: Request) -> asyncio.Future[object]:
        """Send a request."""
        process = WHO.get()
        if self._closed or not isinstance(process, Process):
            raise asyncio.CancelledError
        request.future = self._loop.create_future()
        process.sent += 1
        process.numbers[request] = process.sent
        self._in_flight.append((process, request))
        return request.future

    def abandon(self, request: Request) -> None:
        """Stop waiting for the reply to a request. An append may still be executed."""
        for index, (_, in_flight) in enumerate(self._in_flight):
            if in_flight is request:
                request.future = None
                if request.reads or request.finished:
                    del self._in_flight[index]
                return

    def _deliver(self, process: Process, request: Request, error: Exception | None, seen: int) -> None:
        future, request.future = request.future, None
        assert future is not None
        if error is None:
            future.set_result(request.reply())
        else:
            future.set_exception(error)
        process.trail = self._ids[process.trail, process.numbers[request], seen, self._loop.now]
        process.fresh = True

    # -- what happens next

    def _idle(self) -> bool:
        self._steps += 1
        if self._steps > self._scenario.steps:
            who = self._processes[0].name if self._alone else "the run"
            raise Broken(f"{who} does not terminate within {self._scenario.steps} steps")
        if self._alone:
            return self._run_alone()
        steps, faults = self._options()
        count = len(steps) + len(faults)
        if count == 0:
            raise Broken("no step is possible, but " + self._unfinished() + " not ended")
        choice = 0
        if count > 1:
            choice = self._chooser.pick(self, len(steps), len(faults))
            if choice < 0:
                return False
        if choice >= len(steps):
            self.used += 1
            act, *arguments = faults[choice - len(steps)]
        else:
            act, *arguments = steps[choice]
        act(*arguments)
        return not self._over

    def _run_alone(self) -> bool:
        if self._in_flight:
            process, request = self._in_flight[0]
            if request.finished:
                self._reply(process, request)
            else:
                self._execute(process, request, None)
            return True
        if self._running and self._loop.has_timers:
            self._jump()
            return True
        if self._running:
            raise Broken("no step is possible, but " + self._unfinished() + " not ended")
        return False

    def _options(self) -> tuple[list[Step], list[Step]]:
        left = self._faults_left()
        if left and self._reduce:
            for process in self._processes:
                if process.fresh and process.outcome is None:
                    if faults := self._client_faults(process):
                        return [(self._continue, process)], faults
                    process.fresh = False
        steps: list[Step] = [] if self._running else [(self._end,)]
        waiting = False
        for process, request in self._in_flight:
            waiting = waiting or request.future is not None or request.hides
            if not request.finished:
                steps += [(self._execute, process, request, stamp) for stamp in request.stamps()]
            elif self._forced(process, left):
                return [(self._reply, process, request)], self._losses(process, request) if left else []
            else:
                steps.append((self._reply, process, request))
        if self._running and (not waiting or self._scenario.timers == "any") and self._loop.has_timers:
            steps.append((self._jump,))
        return steps, self._faults() if left else []

    def _faults_left(self) -> int:
        left = self._budget - self.used
        if not left or not self._reduce:
            for process in self._processes:
                process.fresh = False
        return left

    def _forced(self, process: Process, left: int) -> bool:
        if not self._reduce or (left and "restart" in self._scenario.faults):
            return False
        if self._scenario.timers == "any" and self._loop.has_timers:
            return False
        return sum(owner is process for owner, _ in self._in_flight) == 1

    def _unfinished(self) -> str:
        names = [process.name for process in self._processes if process.outcome is None]
        return " and ".join(names) + (" has" if len(names) == 1 else " have")

    # -- faults

    def _client_faults(self, process: Process) -> list[Step]:
        kinds = self._scenario.faults
        faults: list[Step] = [(self._die, process)] if "death" in kinds else []
        for owner, request in self._in_flight:
            if owner is process and request.future is not None and not request.finished:
                faults += self._losses(process, request)
        if "cancel" in kinds and not process.cancelled:
            faults.append((self._cancel, process))
        return faults

    def _losses(self, process: Process, request: Request) -> list[Step]:
        kinds = self._scenario.faults
        if request.reads:
            possible = "lost" in kinds or "delay" in kinds
        elif not request.finished:
            possible = "delay" in kinds
        elif self._reduce:
            possible = "lost" in kinds and "delay" not in kinds
        else:
            possible = "lost" in kinds or "delay" in kinds
        return [(self._lose, process, request)] if possible else []

    def _faults(self) -> list[Step]:
        kinds = self._scenario.faults
        faults: list[Step] = []
        for process, request in self._in_flight:
            if request.future is not None and (request.finished or not self._reduce):
                faults += self._losses(process, request)
        if not self._reduce:
            for process in self._processes:
                if process.outcome is None and "death" in kinds:
                    faults.append((self._die, process))
                if process.outcome is None and "cancel" in kinds and not process.cancelled:
                    faults.append((self._cancel, process))
        if self._running and "restart" in kinds:
            faults.append((self._restart, True))
            if any(not request.reads and not request.begun for _, request in self._in_flight):
                faults.append((self._restart, False))
        if self._running and "clock" in kinds:
            faults.append((self._move_clock,))
        return faults

    def _die(self, process: Process) -> None:
        self._log(f"FAULT: {process.name} dies")
        for owner, request in self._in_flight.copy():
            if owner is process:
                self.abandon(request)
        self._loop.drop(lambda context: context.get(WHO) is process)
        self._finish(process, Outcome("died"))

    def _cancel(self, process: Process) -> None:
        self._log(f"FAULT: {process.name} is cancelled")
        assert process.task is not None
        process.cancelled = process.fresh = True
        process.trail = self._ids[process.trail, "cancelled", self._loop.now]
        process.task.cancel()

    def _lose(self, process: Process, request: Request) -> None:
        late = not (request.reads or request.finished)
        what = "is delayed, no reply" if late else "the reply is lost"
        self._log(f"FAULT: {process.name}: {request.title() if late else 'request'}: {what}")
        self._deliver(process, request, request.lost(), 0)
        if not late:
            self._in_flight.remove((process, request))

    def _restart(self, sent: bool) -> None:
        """Restart the server. Requests in flight are lost; if ``sent`` is false, appends that were not begun are sent later."""
        self._log("FAULT: the server dies and restarts" + ("" if sent else ", before the unsent appends"))
        cold = False if self._scenario.atomic_batches else self._scenario.cold
        self.core.restart(cold=cold)
        in_flight, self._in_flight = self._in_flight, []
        for process, request in in_flight:
            if not sent and not request.reads and not request.begun:
                self._in_flight.append((process, request))
            elif request.future is not None:
                self._deliver(process, request, request.lost(), 0)

    def _move_clock(self) -> None:
        self._log(f"FAULT: the server's clock moves by {self._scenario.clock_step / SECOND} s")
        self.core.step_clock(self._scenario.clock_step)

    # -- ordinary steps

    def _execute(self, process: Process, request: Request, stamp: int | None) -> None:
        title = request.title() if self._lines is not None else ""
        request.execute(stamp)
        if self._lines is not None:
            late = "" if stamp is None else f", stamped {stamp}"
            orphan = "" if request.future is not None else " (late)"
            self._log(f"{process.name}: {title}{orphan} -> {request.result()}{late}")
        if request.future is None:
            if request.finished:
                self._in_flight.remove((process, request))
        elif request.reads and request.finished:
            self._in_flight.remove((process, request))
            self._deliver(process, request, None, request.trail)

    def _reply(self, process: Process, request: Request) -> None:
        self._log(f"{process.name}: reply")
        self._in_flight.remove((process, request))
        self._deliver(process, request, request.error, request.trail)

    def _continue(self, process: Process) -> None:
        process.fresh = False
        self._steps -= 1

    def _jump(self) -> None:
        self._loop.advance()
        self.core.elapsed = round(self._loop.now * SECOND)
        self._log(f"time passes: {self._loop.now:g} s")
        for process in self._processes:
            process.fresh = True

    def _end(self) -> None:
        dropped = "".join(
            f"; never executed: {request.title()}" for _, request in self._in_flight if not request.finished
        )
        self._log(f"end{dropped}" if self._lines is not None else "")
        self._over = True
        self._check_needed = self._chooser.ends(self)

    def _log(self, line: str) -> None:
        if self._lines is not None and not self._alone:
            self._line += 1
            self._lines.append(f"{self._line:3}. {line}")


async def _main(client: Callable[[SimStore, World], Any], store: SimStore, world: World) -> object:
    return await client(store, world)


def _fingerprint(outcome: Outcome, trail: int) -> object:
    """Return a value that identifies the outcome; the client's observations if the outcome is not hashable."""
    if outcome.how == "died":
        return 0
    error = outcome.error
    value = outcome.value if error is None else (type(error), error.args, tuple(sorted(vars(error).items())))
    try:
        hash(value)
    except TypeError:
        return trail
    return type(value), value
