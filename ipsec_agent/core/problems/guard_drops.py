"""What the guard drops without naming whom: told from the growth of its counters.

A counting set has room for so many addresses. Who forges more than that, or was the last of many,
is in none, and still its packets are dropped and counted as a whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.problems.problem import Problem, Severity

SAID_FOR = 20.0
"""Seconds for which a rise is told after it was seen."""


@dataclass(frozen=True, slots=True)
class Rise:
    """Packets that a counter rose by, and when that was seen; 0 where it never did."""

    packets: int = 0
    seen: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from pass to pass.

    Attributes:
        table: the last reading.
        received: dropped on the way in, of senders that are in no set.
        prevented: dropped on the way out, likewise.
        disguised: dropped because of a mapped address, a source route or a routing header.
    """

    table: GuardTable | None = None
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
    received = prevented = disguised = 0
    if table is not None and before is not None:
        received, prevented, disguised = _risen(before, table)
    return Memory(
        table or before,
        _latest(memory.received, received, now),
        _latest(memory.prevented, prevented, now),
        _latest(memory.disguised, disguised, now),
    )


def _risen(before: GuardTable, table: GuardTable) -> tuple[int, int, int]:
    """Packets between two readings that no set names: on the way in, out, and in disguise."""
    if table.dropped_in < before.dropped_in or table.dropped_out < before.dropped_out:
        before = GuardTable("")  # It was replaced since then, and counts from 0.
    disguised_in = table.disguised_in - before.disguised_in
    disguised_out = table.disguised_out - before.disguised_out
    received = (
        table.dropped_in
        - before.dropped_in
        - disguised_in
        - (table.tunnelled_in - before.tunnelled_in)
        - _named(table.clear_in, before.clear_in)
    )
    prevented = (
        table.dropped_out
        - before.dropped_out
        - disguised_out
        - (table.tunnelled_out - before.tunnelled_out)
        - _named(table.clear_out, before.clear_out)
        - _named(table.misplaced, before.misplaced)
    )
    return received, prevented, disguised_in + disguised_out


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
        "many senders, or one that forges them, fill the list of the guard: watch with"
        " `tcpdump -n not esp`; `ipsec-agent guard down` and `up` empty the list"
    )
    if memory.received.packets:
        yield Problem(
            "clear-received",
            Severity.WARNING,
            f"{memory.received.packets} clear packets came from addresses that the guard has no"
            " room to name; all were dropped",
            hint,
            "unnamed",
        )
    if memory.prevented.packets:
        yield Problem(
            "clear-prevented",
            Severity.WARNING,
            f"something here would send clear: {memory.prevented.packets} packets with addresses"
            " that the guard has no room to name; they were dropped",
            hint,
            "unnamed",
        )
    if memory.disguised.packets:
        yield Problem(
            "clear-disguised",
            Severity.WARNING,
            f"{memory.disguised.packets} packets had an IPv4 address inside an IPv6 one, a source"
            " route or a routing header, which would lead past IPsec; they were dropped",
            "no VM needs them: find the sender with `tcpdump -n 'ip[0] > 0x45 or ip6[6] = 43 or"
            " net ::ffff:0:0/96'`",
        )
