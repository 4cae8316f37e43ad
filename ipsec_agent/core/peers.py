"""The peers that had an SA with this VM: which are remembered on disk, and which are poked.

A VM that comes back after a crash has lost its SAs, and its peers send on them until their DPD
notices. One packet to each has charon negotiate again at once.
"""

import math

from msgspec import Struct

from ipsec_agent.core import pacing
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address, Role
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.observed_peers import RememberedPeer

FORGOTTEN_AFTER = 7 * 86_400.0
NOTED_EACH = 86_400.0
"""Seconds: how long a peer without an SA is remembered, and how often the file is brought up to
date for one that has an SA all the time."""

MOST = 4096
POKED_WITHIN = 60.0
"""Seconds after charon's start in which peers are poked, beside those until each has had its turn;
later, traffic has had its chance."""


class PeersToDo(Struct, frozen=True):
    """What there is to do about the peers.

    Attributes:
        remember: the whole content of the file, None where it may stay as it is.
        poke: peers that each get one packet.
    """

    remember: tuple[RememberedPeer, ...] | None = None
    poke: tuple[Address, ...] = ()


def peers_to_do(drift: Drift) -> PeersToDo:
    """Compare the peers that have an SA with those on disk."""
    desired, observed = drift.desired, drift.observed
    charon = observed.charon
    if charon is None or not charon.responsive or desired.role is not Role.ENCRYPT:
        return PeersToDo()
    standing = _standing(charon)
    return PeersToDo(_remember(standing, observed), _poke(drift, standing))


def _standing(charon: Charon) -> tuple[Address, ...]:
    return tuple(
        dict.fromkeys(
            sa.remote for sa in charon.sas if any(c.state == "INSTALLED" for c in sa.children)
        )
    )


def _remember(
    standing: tuple[Address, ...], observed: Observed
) -> tuple[RememberedPeer, ...] | None:
    seen = {peer.address: peer.seen for peer in observed.remembered}
    if all(observed.time - seen.get(address, -math.inf) < NOTED_EACH for address in standing):
        return None
    seen |= dict.fromkeys(standing, observed.time)
    fresh = [
        RememberedPeer(address, when)
        for address, when in seen.items()
        if observed.time - when < FORGOTTEN_AFTER
    ]
    return tuple(sorted(fresh, key=lambda peer: -peer.seen)[:MOST])


def pokes_wait(drift: Drift) -> bool:
    """Whether a peer has yet to be poked: the next pass must not be late."""
    return bool(_unpoked(drift))


def _poke(drift: Drift, standing: tuple[Address, ...]) -> tuple[Address, ...]:
    """The next ones: only this VM knows that it has lost its SAs, so it waits for nobody, and only
    begins with those of which it is to begin.
    """
    now, there = drift.observed.time, set(standing)
    own = {address.version: address for address in reversed(drift.desired.addresses)}
    pairs = [(own[peer.version], peer) for peer in _unpoked(drift) if peer.version in own]
    busy = sum(
        peer.poked and 0 <= now - peer.poked_at < pacing.TURN and peer.address not in there
        for peer in (drift.observed.remembered if pairs else ())
    )
    most = pacing.room(len(pairs), busy)
    return tuple(peer for _, peer in pacing.in_order(pairs)[:most])


def _unpoked(drift: Drift) -> tuple[Address, ...]:
    desired, observed = drift.desired, drift.observed
    charon, remembered = observed.charon, observed.remembered
    if charon is None or not charon.responsive or desired.role is not Role.ENCRYPT:
        return ()
    within = POKED_WITHIN + pacing.span(len(remembered))
    # Without its trap the packet would leave in clear, or be lost.
    if observed.time - charon.process.started > within or drift.missing:
        return ()
    known = {sa.remote for sa in charon.sas}
    # The packet would travel on an SA that an earlier charon left, and ask for nothing.
    known |= {state.destination for state in observed.states if state.spi}
    return tuple(
        peer.address
        for peer in remembered
        if not peer.poked and peer.address not in known and peer.address not in desired.addresses
    )
