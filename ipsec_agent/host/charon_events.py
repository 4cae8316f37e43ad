"""charon's events and log lines, heard from before charon has a connection to tell of."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from ipsec_agent.core.charon_log import Said
from ipsec_agent.errors import CharonError
from ipsec_agent.host import own_time
from ipsec_agent.host.charon import said_by
from ipsec_agent.host.vici_wire import open_vici

EVENTS = ("ike-updown", "child-updown", "ike-rekey", "child-rekey", "ike-update", "log")

RECONNECT = 0.5
"""Seconds between attempts to hear charon's events again."""

SOON = 1.0
"""Seconds within which those of a new charon are heard, or nothing waits for them any more."""


class CharonEvents:
    """The events of whatever charon has the socket.

    Args:
        path: of charon's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watching = False
        self._heard = asyncio.Event()
        self._again = asyncio.Event()

    async def watch(self, wake: Callable[[], None], heard: Callable[[Said], None]) -> None:
        """Wake at each event of charon's SAs, and hand on its log lines, until cancelled."""
        self._watching = True
        try:
            while True:
                with contextlib.suppress(CharonError):
                    await self._listen(wake, heard)
                self._heard.clear()
                with contextlib.suppress(TimeoutError):
                    async with own_time.timeout(RECONNECT):
                        await self._again.wait()
                self._again.clear()
        finally:
            self._watching = False

    async def expect(self) -> None:
        """Wait a while until a charon that has just started is heard, where anybody watches.

        A packet may begin a negotiation as soon as there is a trap, and what charon's log says of
        it nobody can read again.
        """
        if not self._watching:
            return
        self._again.set()
        with contextlib.suppress(TimeoutError):
            async with own_time.timeout(SOON):
                await self._heard.wait()

    async def _listen(self, wake: Callable[[], None], heard: Callable[[Said], None]) -> None:
        async with open_vici(self._path) as vici:
            wake()
            async for event, body in vici.listen(EVENTS, self._heard.set):
                if event == "log":
                    heard(said_by(body))
                else:
                    wake()
