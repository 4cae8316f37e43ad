"""Which of our connections' children covers what two addresses, or networks, send each other."""

from msgspec import Struct

from ipsec_agent.core.derived import derived
from ipsec_agent.core.model import Action, Address, Child, Connection, Desired, Network
from ipsec_agent.core.ranges import Subnets


class Covering(Struct, frozen=True):
    """A child that covers all traffic of a pair, and its connection."""

    connection: Connection
    child: Child


class Coverage:
    """The children of one action that take every protocol.

    Their local networks are few, as a VM has few addresses; the remote ones may be thousands.
    """

    def __init__(self, desired: Desired, action: Action) -> None:
        """Sort the children by their local networks."""
        by_local: dict[Network, dict[Network, Covering]] = {}
        for connection in desired.connections:
            for child in connection.children if connection.action is action else ():
                if not child.remote.protocol:
                    remotes = by_local.setdefault(child.local.network, {})
                    remotes.setdefault(child.remote.network, Covering(connection, child))
        self._by_local = [
            (Subnets((local,)), Subnets(remotes), remotes) for local, remotes in by_local.items()
        ]

    def narrowest(self, own: Address, peer: Address) -> Covering | None:
        """The child with the narrowest remote network that covers these, None without one."""
        found = [
            remotes[far]
            for near, fars, remotes in self._by_local
            if near.narrowest(own) is not None and (far := fars.narrowest(peer)) is not None
        ]
        return max(found, key=lambda one: one.child.remote.network.prefixlen, default=None)

    def covers(self, local: tuple[Network, ...], remote: tuple[Network, ...]) -> bool:
        """Whether one child covers all of these; no selector at all is covered by each."""
        for near, fars, _ in self._by_local:
            if near.one_holds(local) and fars.one_holds(remote):
                return True
        return False

    def leads_to(self, peer: Address) -> bool:
        """Whether a child covers what some own address sends to a peer."""
        return any(fars.narrowest(peer) is not None for _, fars, _ in self._by_local)


@derived
def traps(desired: Desired) -> Coverage:
    """What charon's traps cover."""
    return Coverage(desired, Action.ENCRYPT)


@derived
def shunts(desired: Desired) -> Coverage:
    """What is let through in clear."""
    return Coverage(desired, Action.PASS)


def families(desired: Desired) -> frozenset[int]:
    """The families, 4 and 6, in which this VM encrypts."""
    return frozenset(
        connection.remote.version
        for connection in desired.connections
        if connection.action is Action.ENCRYPT
    )
