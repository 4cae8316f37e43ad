"""What an earlier charon left in the kernel, and how it goes without a gap.

charon was killed, and its policies and SAs carry the traffic on. The charon that runs now does not
know them, so nobody would rekey or end them. New SAs are negotiated first, while the old ones still
carry the traffic; the new ones take over the policies, and then the old SAs go.
"""

from ipaddress import ip_network

from ipsec_agent.core.coverage import shunts, traps
from ipsec_agent.core.drift import Drift, ends_of
from ipsec_agent.core.model import (
    Action,
    Address,
    Child,
    Connection,
    Desired,
    TrafficSelector,
)
from ipsec_agent.core.steps import DeletePolicy, DeleteState, Renew, Step

RENEWED_WITHIN = 20.0
"""Seconds after charon's start in which a peer may take the renewal; three attempts fit in."""

NAME = "ipsec-renew-"

Pair = tuple[Address, Address]


def orphan_steps(drift: Drift) -> tuple[Step, ...]:
    """Renewals for the pairs that still need their orphans, deletions for all others."""
    charon = drift.observed.charon
    if charon is None:
        return ()
    young = drift.observed.time - charon.process.started < RENEWED_WITHIN
    waiting = {
        pair: made
        for pair in (drift.orphan_peers if young else ())
        if (made := renewal(drift.desired, pair)) is not None
    }
    kept = {ends for own, peer in waiting for ends in ((own, peer), (peer, own))}
    under_way = {(sa.local, sa.remote) for sa in charon.sas} if waiting else set()
    return (
        *(
            Renew(made)
            for pair, made in waiting.items()
            if made.name not in charon.renewing and pair not in under_way
        ),
        *(DeletePolicy(policy) for policy in drift.orphans if ends_of(policy.selector) not in kept),
        *(
            DeleteState(state)
            for state in drift.orphan_states
            if (state.source, state.destination) not in kept
        ),
    )


def renewal(desired: Desired, pair: Pair) -> Connection | None:
    """A connection with this peer alone, as the narrowest that covers it; None where none does."""
    own, peer = pair
    if own not in desired.addresses or shunts(desired).narrowest(own, peer) is not None:
        return None
    trap = traps(desired).narrowest(own, peer)
    if trap is None:
        return None
    name = f"{NAME}{peer}"
    child = Child(
        name,
        Action.ENCRYPT,
        TrafficSelector(ip_network(own)),
        TrafficSelector(ip_network(peer)),
        trap.child.reqid,
    )
    return Connection(name, Action.ENCRYPT, ip_network(peer), (child,), trap.connection.settings)
