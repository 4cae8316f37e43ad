"""The kernel's part of the machine: policies, SAs, the guard, links and counters."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from ipsec_agent.cached import Cached
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.esp import DummySa, EspAbility, dummy_sas
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.inside import Words, find_inside
from ipsec_agent.core.model import Address, DesiredGuard, LinkId
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.observed_peers import Neighbour
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.steps import (
    DeletePolicy,
    DeleteState,
    ExemptLinks,
    GuardFlows,
    KernelStep,
    LoadGuard,
    RemoveGuard,
    SaveGuard,
    SetLevel,
    SetMtu,
)
from ipsec_agent.errors import KernelError
from ipsec_agent.esp_reading import EspReading
from ipsec_agent.exemptions import Exemptions
from ipsec_agent.host.links import Links
from ipsec_agent.host.neighbours import Neighbours
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.preflight import esp_ability
from ipsec_agent.host.saved_guard import NAME, forget_guard, save_guard, saved_guard
from ipsec_agent.host.switches import SwitchesReader
from ipsec_agent.host.veth import lower_inner_end
from ipsec_agent.host.xfrm import Xfrm
from ipsec_agent.host.xfrm_stat import stats
from ipsec_agent.observe import Reading

TABLE_LASTS = 5.0
"""Seconds for which a reading of the guard's table is kept at the most."""

REWATCH = 10.0
"""Seconds until it is tried again to hear of the guard's changes."""

NO_NFTABLES = (errno.ENOENT, errno.EOPNOTSUPP)
"""The program is missing, or the kernel has no nf_tables."""


class KernelPart:
    """What the kernel has, and the steps that change it.

    For half an interval, so that each tick reads again, links and guard need no second look while
    no event tells of them. Packets change the guard's counters without one.

    Attributes:
        esp: whether the kernel can do ESP.
    """

    def __init__(self, config: Config, xfrm: Xfrm, links: Links, nft: Nft) -> None:
        self._config = config
        self._xfrm = xfrm
        self._links = links
        self._nft = nft
        self._saved_guard = Path(config.agent.state_dir) / NAME
        self._switches = SwitchesReader(self._lasts)
        self._neighbours = Neighbours()
        self._facts: NetworkFacts | None = None
        self._exemptions = Exemptions(self._put_exempt)
        self._mark: str | None = None
        self._disturbed = 0
        self._network = Cached(links.facts, self._lasts)
        self._table = Cached(nft.read, lambda: min(self._lasts(), TABLE_LASTS))
        self._esp_of: tuple[Config, NetworkFacts, tuple[DummySa, ...]] | None = None
        self.esp = EspReading(esp_ability, self._lasts)

    def _lasts(self) -> float:
        return self._config.agent.interval / 2

    def adopt(self, config: Config) -> None:
        """Take another config."""
        self._config = config

    def suspect(self, peers: tuple[Address, ...]) -> None:
        """Have each look tell whether these peers are still there."""
        self._neighbours.want(peers)

    def outdate(self) -> None:
        """Keep neither the guard's counters nor the switches for the next look."""
        self._table.outdated()
        self._switches.outdate()

    def readings(self) -> tuple[tuple[Reading, ...], ...]:
        """What is read at any time; within each chain, one after the other."""
        return (
            (
                ("network", self.network),
                ("esp", self._esp_ability),
                ("neighbours", self._known_neighbours),
            ),
            (("guard", self.guard),),
            (
                ("saved_guard", self._saved_mark),
                ("counters", _counters),
                ("switches", self._switches.get),
                ("default_blocks", self._xfrm.default_blocks),
            ),
        )

    def ipsec(self) -> tuple[Reading, ...]:
        """What is read of IPsec once charon has answered."""
        return (("states", self._xfrm.states), ("policies", self._xfrm.policies))

    async def network(self) -> NetworkFacts:
        """The VM's links and addresses."""
        changes = self._exemptions.changes
        self._facts = await self._network.get()
        self._exemptions.confirmed(changes)
        return self._facts

    async def _esp_ability(self) -> EspAbility:
        """Which ESP is needed depends on the addresses; while they are unknown no VM is healthy."""
        facts, known = self._facts, self._esp_of
        if facts is None:
            return EspAbility()
        if known is None or known[0] is not self._config or known[1] is not facts:
            own = (one.address for one in facts.addresses)
            known = self._esp_of = self._config, facts, dummy_sas(self._config, own)
        return await self.esp.get(known[2])

    async def guard(self) -> GuardTable | None:
        """The guard's table, None where there is none, or where it is not wanted and cannot be."""
        disturbed = self._disturbed
        try:
            table = await self._table.get()
        except KernelError as error:
            if self._config.agent.guard is GuardMode.NONE and error.code in NO_NFTABLES:
                return None
            raise
        if disturbed == self._disturbed:
            self._mark = table.mark if table else ""
        if table is not None:
            self._exemptions.learned(table.exempt)
        return table and table.aged(int(self._table.age))

    async def _known_neighbours(self) -> tuple[Neighbour, ...]:
        if not self._neighbours.wanted:
            return ()
        return await asyncio.to_thread(self._neighbours.get, self._facts)

    def _saved_mark(self) -> str:
        text = saved_guard(self._saved_guard)
        return "" if text is None else mark(text)

    async def perform(self, step: KernelStep) -> None:  # noqa: C901 - one case a step
        """Perform a step.

        Raises:
            AgentError: it could not be performed.
        """
        match step:
            case LoadGuard(guard):
                await self._load_guard(guard, further=True)
            case ExemptLinks(links, ports, _):
                await self._exemptions.set(links, ports)
            case SaveGuard(guard):
                if guard is None:
                    forget_guard(self._saved_guard)
                else:
                    save_guard(self._saved_guard, guard.text)
            case GuardFlows(text):
                with self._table.changing():
                    await self._nft.load_flow_rules(text)
            case RemoveGuard():
                with self._table.changing():
                    await self._nft.delete()
                self._mark = ""
            case SetMtu(link, mtu):
                with self._network.changing():
                    # First that of its other end inside a container.
                    await lower_inner_end(link, mtu)
                    await self._links.set_mtu(link, mtu)
            case SetLevel(policy, optional):
                await self._xfrm.set_level(policy, optional=optional)
            case DeletePolicy(policy):
                await self._xfrm.delete_policy(policy)
            case DeleteState(state):
                await self._xfrm.delete_state(state.source, state.destination, state.spi)
            case _:
                assert_never(step)

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        """Load the guard's table where it is gone or altered; whether it was.

        Between two passes: of the links, those stay exempt that were, since only a pass knows more.
        """
        if self._mark is None:
            await self.guard()
        if self._mark == guard.mark:
            return False
        await self._load_guard(guard, further=False)
        return True

    async def _load_guard(self, guard: DesiredGuard, *, further: bool) -> None:
        async with self._exemptions.loading(guard.exempt, further=further) as exempt:
            self._mark = None
            with self._table.changing():
                await self._nft.load(guard.text, exempt, guard.overlay_ports)
            self._mark = guard.mark

    def _put_exempt(self, links: tuple[LinkId, ...], ports: tuple[int, ...] | None) -> None:
        with self._table.changing():
            self._nft.exempt(links, ports)

    async def _inside_now(self) -> frozenset[LinkId]:
        """The links that lead to containers only, by nothing but the links themselves."""
        if self._facts is None:
            return frozenset()
        agent = self._config.agent
        facts = await self._links.links_again(self._facts)
        found = find_inside(facts, Promise.of(self._config), Words(agent.uplinks, agent.inside))
        return frozenset(one.key for one in found if one.exempt)

    async def _cover_at_once(self) -> None:
        """Have the guard cover every link that no longer leads to containers only.

        A whole pass looks at more, and later.
        """
        await self._exemptions.restrict(self._inside_now())

    async def watch(self, wake: Callable[[], None]) -> None:
        """Wake at every event of policies, SAs, links and the guard, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._xfrm.watch(wake), name="xfrm events")
            group.create_task(self._watch_links(wake), name="link events")
            group.create_task(self._watch_guard(wake), name="guard events")
            group.create_task(self.esp.watch(wake), name="ESP")

    async def _watch_links(self, wake: Callable[[], None]) -> None:
        names = socket.if_nameindex()

        def renamed() -> None:
            nonlocal names
            # A reading of the table names links; with many counted peers it takes its time.
            if (now := socket.if_nameindex()) != names:
                names = now
                self._table.outdated()
            wake()

        with self._network.hearing(renamed) as told:
            await self._links.watch(told, self._cover_at_once)

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


def _counters() -> tuple[tuple[str, int], ...]:
    """The kernel's counters of packets that IPsec lost; empty where it keeps none."""
    try:
        return tuple(stats().items())
    except KernelError:
        return ()
