"""The session in which steps are done with one charon: a connection that they share."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from pathlib import Path

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonError, CharonRefusedError
from ipsec_agent.host.charon import CharonClient, open_charon

_Open = tuple[object, CharonClient, contextlib.AsyncExitStack]
"""Of which charon it is, what asks it, and what closes it."""


class CharonSession:
    """One connection at a time, opened when a step needs it, and kept until it fails.

    Args:
        deadline: seconds that charon may take for one answer.
    """

    def __init__(self, vici: Path, deadline: float) -> None:
        self._vici = vici
        self._deadline = deadline
        self._opening = asyncio.Lock()
        self._opened = 0
        self._failure: CharonError | None = None
        self._open: _Open | None = None

    @contextlib.asynccontextmanager
    async def client(self, process: CharonProcess | None) -> AsyncIterator[CharonClient]:
        """charon's commands; steps that are under way together have the same connection.

        Raises:
            CharonError: charon does not accept.
        """
        found = await self._opened_for(process)
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

    async def _opened_for(self, process: CharonProcess | None) -> _Open:
        """The connection to this charon; who waits while another step opens it shares its failure,
        too: each for itself, they would wait for a charon that hangs one deadline after the other.

        Raises:
            CharonError: charon does not accept.
        """
        which, opened = process.identity if process else None, self._opened
        async with self._opening:
            if self._open is not None and self._open[0] == which:
                return self._open
            if self._failure is not None and self._opened != opened:
                raise copy.copy(self._failure)
            await self.end()
            self._failure = None
            try:
                async with contextlib.AsyncExitStack() as stack:
                    client = await stack.enter_async_context(
                        open_charon(self._vici, self._deadline)
                    )
                    self._open = (which, client, stack.pop_all())
                    return self._open
            except CharonError as error:
                self._failure = error
                raise
            finally:
                self._opened += 1

    async def end(self) -> None:
        """Close the connection, where there is one."""
        found, self._open = self._open, None
        if found is not None:
            await found[2].aclose()
