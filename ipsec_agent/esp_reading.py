"""Whether the kernel can do ESP, for the loop: tried beside it, and seldom while all is well.

The kernel may load modules for the first SA, which takes seconds on a slow machine; so a pass does
not wait for more than a moment, and has "not known yet" meanwhile.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from ipsec_agent.core.esp import DummySa, EspAbility

MOMENT = 0.3
"""Seconds that a pass waits; a trial takes a few milliseconds."""

GOOD_LASTS = 300.0
"""Seconds for which a success counts: a module can be unloaded while no SA needs it."""


class EspReading:
    """What the newest trial said, and when the next one is due.

    Args:
        trial: tries the SAs, and blocks.
        bad_lasts: seconds for which a failure counts, asked for each time.
    """

    def __init__(
        self,
        trial: Callable[[tuple[DummySa, ...]], EspAbility],
        bad_lasts: Callable[[], float],
    ) -> None:
        self._trial = trial
        self._bad_lasts = bad_lasts
        self._wanted: tuple[DummySa, ...] | None = None
        self._known: EspAbility | BaseException | None = None
        self._tried = 0.0
        self._running: asyncio.Future[EspAbility] | None = None
        self._late = asyncio.Event()

    async def get(self, wanted: tuple[DummySa, ...]) -> EspAbility:
        """What is known of these SAs; pending while that is nothing.

        Raises:
            AgentError: they cannot be tried.
        """
        if wanted != self._wanted:
            self._wanted, self._known = wanted, None
        if self._running is None and self._due():
            self._begin(wanted)
        if self._running is not None:
            done, _ = await asyncio.wait({self._running}, timeout=MOMENT)
            if not done:
                self._running.add_done_callback(lambda _: self._late.set())
        if isinstance(self._known, BaseException):
            raise self._known
        return self._known or EspAbility(pending=True)

    def outdated(self) -> None:
        """A success no longer counts: charon could not install an SA, or a peer could not."""
        if isinstance(self._known, EspAbility) and self._known.good:
            self._tried = -GOOD_LASTS

    async def watch(self, wake: Callable[[], None]) -> None:
        """Wake when a trial that no pass waited for has ended, until cancelled."""
        while True:
            await self._late.wait()
            self._late.clear()
            wake()

    def _due(self) -> bool:
        good = isinstance(self._known, EspAbility) and self._known.good
        lasts = GOOD_LASTS if good else self._bad_lasts()
        return self._known is None or time.monotonic() - self._tried >= lasts

    def _begin(self, wanted: tuple[DummySa, ...]) -> None:
        """In a thread that keeps no agent from ending; one at a time."""
        outcome: Future[EspAbility] = Future()

        def work() -> None:
            try:
                outcome.set_result(self._trial(wanted))
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                outcome.set_exception(error)

        def ended(future: asyncio.Future[EspAbility]) -> None:
            self._running, self._tried = None, time.monotonic()
            # What was tried for an earlier config says nothing.
            if wanted == self._wanted:
                self._known = future.exception() or future.result()

        threading.Thread(target=work, name="ESP preflight", daemon=True).start()
        self._running = asyncio.wrap_future(outcome)
        self._running.add_done_callback(ended)
