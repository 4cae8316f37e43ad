"""One pass of reading: what must be read after what, and what cannot be read."""

import asyncio
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Desired, Direction, PolicySelector
from ipsec_agent.core.observed import Charon, ChildSa, IkeSa, Policy, SecurityAssociation
from ipsec_agent.errors import KernelError
from ipsec_agent.observe import observe
from tests.fakes import PROCESS, FakeMachine, network

OWN, PEER = ip_address("10.0.0.5"), ip_address("10.0.0.9")
CHILD = ChildSa(
    unique_id=3, name="x", state="INSTALLED", spi_in=78, spi_out=77, reqid=1,
    local=(ip_network(OWN),), remote=(ip_network(PEER),),
    bytes_in=0, bytes_out=0, packets_in=0, packets_out=0, age=4,
)  # fmt: skip


class Negotiating(FakeMachine):
    """Its charon answers once an SA is made, as list-sas does that waits for a busy IKE_SA."""

    async def charon(self) -> Charon | None:
        await asyncio.sleep(0.05)
        ends = (ip_network(OWN), ip_network(PEER))
        for direction, (source, destination) in (
            (Direction.OUT, ends),
            (Direction.IN, ends[::-1]),
        ):
            selector = PolicySelector(direction, source, destination)
            self.kernel[selector] = Policy(selector, 367231, esp=True, blocks=False)
        self.kernel_sas = (
            SecurityAssociation(OWN, PEER, 77, 1),
            SecurityAssociation(PEER, OWN, 78, 1),
        )
        sa = IkeSa(1, "x", "ESTABLISHED", OWN, PEER, initiator=True, age=0, children=(CHILD,))
        return Charon(PROCESS, sas=(sa,))


async def test_a_slow_negotiation_is_not_lost() -> None:
    """charon counts its age from the beginning of a negotiation that took 4 s."""
    seen = await observe(Negotiating(network("10.0.0.5")))

    assert seen.charon is not None
    assert Drift(Desired(), seen).lost_children == ()
    assert Drift(Desired(), replace(seen, policies=())).lost_children == (CHILD,)
    assert Drift(Desired(), replace(seen, states=())).lost_children == (CHILD,)


async def test_what_cannot_be_read() -> None:
    """It is named, and all else is read."""
    machine = Negotiating(network("10.0.0.5"))

    async def refused() -> tuple[SecurityAssociation, ...]:
        raise KernelError("reading the kernel's SAs: refused")

    machine.states = refused  # type: ignore[method-assign] # for this test
    seen = await observe(machine)

    assert [name for name, _ in seen.unreadable] == ["states"]
    assert len(seen.policies) == 2
    assert seen.charon is not None
