"""One pass of reading: what must be read after what, and what cannot be read."""

import asyncio
from ipaddress import ip_address, ip_network
from typing import cast

from msgspec.structs import replace

from ipsec_agent.charon_part import CharonPart
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.model import Desired, DesiredGuard, Direction, PolicySelector
from ipsec_agent.core.observed import Charon, ChildSa, IkeSa, Policy, SecurityAssociation
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.clock import ClockReader
from ipsec_agent.kernel_part import KernelPart
from ipsec_agent.machine import Machine
from ipsec_agent.observe import Reading
from tests.configs import config
from tests.fakes import PROCESS, network

OWN, PEER = ip_address("10.0.0.5"), ip_address("10.0.0.9")
CHILD = ChildSa(
    unique_id=3, name="x", state="INSTALLED", spi_in=78, spi_out=77, reqid=1,
    local=(ip_network(OWN),), remote=(ip_network(PEER),),
    bytes_in=0, bytes_out=0, packets_in=0, packets_out=0, age=4,
)  # fmt: skip
GUARD = DesiredGuard("text", mark("text"))


class Kernel:
    """A kernel that is read at once."""

    def __init__(self) -> None:
        self.policies: tuple[Policy, ...] = ()
        self.states: tuple[SecurityAssociation, ...] = ()
        self.table: GuardTable | None = None
        self.refuses = False
        self.answers = asyncio.Event()
        self.answers.set()

    def ipsec(self) -> tuple[Reading, ...]:
        """Its SAs and policies."""
        return (("states", self._states), ("policies", lambda: self.policies))

    def readings(self) -> tuple[tuple[Reading, ...], ...]:
        """All else."""
        return ((("network", lambda: network(str(OWN))),), (("guard", self.guard),))

    async def guard(self) -> GuardTable | None:
        """The table."""
        return self.table

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        """It comes back."""
        self.table = GuardTable("form", guard.mark)
        return True

    async def _states(self) -> tuple[SecurityAssociation, ...]:
        if self.refuses:
            raise KernelError("reading the kernel's SAs: refused")
        return self.states


class Negotiating:
    """A charon that answers once an SA is made, as list-sas does that waits for a busy IKE_SA."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def readings(self) -> tuple[Reading, ...]:
        """Its answer."""
        return (("charon", self._answer),)

    async def _answer(self) -> Charon:
        await asyncio.sleep(0.05)
        await self._kernel.answers.wait()
        ends = (ip_network(OWN), ip_network(PEER))
        self._kernel.policies = tuple(
            Policy(PolicySelector(direction, *pair), 367231, esp=True, blocks=False)
            for direction, pair in ((Direction.OUT, ends), (Direction.IN, ends[::-1]))
        )
        self._kernel.states = (
            SecurityAssociation(OWN, PEER, 77, 1),
            SecurityAssociation(PEER, OWN, 78, 1),
        )
        sa = IkeSa(1, "x", "ESTABLISHED", OWN, PEER, initiator=True, age=0, children=(CHILD,))
        return Charon(PROCESS, sas=(sa,))


def machine(kernel: Kernel) -> Machine:
    """A machine with this kernel."""
    charon = cast("CharonPart", Negotiating(kernel))
    return Machine(charon, cast("KernelPart", kernel), ClockReader(config()))


async def test_a_slow_negotiation_is_not_lost() -> None:
    """charon counts its age from the beginning of a negotiation that took 4 s."""
    seen = await machine(Kernel()).observe()

    assert seen.charon is not None
    assert Drift(Desired(), seen).lost_children == ()
    assert Drift(Desired(), replace(seen, policies=())).lost_children == (CHILD,)
    assert Drift(Desired(), replace(seen, states=())).lost_children == (CHILD,)


async def test_what_cannot_be_read() -> None:
    """It is named, and all else is read."""
    kernel = Kernel()
    kernel.refuses = True

    seen = await machine(kernel).observe()

    assert [name for name, _ in seen.unreadable] == ["states"]
    assert len(seen.policies) == 2
    assert seen.charon is not None


async def test_a_guard_that_comes_back_meanwhile_is_seen() -> None:
    """It was read before that; else the next plan would load it once more."""
    kernel = Kernel()
    kernel.answers.clear()
    vm = machine(kernel)
    reading = asyncio.create_task(vm.observe())
    await asyncio.sleep(0.01)

    assert await vm.restore_guard(GUARD)
    kernel.answers.set()

    seen = (await reading).guard
    assert seen is not None
    assert seen.mark == GUARD.mark
