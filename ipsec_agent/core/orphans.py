"""What an earlier charon left in the kernel, and how it goes without a gap.

charon was killed, and its policies and SAs carry the traffic on. The charon that runs now does not
know them, so nobody would rekey or end them. New SAs are negotiated first, while the old ones still
carry the traffic; the new ones take over the policies, and then the old SAs go.
"""

from ipaddress import ip_network

from msgspec.structs import replace

from ipsec_agent.core import handover, pacing
from ipsec_agent.core.coverage import shunts, traps
from ipsec_agent.core.credential_set import RENEWAL, set_of
from ipsec_agent.core.drift import Drift, ends_of
from ipsec_agent.core.model import (
    Action,
    Child,
    Connection,
    Desired,
    Pair,
    TrafficSelector,
)
from ipsec_agent.core.steps import DeletePolicy, DeleteState, Renew, Step

RENEWED_WITHIN = 20.0
"""Seconds after charon's start in which a peer may take the renewal, beside those until each peer
has had its turn; an attempt and its retransmissions fit in."""


def renewals_wait(drift: Drift) -> bool:
    """Whether a renewal is under way or has yet to come: the next pass must not be late."""
    charon, pairs = drift.observed.charon, drift.orphan_peers
    return charon is not None and bool(pairs) and _young(drift, len(pairs))


def _young(drift: Drift, count: int) -> bool:
    charon = drift.observed.charon
    since = drift.observed.time - charon.process.started if charon is not None else 0.0
    return since < RENEWED_WITHIN + pacing.span(count)


def orphan_steps(drift: Drift) -> tuple[Step, ...]:
    """Renewals for the pairs that still need their orphans, deletions for all others."""
    charon = drift.observed.charon
    if charon is None:
        return ()
    pairs = drift.orphan_peers
    waiting = {
        pair: made
        for pair in (pairs if pairs and _young(drift, len(pairs)) else ())
        if (made := renewal(drift.desired, pair)) is not None
    }
    kept = {ends for own, peer in waiting for ends in ((own, peer), (peer, own))}
    under_way = {(sa.local, sa.remote) for sa in charon.sas} if waiting else set()
    begun = {pair for pair, made in waiting.items() if made.name in charon.renewing}
    next_ones = pacing.due(
        (pair for pair in waiting if pair not in begun and pair not in under_way),
        busy=len(begun),
        elapsed=drift.observed.time - charon.process.started,
    )
    return (
        *(Renew(waiting[pair]) for pair in next_ones),
        *(DeletePolicy(policy) for policy in drift.orphans if ends_of(policy.selector) not in kept),
        *(
            DeleteState(state)
            for state in drift.orphan_states
            if (state.source, state.destination) not in kept
        ),
    )


def renewal(desired: Desired, pair: Pair, level: int = 0) -> Connection | None:
    """A connection with this peer alone, as the narrowest that covers it; None where none does.

    Its last child is what to negotiate. The ordinary one is always there, for what the peer may ask
    for in the same IKE_SA later.

    Args:
        level: at which the peer is to have the SA (handover.py).
    """
    own, peer = pair
    if own not in desired.addresses or shunts(desired).narrowest(own, peer) is not None:
        return None
    trap = traps(desired).narrowest(own, peer)
    if trap is None:
        return None
    settings = trap.connection.settings
    mark = set_of(settings).mark if settings is not None else ""
    name = f"{RENEWAL}{mark}-{peer}"
    child = Child(
        name,
        Action.ENCRYPT,
        TrafficSelector(ip_network(own)),
        TrafficSelector(ip_network(peer)),
        trap.child.reqid,
    )
    asking = replace(child, name=handover.asking(name, level), level=level)
    children = (child, asking) if level else (child,)
    return Connection(name, Action.ENCRYPT, ip_network(peer), children, settings)
