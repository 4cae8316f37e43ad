"""Peers that lie: SAs that are not between the two hosts that made them, and how they end.

All VMs share one certificate, so one that is broken into may negotiate whatever charon accepts: as
initiator, as responder and when an SA is rekeyed, a child without USE_TRANSPORT_MODE is one in
tunnel mode for all that our trap's selectors cover (child_create.c of 5.9 and 6.0). An honest VM
never has anything but transport mode, for all that the two hosts send each other. The guard lets
nothing pass that goes through another SA; what is left is that flows fall into it, and so it ends.

A peer that pretends to be behind a NAT may also move an SA of its own to another's address: charon
follows each message that has the right key (ike_sa.c: update_hosts), and one that is sent with a
false source is enough, whereupon what the liar sends from there is heard. Honest VMs do not move:
MOBIKE is off, and so are charon's own reactions to changed addresses.

No configuration prevents it. A trap for any peer needs the subnet as its remote selector, and with
that child charon also answers within the IKE_SAs that the trap began, and narrows what the peer
answers there; `dynamic` for the others would only take one of three ways away.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.derived import derived
from ipsec_agent.core.drift import Drift, takes_trapped
from ipsec_agent.core.model import Address, Network
from ipsec_agent.core.observed import Charon, ChildSa, IkeSa, Observed
from ipsec_agent.core.steps import TerminateSa

IN_PLACE = frozenset({"INSTALLED", "UPDATING", "REKEYING", "REKEYED", "DELETING"})
"""States in which a CHILD_SA has its selectors, and SAs in the kernel."""


class Lie(Struct, frozen=True):
    """What a peer has made this VM's kernel have.

    Attributes:
        peer: who made it; unspecified where it is not known.
        because: what it is, as a part of a sentence.
        ike_sa: charon's number of the IKE_SA, None where charon does not know of it.
        selectors: local and remote networks of its CHILD_SAs.
    """

    peer: Address
    because: str
    ike_sa: int | None = None
    selectors: frozenset[frozenset[Network]] = frozenset()


@derived
def lies(drift: Drift) -> tuple[Lie, ...]:
    """Everything between encrypted addresses that is not an SA between two hosts."""
    return (*_negotiated(drift.observed), *_unknown(drift))


def terminations(found: Iterable[Lie]) -> tuple[TerminateSa, ...]:
    """The steps that end them.

    At once, and with the IKE_SA: charon keeps what it asks the peer to delete until that answers,
    and this one need not.
    """
    return tuple(
        TerminateSa(lie.ike_sa, f"{lie.peer} made {lie.because}", at_once=True)
        for lie in found
        if lie.ike_sa is not None
    )


def without(charon: Charon, found: Iterable[Lie]) -> Charon:
    """What is left of charon's SAs once these are ended."""
    ended = {lie.ike_sa for lie in found}
    if not ended:
        return charon
    return replace(charon, sas=tuple(sa for sa in charon.sas if sa.unique_id not in ended))


def _negotiated(observed: Observed) -> tuple[Lie, ...]:
    charon = observed.charon
    if charon is None:
        return ()
    # By what identifies an SA: each end chooses the SPI of what comes in, so that a liar could name
    # one of somebody else's.
    broad = {(state.destination, state.spi) for state in observed.states if not state.between_hosts}
    found = []
    for sa in charon.sas:
        if sa.met is not None and sa.met != sa.remote:
            because = f"an SA that it then moved to {sa.remote}"
            found.append(Lie(sa.met, because, sa.unique_id, _selectors(sa.children)))
            continue
        false = [
            (child, because)
            for child in sa.children
            if child.state in IN_PLACE and (because := _false(sa, child, broad))
        ]
        if not false:
            continue
        more = f" (and {len(false) - 1} more)" if len(false) > 1 else ""
        selectors = _selectors(child for child, _ in false)
        found.append(Lie(sa.remote, false[0][1] + more, sa.unique_id, selectors))
    return tuple(found)


def _selectors(children: Iterable[ChildSa]) -> frozenset[frozenset[Network]]:
    return frozenset(
        frozenset((local, remote))
        for child in children
        for local in child.local
        for remote in child.remote
    )


def met(sas: Iterable[IkeSa], before: Iterable[IkeSa]) -> tuple[IkeSa, ...]:
    """The IKE_SAs, each with where its peer was when it was first seen.

    Args:
        before: those of charon's last answer, from this function.
    """
    known = {sa.unique_id: sa.met for sa in before}

    def first(sa: IkeSa) -> Address | None:
        there = None if sa.remote.is_unspecified else sa.remote
        return known.get(sa.unique_id) or there

    return tuple(replace(sa, met=first(sa)) for sa in sas)


def _false(sa: IkeSa, child: ChildSa, broad: set[tuple[Address, int]]) -> str:
    """What is wrong with a CHILD_SA; "" for an honest one."""
    if not child.transport:
        return f"an SA that is not in transport mode, for {_shown(child)}"
    if not (_is_only(child.local, sa.local) and _is_only(child.remote, sa.remote)):
        return f"an SA for {_shown(child)}"
    if child.restricted:
        return "an SA for one protocol or port only"
    if broad and broad & {(sa.local, child.spi_in), (sa.remote, child.spi_out)}:
        return f"an SA for {_shown(child)} that the kernel has with a wider selector"
    return ""


def _is_only(networks: tuple[Network, ...], host: Address) -> bool:
    """Whether the selectors of one side are this host and nothing else."""
    for network in networks:
        if network.network_address != host or network.prefixlen < host.max_prefixlen:
            return False
    return bool(networks)


def _shown(child: ChildSa) -> str:
    return ", ".join(map(str, child.remote))


def _unknown(drift: Drift) -> tuple[Lie, ...]:
    """Tunnels in the kernel that charon does not know, for what one of our traps selects.

    Nobody but root of this VM can have made them, or an earlier charon, whose are removed with all
    else that it left (orphans.py).
    """
    found = {
        policy.tunnel: f"a policy in tunnel mode for {policy.selector.source} to"
        f" {policy.selector.destination}, which charon does not know"
        for policy in drift.foreign
        # A route-based VPN of the operator's takes only what is sent through its interface.
        if policy.tunnel is not None
        and not policy.narrowed
        and takes_trapped(policy, drift.desired)
    }
    return tuple(Lie(peer, because) for peer, because in found.items())
