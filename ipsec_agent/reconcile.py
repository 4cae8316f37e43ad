"""The loop: observe, decide, act, report; woken by events or by the clock."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from ipsec_agent import __version__
from ipsec_agent.act import ActingHost, perform
from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import desired, promise
from ipsec_agent.core.drift import missing
from ipsec_agent.core.health import LogLine, Problem, Severity, dated, explained, healthy, judge
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.placement import Placement, place
from ipsec_agent.core.plan import plan
from ipsec_agent.core.status import Snapshot, State
from ipsec_agent.core.steps import StartCharon, Step
from ipsec_agent.errors import AgentError, ConfigError
from ipsec_agent.observe import ReadableHost, observe

BURST = 0.05
"""Seconds after a wake-up in which further events join the same pass."""

ROUNDS = 4
"""Rounds of observe and act within one pass, before the rest waits for the next."""

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds before a failed pass is tried again: doubled each time, up to the most."""

LOG_LINES, LOG_LINES_AGE = 100, 120.0
"""Lines of charon's log that are kept, and for how many seconds they explain something."""


class Host(ReadableHost, ActingHost, Protocol):
    """All that the loop needs of the host."""


class Reconciler:
    """Keeps the VM as the config wants it.

    Attributes:
        wake: set by events, which carry nothing else.
        snapshot: what the newest pass saw; None before the first.
    """

    def __init__(self, host: Host, config: Config, finished: Callable[[Snapshot], None]) -> None:
        self.wake = asyncio.Event()
        self.snapshot: Snapshot | None = None
        self._host = host
        self._config = config
        self._finished = finished
        self._placement: Placement | None = None
        self._desired = Desired()
        self._lines: deque[LogLine] = deque(maxlen=LOG_LINES)
        self._failures: tuple[Problem, ...] = ()
        self._retry = RETRY_FIRST
        self._passes = 0
        self._started = False
        self._log = structlog.get_logger("reconcile")

    @property
    def config(self) -> Config:
        """The config in force."""
        return self._config

    def adopt(self, config: Config) -> None:
        """Take another config from the next pass on."""
        self._config = config
        self.wake.set()

    def note(self, line: LogLine) -> None:
        """Keep a line of charon's log that explains something."""
        self._lines.append(line)
        self.wake.set()

    async def run(self) -> None:
        """Pass after pass, for ever."""
        while True:
            await self.one_pass()
            pause = self._retry if self._failures else self._config.agent.interval
            try:
                async with asyncio.timeout(pause):
                    await self.wake.wait()
                await asyncio.sleep(BURST)
            except TimeoutError:
                continue

    async def one_pass(self) -> Snapshot:
        """Observe, decide and act until nothing is left to do, or the rounds are over."""
        self.wake.clear()
        self._passes += 1
        done: list[str] = []
        self._failures = ()
        observed = await self._observe()
        for _ in range(ROUNDS):
            self._decide(observed)
            steps = () if self._failed() else plan(self._desired, observed)
            if not steps:
                break
            done += await self._act(steps)
            observed = await self._observe()
        self._retry = min(self._retry * 2, RETRY_MOST) if self._failed() else RETRY_FIRST
        return self._report(observed, done)

    def _failed(self) -> bool:
        return bool(self._failures)

    async def _observe(self) -> Observed:
        try:
            return await observe(self._host)
        except* AgentError as group:
            self._failures += tuple(_failure("unreadable", error) for error in _leaves(group))
        return self.snapshot.observed if self.snapshot else Observed()

    def _decide(self, observed: Observed) -> None:
        """Work out what should be; where that cannot be known now, the last wish stands."""
        try:
            lists = promise(self._config)
            self._placement = place(self._config.agent, lists, observed.network)
            self._desired = desired(self._config, self._placement)
        except ConfigError as error:
            self._failures = (*self._failures, _failure("placement", error))

    async def _act(self, steps: tuple[Step, ...]) -> list[str]:
        """Perform the steps; one that fails stops no neighbour, but nothing goes before charon."""
        done = []
        for step in steps:
            try:
                await perform(step, self._host)
                done.append(str(step))
            except AgentError as error:
                self._failures = (*self._failures, _failure(str(step), error))
                self._log.warning("step failed", step=str(step), error=str(error))
                if isinstance(step, StartCharon):
                    break
        return done

    def _report(self, observed: Observed, done: list[str]) -> Snapshot:
        fresh = tuple(line for line in self._lines if line.time >= observed.time - LOG_LINES_AGE)
        before = self.snapshot.problems if self.snapshot else ()
        problems = judge(self._config, self._placement, self._desired, observed)
        problems = dated(explained((*self._failures, *problems), fresh), before, observed.time)
        lacking = missing(self._desired, observed.policies)
        if not lacking and not self._failures:
            self._started = True
        snapshot = Snapshot(
            config=self._config,
            placement=self._placement,
            desired=self._desired,
            observed=observed,
            problems=problems,
            state=_state(started=self._started, problems=problems),
            pid=os.getpid(),
            version=__version__,
            passes=self._passes,
        )
        self._tell(done, problems, before)
        self.snapshot = snapshot
        self._finished(snapshot)
        return snapshot

    def _tell(
        self, done: list[str], problems: tuple[Problem, ...], before: tuple[Problem, ...]
    ) -> None:
        if done:
            self._log.info("pass", steps=len(done), did=done[:20])
        known = {(problem.code, problem.subject) for problem in before}
        for problem in problems:
            if (problem.code, problem.subject) not in known:
                self._log.warning("problem", code=problem.code, message=problem.message)
        now = {(problem.code, problem.subject) for problem in problems}
        for problem in before:
            if (problem.code, problem.subject) not in now:
                self._log.info("problem is gone", code=problem.code, message=problem.message)


def _state(*, started: bool, problems: tuple[Problem, ...]) -> State:
    if not started:
        return State.STARTING
    return State.RUNNING if healthy(problems) else State.DEGRADED


def _failure(what: str, error: AgentError) -> Problem:
    return Problem("failed", Severity.ERROR, error.message, error.hint, what)


def _leaves(group: ExceptionGroup[AgentError]) -> list[AgentError]:
    found: list[AgentError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, ExceptionGroup) else [error]
    return found
