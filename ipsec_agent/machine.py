"""The machine: all of the outside, observed and changed; charon and the kernel are its parts."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.charon_part import CharonPart
from ipsec_agent.core.charon_log import Said, doubts_kernel
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.model import Address, DesiredGuard
from ipsec_agent.core.observed import NetworkFacts, Observed
from ipsec_agent.core.steps import KernelStep, SaveTime, Step
from ipsec_agent.errors import AgentError, StartError
from ipsec_agent.host.charon_start import locate_program
from ipsec_agent.host.clock import ClockReader
from ipsec_agent.host.drain_file import DrainFile
from ipsec_agent.host.links import open_links
from ipsec_agent.host.nft import FORMS, Nft, locate_nft
from ipsec_agent.host.peers import probe
from ipsec_agent.host.rehearsals import Rehearsals
from ipsec_agent.host.xfrm import open_xfrm
from ipsec_agent.kernel_part import KernelPart
from ipsec_agent.observe import observe


class Machine:
    """charon and the kernel."""

    def __init__(self, charon: CharonPart, kernel: KernelPart, clock: ClockReader) -> None:
        self._charon = charon
        self._kernel = kernel
        self._clock = clock
        self._restored = 0

    def adopt(self, config: Config) -> None:
        """Take another config; what runs gets to know of it by the steps of a plan."""
        self._charon.adopt(config)
        self._kernel.adopt(config)
        self._clock.adopt(config)

    def suspect(self, peers: tuple[Address, ...]) -> None:
        """Have each look tell whether these peers are still there."""
        self._kernel.suspect(peers)

    def probe(self, peers: tuple[Address, ...]) -> None:
        """Send each peer what every VM answers."""
        probe(peers)

    def outdate(self) -> None:
        """Keep nothing for the next look of what changes without an event."""
        self._charon.outdate()
        self._kernel.outdate()

    async def observe(self) -> Observed:
        """Read everything once.

        The kernel's part of IPsec after charon's answer: what charon calls installed and the kernel
        then lacks is lost, not still to come. An answer may take seconds, as list-sas waits for
        each IKE_SA that is being negotiated.
        """
        restored = self._restored
        observed = await observe(
            (
                (*self._charon.readings(), *self._kernel.ipsec()),
                *self._kernel.readings(),
                (("clock", self._clock.read),),
            )
        )
        if restored != self._restored:
            # What was read of the guard may be older than what came back.
            with contextlib.suppress(AgentError):
                return replace(observed, guard=await self._kernel.guard())
        return observed

    async def network(self) -> NetworkFacts:
        """The VM's links and addresses.

        Raises:
            KernelError: they cannot be read.
        """
        return await self._kernel.network()

    async def perform(self, step: Step) -> None:
        """Perform a step of a plan.

        Raises:
            AgentError: it could not be performed.
        """
        if isinstance(step, SaveTime):
            self._clock.save(step.time)
        elif isinstance(step, KernelStep):
            await self._kernel.perform(step)
        else:
            await self._charon.perform(step)

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        """Load the guard's table where it is gone or altered; whether it was.

        Raises:
            KernelError: it does not load.
        """
        restored = await self._kernel.restore_guard(guard)
        self._restored += restored
        return restored

    async def watch(self, wake: Callable[[], None], heard: Callable[[Said], None]) -> None:
        """Wake the loop at every event of charon, the kernel and the links, until cancelled."""

        def noted(said: Said) -> None:
            if doubts_kernel(said):
                self._kernel.esp.outdated()
            heard(said)

        async with asyncio.TaskGroup() as group:
            group.create_task(self._kernel.watch(wake), name="kernel events")
            group.create_task(self._charon.watch(wake, noted), name="charon")

    def ask_renewals(self, names: Iterable[str]) -> None:
        """Have the next pass negotiate with these peers, by the names of their connections."""
        self._charon.renewals.ask(names)

    @property
    def rehearsals(self) -> Rehearsals:
        """Peers are asked by these for what they say to another certificate."""
        return self._charon.rehearsals

    async def reopen_log(self) -> None:
        """Have charon open its log file again.

        Raises:
            CharonError: it does not.
        """
        await self._charon.reopen_log()

    async def stop_charon(self) -> None:
        """End charon cleanly: it sends DELETE to its peers and takes its policies away."""
        await self._charon.stop()


@contextlib.asynccontextmanager
async def open_machine(config: Config) -> AsyncIterator[Machine]:
    """The machine, once it is fit for IPsec; a drain that is under way ends, and charon stays.

    Raises:
        StartError: not root.
        KernelError: the kernel lacks XFRM, or nftables where the guard needs it; nft likewise.
        CharonStartError: charon is not installed.
        ForeignCharonError: somebody else's charon is on the socket.
    """
    if os.geteuid() != 0:
        raise StartError(
            "ipsec-agent run needs root to change IPsec policies", hint="run it with sudo"
        )
    locate_program(config.agent.charon.program)
    await DrainFile(Path(config.agent.run_dir)).end()
    async with open_xfrm() as xfrm, open_links() as links:

        async def left() -> Inherited:
            states, policies = await xfrm.states(), await xfrm.policies()
            return Inherited(
                frozenset(state.spi for state in states),
                frozenset(policy.index for policy in policies),
            )

        nft = Nft(Path(config.agent.run_dir) / FORMS)
        charon, kernel = CharonPart(config, left), KernelPart(config, xfrm, links, nft)
        try:
            await xfrm.policies()
            if config.agent.guard is GuardMode.ENFORCE:
                # To read the table needs no nft, so the first load would tell, again and again.
                locate_nft()
                await kernel.guard()
            await charon.answer()
            yield Machine(charon, kernel, ClockReader(config))
        finally:
            await charon.forget()
