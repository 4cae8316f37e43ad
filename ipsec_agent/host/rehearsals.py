"""Peers are asked for an IKE_SA with a certificate that is not in force yet."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from ipsec_agent.core.model import Connection, Credentials
from ipsec_agent.core.rehearsal import Answer
from ipsec_agent.errors import CharonError
from ipsec_agent.host.charon import open_charon

AT_ONCE = 4
"""Each keeps one of charon's threads until the peer has answered."""

WAIT = 4.0
"""Seconds for a peer's answer; the last retransmission is later, and no peer is silent before."""

AGAIN = 0.3
"""Seconds until a peer that refused is asked once more. A peer that rehearses, too, may have begun
an IKE_SA that charon takes for the one that is asked for (ike_sa_manager.c: checkout_by_config),
and has ended it, until which 5.9 waits; or it has no key just then, since it changes its own.
"""

LONGEST = 2 * WAIT + AGAIN
"""Seconds that one peer may take."""

_ANSWERS = {True: Answer.ACCEPTED, False: Answer.REFUSED}


class Rehearsals:
    """Those that are under way, and what charon has for them only.

    Args:
        vici: path of charon's socket.
        deadline: seconds for each of charon's answers, beside those that a peer takes.
    """

    def __init__(self, vici: Path, deadline: float) -> None:
        self._vici = vici
        self._deadline = deadline
        self._names: set[str] = set()
        self._users = Counter[str]()
        self._turn = asyncio.Semaphore(AT_ONCE)

    @property
    def names(self) -> frozenset[str]:
        """The names of the connections, each of which charon may have for a moment."""
        return frozenset(self._names)

    def without(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The ids of charon's keys, but for those that it has for rehearsals only."""
        return tuple(key for key in keys if key not in self._users)

    @contextlib.asynccontextmanager
    async def using(self, credentials: Credentials) -> AsyncIterator[None]:
        """charon has this key, too, until the context ends.

        Raises:
            CharonError: it does not take it, or does not answer.
        """
        async with open_charon(self._vici, self._deadline) as client:
            key = credentials.key_id
            # Another rehearsal may have given it to charon, and the last one takes it away.
            ours = key in self._users or key not in await client.keys()
            self._users += Counter({key: int(ours)})
            try:
                await client.load_key(credentials)
                yield
            finally:
                # What is left of it after an error, the next pass finds, and takes it away.
                with contextlib.suppress(CharonError):
                    if ours and self._users[key] == 1:
                        await client.unload_key(key)
                self._users -= Counter({key: int(ours)})

    async def ask(self, connection: Connection, until: float) -> Answer:
        """What the peer of a connection says.

        Args:
            until: when the last peer must have answered, by time.monotonic; nobody is asked who
                might take longer.

        Raises:
            CharonError: charon does not take it, or does not answer.
        """
        async with self._turn, open_charon(self._vici, self._deadline + WAIT) as client:
            if time.monotonic() + LONGEST > until:
                return Answer.TOO_LATE
            self._names.add(connection.name)
            try:
                await client.load_renewal(connection)
                established = await client.establish(connection.name, WAIT)
                if established is False:
                    await asyncio.sleep(AGAIN)
                    established = await client.establish(connection.name, WAIT)
                return Answer.SILENT if established is None else _ANSWERS[established]
            finally:
                try:
                    await client.terminate_begun(connection.name)
                    await client.unload_connection(connection.name)
                finally:
                    self._names.discard(connection.name)
