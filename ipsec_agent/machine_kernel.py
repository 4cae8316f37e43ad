"""The machine's kernel as the loop sees it: policies, SAs, the guard, links and counters."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from ipsec_agent.core.guard_table import exempt_update, mark
from ipsec_agent.core.model import DesiredGuard, Direction, LinkId
from ipsec_agent.core.observed import NetworkFacts, Policy, SecurityAssociation, Switch
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.links import Links
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.saved_guard import forget_guard, save_guard, saved_guard
from ipsec_agent.host.switches import SwitchesReader
from ipsec_agent.host.veth import lower_inner_end
from ipsec_agent.host.xfrm import Xfrm
from ipsec_agent.host.xfrm_stat import stats
from ipsec_agent.kept_reading import KeptReading

TABLE_LASTS = 5.0
"""Seconds for which a reading of the guard's table is kept at the most."""

REWATCH = 10.0
"""Seconds until it is tried again to hear of the guard's changes."""


class KernelHost:
    """The kernel behind the verbs that observing and acting need.

    Args:
        saved_guard: the file from which the guard is loaded at boot.
        inside: which links need no guard.
        lasts: seconds for which links and guard need no second look while no event tells of them.
            Packets change the guard's counters without one.
    """

    def __init__(
        self,
        xfrm: Xfrm,
        links: Links,
        nft: Nft,
        saved_guard: Path,
        *,
        inside: Callable[[NetworkFacts], frozenset[LinkId]],
        lasts: Callable[[], float],
    ) -> None:
        self._xfrm = xfrm
        self._links = links
        self._nft = nft
        self._saved_guard = saved_guard
        self._switches = SwitchesReader(lasts)
        self._inside = inside
        self._facts: NetworkFacts | None = None
        self._news = 0
        self._allowed: frozenset[LinkId] | None = None
        self._exempt: tuple[LinkId, ...] | None = None
        self._exempting = asyncio.Lock()
        self._mark: str | None = None
        self._disturbed = 0
        self._network = KeptReading(links.facts, lasts)
        self._table = KeptReading(nft.read, lambda: min(lasts(), TABLE_LASTS))

    async def policies(self) -> tuple[Policy, ...]:
        """The kernel's policies."""
        return await self._xfrm.policies()

    async def states(self) -> tuple[SecurityAssociation, ...]:
        """The kernel's SAs."""
        return await self._xfrm.states()

    async def network(self) -> NetworkFacts:
        """The VM's links and addresses."""
        news = self._news
        self._facts = await self._network.get()
        if news == self._news:
            # As new as the facts of the check at once.
            self._allowed = None
        return self._facts

    async def guard(self) -> GuardTable | None:
        """The guard's table, None where there is none."""
        disturbed = self._disturbed
        table = await self._table.get()
        if disturbed == self._disturbed:
            self._mark = table.mark if table else ""
        if self._exempt is None and table is not None:
            self._exempt = table.exempt
        return table and table.aged(int(self._table.age))

    async def counters(self) -> tuple[tuple[str, int], ...]:
        """The kernel's counters of packets that IPsec lost; empty where it keeps none."""
        try:
            return tuple(stats().items())
        except KernelError:
            return ()

    async def switches(self) -> tuple[Switch, ...]:
        """Settings of the kernel that take IPsec from packets."""
        return self._switches.get()

    async def default_blocks(self) -> tuple[Direction, ...]:
        """The directions in which the kernel blocks what matches no policy."""
        return await self._xfrm.default_blocks()

    async def load_guard(self, guard: DesiredGuard) -> None:
        """Load the guard's table."""
        async with self._exempting:
            await self._load_guard(guard, self._still(guard.exempt))

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        """Load the guard's table where it is gone or altered; whether it was.

        Between two passes: of the links, those stay exempt that were, since only a pass knows more.
        """
        if self._mark is None:
            await self.guard()
        if self._mark == guard.mark:
            return False
        async with self._exempting:
            exempt = self._exempt or ()
            await self._load_guard(guard, tuple(one for one in guard.exempt if one in exempt))
        return True

    async def _load_guard(self, guard: DesiredGuard, exempt: tuple[LinkId, ...]) -> None:
        self._mark = None
        with self._table.changing():
            await self._nft.load(guard.text, exempt_update(exempt, guard.overlay_ports))
        self._exempt, self._mark = exempt, guard.mark

    async def saved_guard(self) -> str:
        """The mark of what the next boot loads as the guard, "" where there is none."""
        text = saved_guard(self._saved_guard)
        return "" if text is None else mark(text)

    async def save_guard(self, guard: DesiredGuard | None) -> None:
        """Save the guard's table for the next boot; None for none."""
        if guard is None:
            forget_guard(self._saved_guard)
        else:
            save_guard(self._saved_guard, guard.text)

    async def exempt_links(self, links: tuple[LinkId, ...], ports: tuple[int, ...]) -> None:
        """Tell the guard which links it does not cover, and the UDP ports of tunnels among them."""
        async with self._exempting:
            self._put_exempt(self._still(links), ports)

    def _put_exempt(self, links: tuple[LinkId, ...], ports: tuple[int, ...] | None = None) -> None:
        with self._table.changing():
            self._nft.exempt(links, ports)
        self._exempt = links

    def _still(self, links: tuple[LinkId, ...]) -> tuple[LinkId, ...]:
        """Those that newer facts than a plan was made from allow, too."""
        allowed = self._allowed
        return links if allowed is None else tuple(link for link in links if link in allowed)

    async def _judge_at_once(self) -> None:
        """Have the guard cover every link that no longer leads to containers only.

        A whole pass looks at more, and later; it alone exempts further
        links.
        """
        self._news += 1
        allowed: frozenset[LinkId] = frozenset()
        if self._facts is not None:
            with contextlib.suppress(KernelError):
                allowed = self._inside(await self._links.links_again(self._facts))
        self._allowed = allowed
        async with self._exempting:
            left = self._still(self._exempt or ())
            if self._exempt and left != self._exempt:
                # Where the guard has gone, the next pass loads it.
                with contextlib.suppress(KernelError):
                    self._put_exempt(left)

    async def guard_flows(self, text: str) -> None:
        """Filter what flowtables forward with this table; "" removes it."""
        with self._table.changing():
            await self._nft.load_flow_rules(text)

    async def remove_guard(self) -> None:
        """Remove the guard's table."""
        with self._table.changing():
            await self._nft.delete()
        self._mark = ""

    async def set_mtu(self, link: int, mtu: int) -> None:
        """Set a link's MTU, and first that of its other end inside a container."""
        with self._network.changing():
            await lower_inner_end(link, mtu)
            await self._links.set_mtu(link, mtu)

    async def delete_policy(self, policy: Policy) -> None:
        """Delete a policy from the kernel."""
        await self._xfrm.delete_policy(policy)

    async def delete_state(self, state: SecurityAssociation) -> None:
        """Delete an SA from the kernel."""
        await self._xfrm.delete_state(state.source, state.destination, state.spi)

    async def watch_kernel(self, wake: Callable[[], None]) -> None:
        """Wake at every event of policies, SAs, links and the guard, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._xfrm.watch(wake), name="xfrm events")
            group.create_task(self._watch_links(wake), name="link events")
            group.create_task(self._watch_guard(wake), name="guard events")

    async def _watch_links(self, wake: Callable[[], None]) -> None:
        names = socket.if_nameindex()

        def renamed() -> None:
            nonlocal names
            # A listing of the table names links, and costs more than all else that a pass reads.
            if (now := socket.if_nameindex()) != names:
                names = now
                self._table.outdated()
            wake()

        with self._network.hearing(renamed) as told:
            await self._links.watch(told, self._judge_at_once)

    async def _watch_guard(self, wake: Callable[[], None]) -> None:
        """While no listener runs, each pass reads the guard; without nf_tables, too."""

        def disturbed() -> None:
            self._disturbed += 1
            self._mark = None
            wake()

        while True:
            with contextlib.suppress(KernelError), self._table.hearing(disturbed) as told:
                await self._nft.watch(told)
            await asyncio.sleep(REWATCH)
