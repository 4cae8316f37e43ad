"""What an earlier charon left in the kernel, and how it goes without a gap.

charon was killed, and its policies and SAs carry the traffic on. The charon that runs now does not
know them, so nobody would rekey or end them. New SAs are negotiated first, while the old ones still
carry the traffic; the new ones take over the policies, and then the old SAs go.
"""

from ipaddress import ip_network

from ipsec_agent.core.drift import orphan_peers, orphan_states, orphans
from ipsec_agent.core.model import (
    Action,
    Address,
    Child,
    Connection,
    Desired,
    TrafficSelector,
)
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.steps import DeletePolicy, DeleteState, Renew, Step

RENEWED_WITHIN = 20.0
"""Seconds after charon's start in which a peer may take the renewal; three attempts fit in."""

NAME = "ipsec-renew-"

Pair = tuple[Address, Address]


def orphan_steps(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    """Renewals for the pairs that still need their orphans, deletions for all others."""
    charon = observed.charon
    if charon is None:
        return ()
    young = observed.time - charon.process.started < RENEWED_WITHIN
    waiting = {
        pair: made
        for pair in (orphan_peers(observed) if young else ())
        if (made := renewal(desired, pair)) is not None
    }
    kept = {frozenset(pair) for pair in waiting}
    return (
        *(
            Renew(made)
            for pair, made in waiting.items()
            if made.name not in charon.renewing and not _under_way(charon, pair)
        ),
        *(
            DeletePolicy(policy)
            for policy in orphans(desired, observed)
            if frozenset(
                (
                    policy.selector.source.network_address,
                    policy.selector.destination.network_address,
                )
            )
            not in kept
        ),
        *(
            DeleteState(state)
            for state in orphan_states(observed)
            if frozenset((state.source, state.destination)) not in kept
        ),
    )


def _under_way(charon: Charon, pair: Pair) -> bool:
    return any((sa.local, sa.remote) == pair for sa in charon.sas)


def renewal(desired: Desired, pair: Pair) -> Connection | None:
    """A connection with this peer alone, as the narrowest that covers it; None where none does."""
    own, peer = pair
    if own not in desired.addresses or any(
        connection.action is Action.PASS and _covering(connection, own, peer)
        for connection in desired.connections
    ):
        return None
    traps = [
        (child.remote.network.prefixlen, child.reqid, connection.settings)
        for connection in desired.connections
        if connection.action is Action.ENCRYPT
        and (child := _covering(connection, own, peer)) is not None
    ]
    if not traps:
        return None
    _, reqid, settings = max(traps, key=lambda trap: trap[0])
    name = f"{NAME}{peer}"
    child = Child(
        name,
        Action.ENCRYPT,
        TrafficSelector(ip_network(own)),
        TrafficSelector(ip_network(peer)),
        reqid,
    )
    return Connection(name, Action.ENCRYPT, ip_network(peer), (child,), settings)


def _covering(connection: Connection, own: Address, peer: Address) -> Child | None:
    """The child whose selectors hold all traffic of the pair."""
    return next(
        (
            child
            for child in connection.children
            if not child.remote.protocol
            and own in child.local.network
            and peer in child.remote.network
        ),
        None,
    )
