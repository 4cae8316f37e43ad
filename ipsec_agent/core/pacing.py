"""Which of two VMs begins a negotiation, when, and with how many peers one begins at once.

After a restart of all charons of a deployment each VM wants new SAs with all others. Where both
ends of a pair began, everything would be negotiated twice; where all began at once, the requests
would wait for each other's signatures until they are sent again. Both ends know who begins without
asking each other. The other end only waits a little, since its peer may have lost nothing, have no
agent, or an older one.
"""

from collections.abc import Iterable, Mapping
from zlib import crc32

from ipsec_agent.core.model import Pair

BEGUN_AT_ONCE = 16
"""Negotiations under way that a VM has begun by itself: 16 of 5 ms keep two CPUs busy for 40 ms, so
that a peer's own request has its answer within the first retransmission.
With more than 256 peers one in 16 of those that wait, since a pass takes longer there."""

TURN = 1.0
"""Seconds after which a negotiation has no part in that number any more, whatever becomes of it: a
peer that does not answer must not keep others from their turn. A living one needs a tenth."""

GRACE, SPREAD = 2.0, 2.0
"""Seconds for which the end that does not begin waits for the other one, and up to which it waits
longer, differently for each pair."""


def begins(pair: Pair) -> bool:
    """Whether this end of a pair begins; the other end's answer is the opposite.

    The lower address where the sum is odd, else the higher one: each VM begins with about half of
    its peers.
    """
    own, peer = map(int, pair)
    return (own < peer) == bool((own + peer) % 2)


def due(pairs: Iterable[Pair], *, busy: int, elapsed: float) -> tuple[Pair, ...]:
    """The pairs of which this end may begin now.

    Args:
        pairs: those that want an SA and of which nothing is under way.
        busy: with how many others this end has begun less than a TURN ago, without success yet.
        elapsed: seconds since they want it. Below 0, where the clock was set back, nobody waits.
    """
    ready = [pair for pair in pairs if elapsed < 0 or elapsed >= grace(pair)]
    return in_order(ready)[: room(len(ready), busy)]


def gently(
    pairs: Iterable[Pair], *, busy: int, elapsed: float, first: Mapping[Pair, bool]
) -> tuple[Pair, ...]:
    """The pairs of which this end may begin now, where nothing is lacking that is in a hurry.

    They are spread over the time in which each has its turn: VMs that are told of a new certificate
    in the same minute then find most of their peers with theirs.

    Args:
        pairs: those that want another SA, and of which nothing is under way.
        busy: as in `due`.
        elapsed: seconds since they want it. Below 0, where the clock was set back, nobody waits.
        first: whether this end begins, where that is settled otherwise.
    """
    waiting = tuple(pairs)
    over = span(len(waiting))
    waits = {pair: 0.0 if first.get(pair, begins(pair)) else late(pair) for pair in waiting}
    ready = [pair for pair in waiting if elapsed < 0 or elapsed >= waits[pair] + over * lot(pair)]
    return in_order(ready)[: max(0, BEGUN_AT_ONCE - busy)]


def room(waiting: int, busy: int) -> int:
    """With how many more this end may begin.

    Args:
        waiting: those of which it might.
        busy: as in `due`.
    """
    return max(0, max(BEGUN_AT_ONCE, (waiting + busy) // 16) - busy)


def in_order(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """First those with which this end begins; else as if drawn by lot, so that not all VMs begin
    with the same peer.
    """

    def order(pair: Pair) -> tuple[bool, float, bytes]:
        # Addresses of two versions have no order of their own.
        own, peer = pair
        return not begins(pair), lot(pair), own.packed + peer.packed

    return tuple(sorted(pairs, key=order))


def grace(pair: Pair) -> float:
    """Seconds for which this end waits for the other one."""
    return 0.0 if begins(pair) else late(pair)


def late(pair: Pair) -> float:
    """Seconds for which an end waits that does not begin."""
    return GRACE + SPREAD * lot(pair)


def span(count: int) -> float:
    """Seconds in which so many peers have had their turn, even if none of them answers."""
    return count * TURN / BEGUN_AT_ONCE


def lot(pair: Pair) -> float:
    """Below 1; the same at each start, and different at either end."""
    own, peer = pair
    return crc32(own.packed + peer.packed) / 2**32
