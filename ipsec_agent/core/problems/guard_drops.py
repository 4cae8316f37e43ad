"""What the guard drops without naming whom: told from the growth of its counters.

A counting set has room for a limited number of addresses. Packets of further addresses, often
forged, are still dropped and counted in total. Counters and sets are listed
one after the other, so a packet between the two is in one and not yet in the other: only what is
still unexplained at the next reading has no name. Where packets come all the time, each reading may
have one between the two: so nobody is without a name while the set has room.
"""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.guard_table import PEERS_COUNTED
from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.words import several

SAID_FOR = 20.0
"""Seconds for which a rise is told after it was seen."""


class Rise(Struct, frozen=True):
    """Packets that a counter rose by, and when that was seen; 0 where it never did."""

    packets: int = 0
    seen: float = 0.0


class Memory(Struct, frozen=True):
    """What is remembered from pass to pass.

    Attributes:
        table: the last reading.
        unnamed_in: packets that the counter on the way in is ahead of the sets at that reading;
            below 0 where the sets are ahead.
        unnamed_out: likewise, on the way out.
        received: dropped on the way in, of senders that are in no set.
        prevented: dropped on the way out, likewise.
        disguised: dropped because of a mapped address, a source route, a routing header, or cut
            headers.
    """

    table: GuardTable | None = None
    unnamed_in: int = 0
    unnamed_out: int = 0
    received: Rise = Rise()
    prevented: Rise = Rise()
    disguised: Rise = Rise()


def watched(table: GuardTable | None, memory: Memory, now: float) -> Memory:
    """The memory after a reading.

    Args:
        table: None where it could not be read; then nothing is known to have risen.
        memory: of the pass before; Memory() at first, when everything is old.
        now: seconds since the epoch.
    """
    before = memory.table
    if table is None or (before is not None and table.reading == before.reading):
        return _after(memory, now)
    if before is None:
        return replace(memory, table=table)
    if table.dropped_in < before.dropped_in or table.dropped_out < before.dropped_out:
        # It was replaced since then, and counts from 0.
        before, memory = GuardTable(""), replace(memory, unnamed_in=0, unnamed_out=0)
    received, unnamed_in, prevented, unnamed_out = 0, 0, 0, 0
    if any(full(it.clear_in) for it in (before, table)):
        received, unnamed_in = _settled(memory.unnamed_in, _unnamed_in(before, table))
    if any(full(it.clear_out) or full(it.misplaced) for it in (before, table)):
        prevented, unnamed_out = _settled(memory.unnamed_out, _unnamed_out(before, table))
    disguised = table.disguised_in - before.disguised_in
    disguised += table.disguised_out - before.disguised_out
    return replace(
        _after(memory, now, received, prevented, disguised),
        table=table,
        unnamed_in=unnamed_in,
        unnamed_out=unnamed_out,
    )


def full(peers: Iterable[ClearPeer]) -> bool:
    """Whether a counting set, one of each IP version, has no room for a further address."""
    versions = Counter(peer.address.version for peer in peers)
    return max(versions.values(), default=0) >= PEERS_COUNTED


def _after(
    memory: Memory, now: float, received: int = 0, prevented: int = 0, disguised: int = 0
) -> Memory:
    return replace(
        memory,
        received=_latest(memory.received, received, now),
        prevented=_latest(memory.prevented, prevented, now),
        disguised=_latest(memory.disguised, disguised, now),
    )


def _settled(unnamed: int, more: int) -> tuple[int, int]:
    """What two readings agree on, and what only the last one says.

    Args:
        unnamed: by what the counter was ahead of the sets at the reading before.
        more: by what it has got further ahead since then.
    """
    now = unnamed + more
    both = max(0, min(unnamed, now)) or min(0, max(unnamed, now))
    return both, now - both


def _unnamed_in(before: GuardTable, table: GuardTable) -> int:
    """Clear packets on the way in between two readings, less those that a set names."""
    return (
        table.dropped_in
        - before.dropped_in
        - (table.disguised_in - before.disguised_in)
        - (table.tunnelled_in - before.tunnelled_in)
        - _named(table.clear_in, before.clear_in)
    )


def _unnamed_out(before: GuardTable, table: GuardTable) -> int:
    """Likewise, on the way out."""
    return (
        table.dropped_out
        - before.dropped_out
        - (table.disguised_out - before.disguised_out)
        - (table.tunnelled_out - before.tunnelled_out)
        - _named(table.clear_out, before.clear_out)
        - _named(table.misplaced, before.misplaced)
    )


def _named(now: tuple[ClearPeer, ...], before: tuple[ClearPeer, ...]) -> int:
    """By how many packets the addresses of a set rose; one that was forgotten begins at 0."""
    earlier = {peer.address: peer.packets for peer in before}
    return sum(
        peer.packets - (was if (was := earlier.get(peer.address, 0)) <= peer.packets else 0)
        for peer in now
    )


def _latest(old: Rise, packets: int, now: float) -> Rise:
    if packets > 0:
        return Rise(packets, now)
    # The clock may have been set back.
    return old if 0 <= now - old.seen < SAID_FOR else Rise()


def problems(memory: Memory) -> tuple[Problem, ...]:
    """What rose a moment ago."""
    return tuple(_said(memory))


def _said(memory: Memory) -> Iterable[Problem]:
    hint = (
        "many senders, or forged ones, have filled the guard's list: watch with"
        " `tcpdump -ni any not esp`; `ipsec-agent guard down` and `ipsec-agent guard up` empty it"
    )
    if memory.received.packets:
        yield Problem(
            "clear-received",
            Severity.WARNING,
            f"the guard dropped {several(memory.received.packets, 'clear packet')} from addresses"
            " that its full list has no room for",
            hint,
            "unnamed",
        )
    if memory.prevented.packets:
        yield Problem(
            "clear-prevented",
            Severity.WARNING,
            f"the guard dropped {several(memory.prevented.packets, 'clear packet')} that this VM"
            " sent to addresses that its full list has no room for",
            hint,
            "unnamed",
        )
    if memory.disguised.packets:
        yield Problem(
            "clear-disguised",
            Severity.WARNING,
            f"the guard dropped {several(memory.disguised.packets, 'packet')} with an IPv4-mapped"
            " IPv6 address, a source route or a routing header, or with headers cut off by"
            " fragmentation, which would bypass IPsec",
            "no VM needs them: find the sender with `tcpdump -ni any 'ip[0] > 0x45 or ip6[6] ="
            " 43 or ip6[6] = 44 or net ::ffff:0:0/96'`",
        )
