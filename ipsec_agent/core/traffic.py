"""What travels between this VM and each peer as ESP, from the kernel's SAs of many passes.

An SA's counters begin at 0 with each rekeying, so what is remembered are the peers, and of each SA
only the newest reading.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.terse import Terse

ONE_WAY_AFTER = 15.0
"""Seconds for which packets must go one way, and none the other, until that is suspected."""

FORGOTTEN_AFTER = 60.0
"""Seconds without any SA until a peer is forgotten."""


class Way(Struct, frozen=True):
    """One direction of a peer's traffic. Times are seconds since the epoch, 0 for never.

    Attributes:
        packets: seen by all passes so far, over all SAs.
        last: when the newest packet passed, as exactly as is known.
        alone: when packets began to pass this way with none the other way; 0 where none do.
    """

    packets: int = 0
    bytes: int = 0
    last: float = 0.0
    alone: float = 0.0


class Peer(Struct, frozen=True):
    """What is known of a peer's traffic.

    Attributes:
        there: when it last had an SA.
    """

    address: Address
    there: float
    inward: Way = Way()
    outward: Way = Way()

    @property
    def one_way(self) -> str:
        """`out` where packets only go out, `in` where they only come in, else ""."""
        for name, way in (("out", self.outward), ("in", self.inward)):
            if way.alone and way.last - way.alone >= ONE_WAY_AFTER:
                return name
        return ""


Key = tuple[Address, int]
"""What identifies an SA: destination and SPI."""

Count = tuple[int, int]
"""Packets and bytes."""


class Memory(Terse, frozen=True):
    """What is remembered from pass to pass.

    Attributes:
        counted: packets and bytes of each SA when it was last seen.
    """

    unshown = ("counted",)

    peers: tuple[Peer, ...] = ()
    counted: tuple[tuple[Key, Count], ...] = ()


def followed(
    states: Iterable[SecurityAssociation], own: tuple[Address, ...], memory: Memory, now: float
) -> Memory:
    """The next memory; its peers are those that have an SA now, or had one a moment ago.

    Args:
        states: the kernel's SAs.
        own: this VM's addresses.
        memory: from the pass before; Memory() at first.
        now: seconds since the epoch.
    """
    counted = dict(memory.counted)
    peers = {peer.address: peer for peer in memory.peers if now - peer.there <= FORGOTTEN_AFTER}
    newest: dict[Key, Count] = {}
    for address, (inward, outward) in by_peer(states, own).items():
        before = peers.get(address, Peer(address, now))
        peers[address] = Peer(
            address,
            now,
            *_alone(
                _moved(before.inward, inward, counted, now),
                _moved(before.outward, outward, counted, now),
                before,
                now,
            ),
        )
        newest |= {_key(sa): (sa.packets, sa.bytes) for sa in (*inward, *outward)}
    return Memory(tuple(peers.values()), tuple(newest.items()))


def by_peer(
    states: Iterable[SecurityAssociation], own: tuple[Address, ...]
) -> dict[Address, tuple[list[SecurityAssociation], list[SecurityAssociation]]]:
    """The SAs that come from each peer, and those that go there, without larval ones."""
    found: dict[Address, tuple[list[SecurityAssociation], list[SecurityAssociation]]] = {}
    for sa in states:
        outward = sa.source in own
        if sa.spi and outward != (sa.destination in own):
            peer = sa.destination if outward else sa.source
            found.setdefault(peer, ([], []))[outward].append(sa)
    return found


def _key(sa: SecurityAssociation) -> Key:
    return sa.destination, sa.spi


def _moved(way: Way, sas: list[SecurityAssociation], counted: dict[Key, Count], now: float) -> Way:
    """A direction after its SAs have counted on."""
    packets = bytes_ = used = 0
    for sa in sas:
        before = counted.get(_key(sa), (0, 0))
        # An SPI comes again only as that of a new SA, which began at 0.
        before = before if before[0] <= sa.packets else (0, 0)
        packets += sa.packets - before[0]
        bytes_ += sa.bytes - before[1]
        # The first use is never later than the last one, which some kernels do not tell.
        used = max(used, sa.last_used or sa.first_used)
    last = max(way.last, min(float(used), now), now if packets and way.packets else 0.0)
    # Most peers are idle in most passes.
    if not packets and not bytes_ and last == way.last:
        return way
    return replace(way, packets=way.packets + packets, bytes=way.bytes + bytes_, last=last)


def _alone(inward: Way, outward: Way, before: Peer, now: float) -> tuple[Way, Way]:
    """The directions, with the time since which only one of them moves."""
    came = inward.packets > before.inward.packets
    went = outward.packets > before.outward.packets
    if not came and not went:
        return inward, outward
    return (
        replace(inward, alone=0.0 if went else (inward.alone or now) if came else inward.alone),
        replace(outward, alone=0.0 if came else (outward.alone or now) if went else outward.alone),
    )


def one_way(peers: Iterable[Peer]) -> tuple[Problem, ...]:
    """At most two problems, one for each direction; only a suspicion, since some jobs only send."""
    names: dict[str, list[str]] = {"out": [], "in": [], "": []}
    for peer in peers:
        names[peer.one_way].append(str(peer.address))
    return tuple(
        Problem(
            "peer-one-way",
            Severity.INFO,
            f"{says.format(listed(tuple(names[way])))} for at least {ONE_WAY_AFTER:.0f} s",
            hint,
            way,
        )
        for way, (says, hint) in _SAYS.items()
        if names[way]
    )


_SAYS = {
    "out": (
        "packets go out to {} but none have come back",
        (
            "normal for jobs that only send, such as syslog; otherwise check that protocol 50 (or"
            " UDP 4500, where encapsulated) reaches this VM, and that the peer's kernel has the SA"
        ),
    ),
    "in": (
        "packets come in from {} but none have gone back",
        (
            "normal for jobs that only listen; otherwise check whether a route or a firewall of"
            " this VM blocks the answers"
        ),
    ),
}
