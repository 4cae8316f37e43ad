"""The loop: observe, decide, act, report; woken by events or by the clock."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog
from msgspec import Struct

from ipsec_agent.act import NO_CHARON, act
from ipsec_agent.core.budget import Budget
from ipsec_agent.core.config import Config
from ipsec_agent.core.desired_guard import judging_all, unplaced
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.liars import Lie, lies
from ipsec_agent.core.model import Address, DesiredGuard
from ipsec_agent.core.observed import NetworkFacts, Observed
from ipsec_agent.core.offers import Offers, offered, offers_of
from ipsec_agent.core.order import Unsafe, check_order, lacks, opens, protects, together
from ipsec_agent.core.placement import Placement, place, steady
from ipsec_agent.core.plan import plan
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.status import Snapshot
from ipsec_agent.core.steps import KernelStep, LoadGuard, Step
from ipsec_agent.core.wish import wish
from ipsec_agent.errors import AgentError, ConfigError
from ipsec_agent.reporter import Pass, Reporter

BURST, BURST_MOST = 0.05, 0.2
"""Seconds from the end of a pass to the next one: as long as it took, within these bounds. Events
of a burst share one, so that a thousand peers that come together do not keep the loop busy."""

ROUNDS = 4
"""Rounds of observe and act within one pass, before the rest waits for the next."""

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds before a failed pass is tried again: doubled each time, up to the most."""

GUARD_LOOK = 0.25
"""Seconds between looks at the guard while something waits for charon; one that no event has told
of costs nothing."""

LOOK_WAIT = 1.0
"""Seconds that a question waits for a look of its own; a charon that hangs holds a pass longer."""

T = TypeVar("T")


class Look(Struct, frozen=True):
    """The answer to a question.

    Attributes:
        snapshot: None before the first pass has ended.
        age: seconds from the look to the question; 0 where it was taken after it.
    """

    snapshot: Snapshot | None
    age: float = 0.0


class Host(Protocol):
    """All that the loop needs of the machine."""

    async def observe(self) -> Observed:
        """Read everything once; what cannot be read is named."""

    async def perform(self, step: Step) -> None:
        """Perform a step.

        Raises:
            AgentError: it could not be performed.
        """

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        """Load the guard's table where it is gone or altered; whether it was.

        Raises:
            AgentError: it does not load.
        """

    def suspect(self, peers: tuple[Address, ...]) -> None:
        """Have each look tell whether these peers are still there."""

    def probe(self, peers: tuple[Address, ...]) -> None:
        """Send each peer what every VM answers."""

    def outdate(self) -> None:
        """Keep nothing for the next look of what changes without an event."""

    def adopt(self, config: Config) -> None:
        """Take another config."""


class Reconciler:
    """Keeps the VM as the config wants it.

    Attributes:
        wake: has the loop begin a pass.
        config: the config in force.
        snapshot: what the newest pass saw; None before the first.
        reporter: turns passes into the snapshot.
        guard_lowered: the operator has taken the guard down for now.
    """

    def __init__(
        self,
        host: Host,
        config: Config,
        finished: Callable[[Snapshot], None],
        essential: EssentialAddresses | None = None,
        *,
        most_pause: float | None = None,
    ) -> None:
        """Prepare the loop.

        Args:
            finished: is given each pass's snapshot.
            essential: what this VM cannot do without.
            most_pause: seconds between passes at the most, for a watchdog.
        """
        self.wake = asyncio.Event()
        self.config = config
        self.snapshot: Snapshot | None = None
        self.reporter = Reporter()
        self.essential = essential or EssentialAddresses()
        self.guard_lowered = False
        self._host = host
        self._finished = finished
        self._most_pause = most_pause
        self._placement: Placement | None = None
        self._placed_by: tuple[Config, NetworkFacts] | None = None
        self._desired = unplaced(config, lowered=False)
        self._offers: Offers | None = None
        self._wished_by: tuple[Config, NetworkFacts, bool, Offers | None] | None = None
        self._failures: dict[str, AgentError] = {}
        self._retry, self._retry_at = RETRY_FIRST, 0.0
        self._only_asked = False
        self._looking = self._looked = 0.0
        self._begun = self._ended = self._adopted = 0
        self._change = asyncio.Condition()
        self._passing = asyncio.Lock()
        self._settled = False
        self._budget = Budget()
        self._log = structlog.get_logger("reconcile")

    def adopt(self, config: Config, essential: EssentialAddresses | None = None) -> None:
        """Take another config from the next pass on."""
        self.config = config
        self.essential = essential or self.essential
        self._host.adopt(config)
        self._adopted = self._begun
        self._settled, self._budget = False, Budget()
        self.heard()

    def lower_guard(self, *, lowered: bool) -> None:
        """Take the guard down, until `guard up` or the agent's next start."""
        self.guard_lowered = lowered
        self._settled = False
        self.heard()

    def heard(self) -> None:
        """Something has happened: look again, and try again what failed."""
        self._only_asked = False
        self.wake.set()

    async def run(self) -> None:
        """Run passes until cancelled."""
        while True:
            began = _now()
            await self.one_pass()
            ended = _now()
            try:
                async with asyncio.timeout(self._pause()):
                    await self.wake.wait()
            except TimeoutError:
                continue
            rest = min(max(ended - began, BURST), BURST_MOST)
            await asyncio.sleep(max(0.0, ended + rest - _now()))

    @contextlib.asynccontextmanager
    async def halted(self) -> AsyncIterator[None]:
        """No pass runs within the context."""
        async with self._passing:
            yield

    async def passed(self) -> Snapshot:
        """Wake the loop, and wait for the end of a pass that began after this call."""
        self.heard()
        await self._pass_after(self._begun)
        assert self.snapshot is not None  # noqa: S101 - a pass has ended
        return self.snapshot

    async def in_force(self) -> None:
        """Wait for the end of a pass that began after the newest config was adopted."""
        await self._pass_after(self._adopted)

    async def look(self, within: float = 0.0) -> Look:
        """A look that was taken after this call, or at most so many seconds before it.

        All who wait share a pass. After LOOK_WAIT it is the last look, however old.
        """
        asked = _now()
        if self.snapshot is None or asked - self._looked > within:
            self._host.outdate()
            # An event that has woken the loop already remains one.
            self._only_asked = self._only_asked or not self.wake.is_set()
            self.wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_WAIT):
                    await self._pass_after(self._begun)
        return Look(self.snapshot, max(0.0, asked - self._looked) if self.snapshot else 0.0)

    async def _pass_after(self, number: int) -> None:
        async with self._change:
            await self._change.wait_for(lambda: self._ended > number)

    def _pause(self) -> float:
        unread = self.snapshot.observed.unreadable if self.snapshot else ()
        retry = max(0.0, self._retry_at - _now())
        pause = retry if self._failures or unread else self.config.agent.interval
        pause = min(pause, max(self.reporter.due, RETRY_FIRST))
        if waiting := self._budget.wait():
            pause = min(pause, max(waiting, RETRY_FIRST))
        return pause if self._most_pause is None else min(pause, self._most_pause)

    async def one_pass(self) -> Snapshot:
        """Observe, decide and act until nothing is left to do, or the rounds are over."""
        async with self._passing:
            return await self._pass()

    async def _pass(self) -> Snapshot:
        self.wake.clear()
        self._begun += 1
        # However often somebody asks, what failed is tried again when its time has come.
        early = self._only_asked and _now() < self._retry_at
        held, self._failures = self._failures if early else {}, {}
        self._only_asked = False
        done: list[str] = []
        told: dict[Lie, None] = {}
        unsafe: dict[str, Unsafe] = {}
        drift = Drift(self._desired, await self._observe(done))
        self._budget = self._budget.at(drift.observed.time)
        for _ in range(ROUNDS):
            self._decide(drift.observed)
            drift = Drift(self._desired, drift.observed)
            # What is ended in this pass is not there any more when it reports.
            told |= dict.fromkeys(lies(drift))
            planned = plan(drift)
            affordable = self._budget.allowed(self._due(self._safe(planned, unsafe), held))
            if self._settled:
                self._budget = self._budget.spent(affordable)
            if not affordable:
                break
            going_on = await self._act(affordable, done, open_=lacks(planned, affordable))
            self._budget = self._budget.after(affordable, done)
            drift = Drift(self._desired, await self._observe(done))
            if not going_on:
                break
        # What a new config asked for had this pass; from now on it is repair.
        self._settled = True
        if not early:
            failed = self._failures or drift.observed.unreadable
            self._retry = min(self._retry * 2, RETRY_MOST) if failed else RETRY_FIRST
            self._retry_at = _now() + self._retry
        return await self._report(drift, done, tuple(told), tuple(unsafe.values()))

    async def _observe(self, done: list[str]) -> Observed:
        self._looking = _now()
        return await self._guarding(self._host.observe(), done)

    def _due(self, steps: tuple[Step, ...], held: dict[str, AgentError]) -> tuple[Step, ...]:
        """The steps without those that failed, and are not yet to be tried again."""
        later = {name: held[name] for name in map(str, steps) if name in held} if held else {}
        self._failures |= later
        return tuple(step for step in steps if str(step) not in later) if later else steps

    def _safe(self, steps: tuple[Step, ...], unsafe: dict[str, Unsafe]) -> tuple[Step, ...]:
        """The steps of a plan without those that would open what was closed, which are noted."""
        found = check_order(steps, self._desired)
        for one in found:
            self._log.critical("step left out", step=str(one.step), because=one.because)
            unsafe[str(one.step)] = one
        left_out = {id(one.step) for one in found}
        return tuple(step for step in steps if id(step) not in left_out) if found else steps

    def _decide(self, observed: Observed) -> None:
        """Work out what should be; where that cannot be known now, the last wish remains.

        Before the first one only the guard is wanted.
        """
        config, network = self.config, observed.network
        if not self._desired.placed:
            self._desired = unplaced(config, lowered=self.guard_lowered)
        if "network" in dict(observed.unreadable):
            return
        self._failures.pop("placement", None)
        try:
            placement = self._place(network)
            self._offers = offers_of(observed.charon) or self._offers
            by = config, network, self.guard_lowered, self._offers
            if by != self._wished_by:
                config = offered(config, self._offers)
                self._desired = wish(config, placement, network, lowered=self.guard_lowered)
                self._wished_by = by
        except ConfigError as error:
            self._failures["placement"] = error
            # Which links lead out depends on this VM's own addresses.
            self._desired = judging_all(self._desired, config, lowered=self.guard_lowered)
            self._wished_by = None

    def _place(self, network: NetworkFacts) -> Placement:
        """This VM's place; worked out again only after a change of links or config.

        Raises:
            ConfigError: that is not clear.
        """
        config, by = self.config, self._placed_by
        if self._placement is None or by != (config, network):
            promise = Promise.of(config)
            found = place(config.agent, promise, network, self._placement)
            self._placement = steady(found, self._placement, promise, network)
            self._placed_by = (config, network)
        return self._placement

    async def _act(self, steps: tuple[Step, ...], done: list[str], *, open_: bool) -> bool:
        """Perform the steps; one that fails stops none that may go without. Whether another round
        makes sense: not without a charon that answers. `open_`: what is to be protected is not.
        """
        before = len(done)
        for run in together(steps):
            if open_ and opens(run[0]):
                continue
            work = act(self._host.perform, run)
            kernel = isinstance(run[0], KernelStep)
            outcomes = await (work if kernel else self._guarding(work, done))
            for step, error in zip(run, outcomes, strict=True):
                if error is None:
                    done.append(str(step))
                    continue
                self._failures[str(step)] = error
                open_ = open_ or protects(step)
                self._log.warning("step failed", step=str(step), error=str(error))
                if isinstance(error, NO_CHARON):
                    return False
        return len(done) > before

    async def _guarding(self, work: Coroutine[Any, Any, T], done: list[str]) -> T:
        """What comes of some work, which may wait for charon; the guard is not left to wait, too.

        Raises:
            AgentError: the work raised it.
        """
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=GUARD_LOOK))[0]:
                # What fails here the pass itself finds, and tells.
                with contextlib.suppress(AgentError):
                    await self._restore_guard(done)
            return task.result()
        finally:
            task.cancel()

    async def _restore_guard(self, done: list[str]) -> None:
        guard = self._desired.guard if self._desired.placed else None
        if guard is not None and await self._host.restore_guard(guard):
            done.append(str(LoadGuard(guard)))

    async def _report(
        self, drift: Drift, done: list[str], told: tuple[Lie, ...], unsafe: tuple[Unsafe, ...]
    ) -> Snapshot:
        self.snapshot = self.reporter.report(
            Pass(
                number=self._begun,
                config=self.config,
                placement=self._placement,
                drift=drift,
                failures=tuple(self._failures.items()),
                done=tuple(done),
                lies=told,
                unsafe=unsafe,
                waiting=self._budget.exhausted(),
                guard_lowered=self.guard_lowered,
                essential=self.essential,
            )
        )
        self._host.suspect(self.reporter.suspects)
        self._host.probe(self.reporter.probes)
        self._looked = self._looking
        self._finished(self.snapshot)
        async with self._change:
            self._ended = self._begun
            self._change.notify_all()
        return self.snapshot


def _now() -> float:
    """Seconds of the loop's clock."""
    return asyncio.get_running_loop().time()
