"""Renewals of SAs in the background: some at once, so that no other repair waits for them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ipsec_agent.core.model import Attempt, Connection
from ipsec_agent.core.pacing import TURN
from ipsec_agent.host.charon import open_charon

RENEWALS_AT_ONCE = 8
"""As many as charon has threads to spare for; each takes three of its answers."""

KEPT = 4096
"""Attempts that are remembered."""


class Renewals:
    """Those that have begun, by the name of their connection.

    Args:
        vici: path of charon's socket.
        deadline: seconds for each of charon's answers.
        ended: is called whenever one has been handed over to charon, or has failed.
    """

    def __init__(self, vici: Path, deadline: float, ended: Callable[[], None]) -> None:
        self._vici = vici
        self._deadline = deadline
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._handed_over: dict[str, float] = {}
        self._attempts: dict[str, Attempt] = {}
        self._turn = asyncio.Semaphore(RENEWALS_AT_ONCE)

    @property
    def under_way(self) -> frozenset[str]:
        """The names of the connections, each of which charon may have for a moment.

        One has its turn (core/pacing.py) from when charon has begun to negotiate.
        """
        now = time.monotonic()
        return frozenset(
            name
            for name, task in self._tasks.items()
            if not task.done() or now - self._handed_over.get(name, -TURN) < TURN
        )

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        """Those of the charon that runs, by the name of their connection."""
        return dict(self._attempts)

    def ask(self, names: Iterable[str]) -> None:
        """Note that an operator wants these."""
        self._attempts |= {name: Attempt() for name in names if name not in self.under_way}

    def begin(self, connection: Connection) -> None:
        """Negotiate with the one peer of a connection, unless that has begun.

        Raises:
            CharonError: the last attempt with it failed; this call begins none.
        """
        if connection.name in self.under_way:
            return
        self._handed_over.pop(connection.name, None)
        if (ended := self._tasks.pop(connection.name, None)) is not None:
            ended.result()
        count = self._attempts.pop(connection.name, Attempt()).count + 1
        self._attempts[connection.name] = Attempt(count, time.time())
        for name in tuple(self._attempts)[:-KEPT]:
            del self._attempts[name]
        task = asyncio.create_task(self._renew(connection), name=connection.name)
        self._tasks[connection.name] = task
        task.add_done_callback(lambda _task: self._ended())

    async def end(self) -> None:
        """Begin none any more, and give up what is under way."""
        tasks, self._tasks = self._tasks, {}
        self._handed_over.clear()
        self._attempts.clear()
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _renew(self, connection: Connection) -> None:
        async with self._turn, open_charon(self._vici, self._deadline) as client:
            await client.load_renewal(connection)
            try:
                await client.initiate(connection.children[-1].name, connection.name)
                self._handed_over[connection.name] = time.monotonic()
            finally:
                await client.unload_connection(connection.name)
