"""The machine as the loop sees it: charon and the kernel behind one set of verbs."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ipsec_agent.core.charon_log import Said, doubts_kernel
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.esp import DummySa, EspAbility, dummy_sas
from ipsec_agent.core.inside import Words, find_inside
from ipsec_agent.core.model import Address, LinkId
from ipsec_agent.core.observed import Inherited, NetworkFacts, RememberedPeer
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import KernelError, StartError
from ipsec_agent.esp_reading import EspReading
from ipsec_agent.host.charon_start import locate_program
from ipsec_agent.host.links import Links, open_links
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.peers import PeerMemory
from ipsec_agent.host.preflight import esp_ability
from ipsec_agent.host.saved_guard import NAME
from ipsec_agent.host.xfrm import Xfrm, open_xfrm
from ipsec_agent.machine_charon import CharonHost
from ipsec_agent.machine_kernel import KernelHost

NO_NFTABLES = (errno.ENOENT, errno.EOPNOTSUPP)
"""The program is missing, or the kernel has no nf_tables."""


class Machine(CharonHost, KernelHost):
    """charon, the kernel, and the remembered peers."""

    def __init__(self, config: Config, xfrm: Xfrm, links: Links) -> None:
        state_dir = Path(config.agent.state_dir)
        CharonHost.__init__(self, config)
        nft = Nft(Path(config.agent.run_dir) / "guard.json")
        KernelHost.__init__(
            self,
            xfrm,
            links,
            nft,
            state_dir / NAME,
            inside=self._inside_now,
            lasts=self._half_interval,
        )
        self._peers = PeerMemory(state_dir / "peers.json")
        self._esp = EspReading(esp_ability, self._half_interval)
        self._esp_of: tuple[Config, NetworkFacts, tuple[DummySa, ...]] | None = None

    def _half_interval(self) -> float:
        # So that each tick reads again.
        return self._config.agent.interval / 2

    def _inside_now(self, facts: NetworkFacts) -> frozenset[LinkId]:
        agent = self._config.agent
        words = Words(agent.uplinks, agent.inside)
        found = find_inside(facts, Promise.of(self._config), words)
        return frozenset(one.key for one in found if one.exempt)

    async def esp(self, network: NetworkFacts) -> EspAbility:
        """Whether the kernel can do the ESP that a VM with this network needs."""
        known = self._esp_of
        if known is None or known[0] is not self._config or known[1] is not network:
            own = (one.address for one in network.addresses)
            known = self._esp_of = self._config, network, dummy_sas(self._config, own)
        return await self._esp.get(known[2])

    async def guard(self) -> GuardTable | None:
        """The guard's table, None where there is none, or where it is not wanted and cannot be."""
        try:
            return await super().guard()
        except KernelError as error:
            if self._config.agent.guard is GuardMode.NONE and error.code in NO_NFTABLES:
                return None
            raise

    async def start_charon(self) -> None:
        """Start charon; what an earlier one left in the kernel is recorded first."""
        left = Inherited(
            frozenset(state.spi for state in await self.states()),
            frozenset(policy.index for policy in await self.policies()),
        )
        await super().start_charon()
        self.inherit(left)

    async def remembered(self) -> tuple[RememberedPeer, ...]:
        """The peers that had an SA with this VM."""
        return self._peers.peers(self._process)

    async def remember_peers(self, peers: tuple[RememberedPeer, ...]) -> None:
        """Save them on disk."""
        self._peers.write(peers)

    async def poke(self, peers: tuple[Address, ...]) -> None:
        """Send each peer one packet."""
        self._peers.poke(peers)

    async def watch(self, wake: Callable[[], None], heard: Callable[[Said], None]) -> None:
        """Wake the loop at every event of charon, the kernel and the links, until cancelled."""

        def noted(said: Said) -> None:
            if doubts_kernel(said):
                self._esp.outdated()
            heard(said)

        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch_kernel(wake), name="kernel events")
            group.create_task(self.watch_charon(wake, noted), name="charon")
            group.create_task(self._esp.watch(wake), name="ESP")


@contextlib.asynccontextmanager
async def open_machine(config: Config) -> AsyncIterator[Machine]:
    """The machine, once it is fit for IPsec.

    Raises:
        StartError: not root.
        KernelError: the kernel lacks XFRM, or nftables where the guard needs it.
        CharonStartError: charon is not installed.
        ForeignCharonError: somebody else's charon is on the socket.
    """
    if os.geteuid() != 0:
        raise StartError(
            "ipsec-agent run needs root to change IPsec policies", hint="run it with sudo"
        )
    locate_program(config.agent.charon.program)
    async with open_xfrm() as xfrm, open_links() as links:
        machine = Machine(config, xfrm, links)
        try:
            await machine.policies()
            if config.agent.guard is GuardMode.ENFORCE:
                await machine.guard()
            await machine.charon()
            yield machine
        finally:
            await machine.forget_charon()
