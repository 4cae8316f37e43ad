"""The session in which steps are done with one charon: a connection that they share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonRefusedError
from ipsec_agent.host.charon import CharonClient, open_charon


class CharonSession:
    """One connection at a time, opened when a step needs it, and kept until it fails.

    Args:
        deadline: seconds that charon may take for one answer.
    """

    def __init__(self, vici: Path, deadline: float) -> None:
        self._vici = vici
        self._deadline = deadline
        self._opening = asyncio.Lock()
        self._open: tuple[object, CharonClient, contextlib.AsyncExitStack] | None = None

    @contextlib.asynccontextmanager
    async def client(self, process: CharonProcess | None) -> AsyncIterator[CharonClient]:
        """charon's commands; steps that are under way together have the same connection.

        Raises:
            CharonError: charon does not accept.
        """
        started = process.started if process else None
        async with self._opening:
            found = self._open
            if found is None or found[0] != started:
                await self.end()
                async with contextlib.AsyncExitStack() as stack:
                    client = await stack.enter_async_context(
                        open_charon(self._vici, self._deadline)
                    )
                    found = self._open = (started, client, stack.pop_all())
        try:
            yield found[1]
        except CharonRefusedError:
            raise
        except BaseException:
            # Answers bear no number: whose the next one is would not be known. What another step
            # has opened meanwhile is none of this one's.
            if self._open is found:
                await self.end()
            raise

    async def end(self) -> None:
        """Close the connection, where there is one."""
        found, self._open = self._open, None
        if found is not None:
            await found[2].aclose()
