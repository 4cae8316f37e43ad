"""Deaths of charon that this agent did not ask for: watched, and remembered with their status."""

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable
from typing import NoReturn

from ipsec_agent.core.deaths import Death
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import AgentError
from ipsec_agent.host.process import watch_death
from ipsec_agent.host.systemd import UnitState, charon_unit, unit_state

REMEMBERED = 64
UNIT_DEADLINE = 3.0
"""Seconds that systemd may take to say how its unit ended."""

BY_SIGNAL = ("signal", "core-dump", "oom-kill", "watchdog")
"""Results of a unit (systemd.service(5)) whose status is a signal."""


class Deaths:
    """The newest deaths."""

    def __init__(self) -> None:
        self._deaths: collections.deque[Death] = collections.deque(maxlen=REMEMBERED)
        self._told: set[str] = set()
        self._expected: asyncio.Queue[CharonProcess] = asyncio.Queue()
        self._newest = ""

    def asked(self, process: CharonProcess) -> None:
        """The agent itself is about to end this process: that is to be no death."""
        self._told.add(process.identity)

    def expect(self, process: CharonProcess) -> None:
        """This process is there, and its death counts, however soon it comes."""
        if process.identity != self._newest:
            self._newest = process.identity
            self._expected.put_nowait(process)

    async def run(
        self, wake: Callable[[], None], ended: Callable[[CharonProcess], None]
    ) -> NoReturn:
        """Watch those that are expected, one after the other, until cancelled."""
        while True:
            process = await self._expected.get()
            await self.watch(process, wake)
            ended(process)

    def listed(self) -> tuple[Death, ...]:
        """Those remembered, the oldest first."""
        return tuple(self._deaths)

    async def watch(self, process: CharonProcess, wake: Callable[[], None]) -> None:
        """Return once the process has ended, which is remembered once; wake at once."""
        status = await watch_death(process.pid, wake)
        if process.identity in self._told:
            return
        self._told = {process.identity}
        unit = charon_unit()
        if status is None and unit is not None:
            # It is systemd's child. Soon it starts another one, and says no more of this.
            with contextlib.suppress(AgentError):
                status = status_of(await unit_state(unit, deadline=UNIT_DEADLINE))
        self._deaths.append(Death(time.time(), status))


def status_of(state: UnitState) -> int | None:
    """Exit code or negative signal of a unit's last run, None where it is running again."""
    if state.result in BY_SIGNAL:
        return -state.status
    return state.status if state.result == "exit-code" else None
