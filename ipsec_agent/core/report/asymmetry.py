"""What only one of two VMs says: an SA that the other lacks, ESP that did not arrive."""

from collections.abc import Iterator

from msgspec import Struct

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.findings import Finding, Kind, ago, by_name, code, hubs, named
from ipsec_agent.core.report.fleet import Fleet
from ipsec_agent.core.report.reading import Vm
from ipsec_agent.core.report.said import Peer
from ipsec_agent.core.words import several

NEAR = 120
"""Seconds between two looks that may be compared: SAs come and go."""

SETTLED = 5
"""Seconds within which both VMs know of an SA, and what is sent arrives; clocks differ as much."""


class Odd(Struct, frozen=True):
    """Two VMs that contradict each other.

    Attributes:
        vm: who says that it has an SA, or that it sends.
        peer: who does not.
        lost: packets that were sent and did not arrive, 0 where an SA is missing.
        idle: seconds since the last of them.
        says: the state that the peer has instead of an SA, "" for none.
    """

    vm: str
    peer: str
    lost: int = 0
    idle: float = 0.0
    says: str = ""


def contradictions(fleet: Fleet) -> Iterator[Odd]:
    """Each pair of VMs, both of which were looked at almost at once, that disagrees."""
    vms = {vm.name: vm for vm in fleet.vms if vm.looked and "peers" not in vm.missing}
    for name, vm in vms.items():
        for other, peer in fleet.partners[name].items():
            there = vms.get(other)
            if there and peer.up and abs(vm.said.time - there.said.time) <= NEAR:
                odd = _compared(vm, peer, there, fleet.partners[other].get(name))
                if odd:
                    yield odd


def _compared(vm: Vm, peer: Peer, there: Vm, back: Peer | None) -> Odd | None:
    if back is None or not back.up:
        began = vm.said.time - peer.age
        if there.said.time < began + SETTLED:
            return None
        return Odd(vm.name, there.name, says=code(back.state) if back else "")
    if not peer.packets_out or back.packets_in or peer.idle_out is None:
        return None
    sent = vm.said.time - peer.idle_out
    # What came before a rekeying is counted by an SA that is gone.
    came = back.idle_in is not None and there.said.time - back.idle_in > sent - peer.age - SETTLED
    if came or there.said.time < sent + SETTLED:
        return None
    return Odd(vm.name, there.name, peer.packets_out, peer.idle_out)


def asymmetries(odd: tuple[Odd, ...]) -> Iterator[Finding]:
    """The contradictions, by the VM that is in most of them."""
    missing = ((one.vm, one.peer, one) for one in odd if not one.lost)
    for hub, them in hubs(missing).items():
        found = [one for _, one in them]
        others = by_name(one.peer if one.vm == hub else one.vm for one in found)
        says = by_name(one.vm for one in found)
        states = by_name(one.says for one in found if one.says)
        what = f" (the other says {', '.join(states)})" if states else ""
        who = f"{named(says)} {'say' if len(says) > 1 else 'says'}"
        yield Finding(
            Kind.ASYMMETRY,
            Severity.WARNING,
            f"{hub} and {named(others)}: only {who} that there is an SA{what}",
            f"`ipsec-agent verify {others[0]}` on {hub}, and collect both files again",
            (hub, *others),
            tuple(says),
        )
    lost = ((one.vm, one.peer, one) for one in odd if one.lost)
    for hub, them in hubs(lost).items():
        yield _lost(hub, [one for _, one in them])


def _lost(hub: str, found: list[Odd]) -> Finding:
    senders, receivers = by_name(one.vm for one in found), by_name(one.peer for one in found)
    packets = several(sum(one.lost for one in found), "packet")
    last = ago(min(one.idle for one in found))
    return Finding(
        Kind.ASYMMETRY,
        Severity.WARNING,
        f"{named(senders)} sent ESP to {named(receivers)}, and none has arrived ({packets}, the"
        f" last {last})",
        f"`ipsec-agent verify {receivers[0]}` on {senders[0]}; a firewall between may drop protocol"
        " 50 or UDP 4500: `ipsec-agent doctor --firewall aws` (or another) has the rules",
        (hub, *by_name(one.peer if one.vm == hub else one.vm for one in found)),
        tuple(senders),
    )
