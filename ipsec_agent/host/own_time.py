"""Deadlines in the time in which this process could run: it may be stopped, starved or paused.

A clock goes on meanwhile, and what came in the meantime waits in a socket. By the clock alone the
agent would take its own sleep for somebody else's silence.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

TICK, GRACE = 0.5, 0.1
"""Seconds. A longer sleep of this process counts as one tick; shorter ticks would make much of each
delay of a machine that is busy. What had arrived before the end is read within the grace."""


class Ticks:
    """Own time that passes, until it is over.

    Args:
        seconds: how much of it.
        over: called once, at the end.
    """

    def __init__(self, seconds: float, over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = seconds
        self._over = over
        self._call(seconds)

    def _call(self, left: float) -> None:
        self._left = left
        self._handle = self._loop.call_later(min(TICK, left) if left > 0 else GRACE, self._tick)

    def _tick(self) -> None:
        if self._left > 0:
            self._call(self._left - TICK)
        else:
            self._over()

    def cancel(self) -> None:
        """Stop counting."""
        self._handle.cancel()


@contextlib.asynccontextmanager
async def timeout(seconds: float) -> AsyncIterator[Ticks]:
    """As asyncio.timeout, in own time.

    Raises:
        TimeoutError: the block took longer.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        ticks = Ticks(seconds, lambda: limit.reschedule(loop.time()))
        try:
            yield ticks
        finally:
            ticks.cancel()


async def wait(task: asyncio.Future[Any], seconds: float) -> None:
    """Wait for the end of a task, which goes on where that takes longer."""
    with contextlib.suppress(TimeoutError):
        async with timeout(seconds):
            await asyncio.wait({task})
