"""Which links the guard exempts: a change of links takes exemptions back at once.

Only a pass, which looks at everything, exempts further links. Its plan was made from facts that
may be older than the change; so what the change forbids stays forbidden until a pass has read
newer facts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from ipsec_agent.core.model import LinkId
from ipsec_agent.errors import KernelError


class Exemptions:
    """What the guard exempts, and what it may.

    Attributes:
        changes: of links that were heard of, counted.

    Args:
        put: tells the guard which links are exempt, and the UDP ports of tunnels among them; None
            leaves these.
    """

    def __init__(self, put: Callable[[tuple[LinkId, ...], tuple[int, ...] | None], None]) -> None:
        self._put = put
        self._exempt: tuple[LinkId, ...] | None = None
        self._allowed: frozenset[LinkId] | None = None
        self._lock = asyncio.Lock()
        self.changes = 0

    def confirmed(self, changes: int) -> None:
        """Facts were read; `changes` as it was before that."""
        if changes == self.changes:
            self._allowed = None

    def learned(self, links: tuple[LinkId, ...]) -> None:
        """The guard that was found exempts these."""
        if self._exempt is None:
            self._exempt = links

    async def set(self, links: tuple[LinkId, ...], ports: tuple[int, ...]) -> None:
        """Exempt those of a plan's links that are still allowed."""
        async with self._lock:
            self._set(self._still(links), ports)

    @contextlib.asynccontextmanager
    async def loading(
        self, wanted: tuple[LinkId, ...], *, further: bool
    ) -> AsyncIterator[tuple[LinkId, ...]]:
        """A whole table is loaded within the context, with the links that it yields.

        Args:
            further: links may be exempt that were not.
        """
        async with self._lock:
            now = self._exempt or ()
            exempt = self._still(wanted) if further else tuple(one for one in wanted if one in now)
            yield exempt
            self._exempt = exempt

    async def restrict(self, allowed: Awaitable[frozenset[LinkId]]) -> None:
        """Links have changed: take back at once what is not allowed any more.

        Args:
            allowed: what is; where that cannot be read, nothing.
        """
        self.changes += 1
        now: frozenset[LinkId] = frozenset()
        with contextlib.suppress(KernelError):
            now = await allowed
        self._allowed = now
        async with self._lock:
            left = self._still(self._exempt or ())
            if self._exempt and left != self._exempt:
                # Where the guard has gone, the next pass loads it.
                with contextlib.suppress(KernelError):
                    self._set(left)

    def _set(self, links: tuple[LinkId, ...], ports: tuple[int, ...] | None = None) -> None:
        self._put(links, ports)
        self._exempt = links

    def _still(self, links: tuple[LinkId, ...]) -> tuple[LinkId, ...]:
        allowed = self._allowed
        return links if allowed is None else tuple(link for link in links if link in allowed)
