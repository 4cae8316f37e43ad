"""When peers were cut off, from when to when and why: what split brains of a cluster begin with.

A peer is cut off while something fails with it and no SA is there, or while nothing comes back
through the one that is. Only a look that sees this makes an outage: neither a restart, during which
nobody looks, nor a step of the clock does.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.clock import LATEST
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address
from ipsec_agent.core.problems.charon import MEANINGS
from ipsec_agent.core.problems.peer_faults import Suspect, had_sas, never_seen
from ipsec_agent.core.problems.problem import Problem
from ipsec_agent.core.proof import Verdict
from ipsec_agent.core.proving import Proof
from ipsec_agent.core.traffic import Peer

KEPT, OF_ONE = 256, 8
"""Outages that are remembered, and those of one peer; the newest."""

AGAIN = 30.0
"""Seconds after its end within which an outage goes on, where the same peer is cut off again."""

STEP = 5.0
"""Seconds by which the clock must differ from the time that has passed, until it was set."""

OLDEST = 30 * 86_400.0
"""Seconds after its end for which an outage is remembered."""

LOST = "peer-esp-lost"
WORKS = frozenset({Verdict.PROVEN, Verdict.BLACK_HOLE, Verdict.SENDS_CLEAR})
"""Verdicts of a proof with which packets come and go."""


class Outage(Struct, frozen=True):
    """A time in which a peer was cut off. Times are seconds since the epoch.

    Attributes:
        end: 0 while it lasts.
        code: of the problem that was told of it.
    """

    peer: Address
    begin: float
    end: float
    code: str
    reason: str


class Cut(Struct, frozen=True):
    """A peer that is cut off now.

    Attributes:
        since: when that began, as far as is known.
    """

    since: float
    code: str
    reason: str


Memory = tuple[Outage, ...]
"""In the order in which they began."""


def cut_off(
    drift: Drift,
    traffic: Iterable[Peer],
    suspects: Iterable[Suspect],
    problems: Iterable[Problem],
    *,
    proofs: Iterable[Proof] = (),
    before: Memory = (),
) -> dict[Address, Cut]:
    """The peers that are cut off now; an address at which nobody was ever seen is none.

    Args:
        before: the outages that are known.
    """
    failing = [one for one in suspects if one.shown and not one.gone]
    unproved = [one for one in proofs if one.fails and one.verdict not in WORKS]
    lost = {ip_address(one.subject) for one in problems if one.code == LOST}
    if not (failing or unproved or lost):
        return {}
    peers, found = {peer.address: peer for peer in traffic}, {}
    once = {str(address) for address in (*peers, *(one.peer for one in before))}
    had = had_sas(drift.observed) | once
    now = drift.observed.time
    linked = _with_sas(drift) | {peer.address for peer in peers.values() if peer.there == now}
    for one in failing:
        address = ip_address(one.peer)
        if address not in linked and not never_seen(one, had):
            first = min(fault.first for fault in one.shown)
            there = peers[address].there if address in peers else 0.0
            found[address] = Cut(
                max(first, there), one.code, MEANINGS[one.code].format(peer=address)
            )
    for proof in unproved:
        found[proof.address] = Cut(proof.first, "proof-failed", proof.message)
    for address in peers.keys() & lost:
        reason = f"{address} answers IKE, but no ESP comes back from it"
        found[address] = Cut(peers[address].outward.alone, LOST, reason)
    return found


def _with_sas(drift: Drift) -> set[Address]:
    charon = drift.observed.charon
    return {
        sa.remote
        for sa in (charon.sas if charon else ())
        if any(child.state == "INSTALLED" for child in sa.children)
    }


def followed(
    memory: Memory, cut: Mapping[Address, Cut], now: float, *, stepped: float = 0.0
) -> Memory:
    """The memory after a look.

    Args:
        now: seconds since the epoch.
        stepped: when the clock was last set; what it told before says nothing.
    """
    if not cut and all(one.end for one in memory) and not _old(memory, now):
        return memory
    left = dict(cut)
    found = []
    for one in memory:
        if one.end and (one.peer not in left or not 0 <= now - one.end < AGAIN):
            found.append(one)
        elif one.peer in left:
            told = left.pop(one.peer)
            found.append(replace(one, end=0.0, code=told.code, reason=told.reason))
        else:
            found.append(replace(one, end=max(now, one.begin)))
    over = {one.peer: one.end for one in sorted(found, key=lambda one: one.end)}
    begun = []
    for peer, told in left.items():
        # A fault may be older than a time in which the peer was reached, as in optional mode.
        since = told.since if told.since > over.get(peer, 0.0) else now
        begin = max(min(max(since, stepped), now), FIRST)
        begun.append(Outage(peer, begin, 0.0, told.code, told.reason))
    return bounded((*found, *begun), now)


def _old(memory: Memory, now: float) -> bool:
    return bool(memory) and 0 < memory[0].end < now - OLDEST


def bounded(memory: Memory, now: float) -> Memory:
    """The newest, in their order; those that last are the last to go."""
    counts: dict[Address, int] = {}
    found: list[Outage] = []
    for one in sorted(memory, key=_newness, reverse=True):
        counts[one.peer] = counts.get(one.peer, 0) + 1
        young = not one.end or now - one.end < OLDEST
        if counts[one.peer] <= OF_ONE and len(found) < KEPT and young:
            found.append(one)
    return tuple(sorted(found, key=lambda one: one.begin))


def _newness(one: Outage) -> tuple[bool, float]:
    return not one.end, one.begin


def turned(memory: Memory, now: float, by: float) -> Memory:
    """The same after the clock was set, so that each lasts as long as it did.

    Args:
        now: by the new clock.
        by: seconds by which it was set forward; below 0 where it was set back.
    """
    return tuple(_turned(one, now, by) for one in memory)


def _turned(one: Outage, now: float, by: float) -> Outage:
    begin = max(min(one.begin + by, now), FIRST)
    if not one.end:
        return replace(one, begin=begin)
    if one.end <= now or by > 0:
        return one
    # It was told by a clock that was ahead.
    return replace(one, begin=begin, end=max(min(one.end + by, now), begin))


def resumed(memory: Memory, written: float, now: float) -> Memory:
    """The same, as the next agent takes it up.

    Args:
        written: when it was written, by the clock of then.
    """
    return bounded(turned(memory, now, min(now - written, 0.0)), now)


def over_unseen(memory: Memory, cut: Mapping[Address, Cut], last: float) -> Memory:
    """At the first look: what is over ended while nobody looked, no later than it is known of.

    Args:
        last: when an earlier agent last saw that it lasts.
    """
    return tuple(
        one if one.end or one.peer in cut else replace(one, end=max(one.begin, last))
        for one in memory
    )


def entry(one: Outage) -> dict[str, Any]:
    """For the status, as JSON's types."""
    return {
        "peer": str(one.peer),
        "begin": one.begin,
        "end": one.end or None,
        "code": one.code,
        "reason": one.reason,
    }


def read(documents: Iterable[Mapping[str, Any]]) -> Iterator[Outage]:
    """The outages of entries, as the status and the file have them.

    Raises:
        ValueError: or a KeyError or TypeError: one is none.
    """
    for one in documents:
        begin, end = float(one["begin"]), float(one["end"] or 0.0)
        if not 0 < begin < LATEST or not (end == 0 or begin <= end < LATEST):
            raise ValueError(begin)
        # Half a surrogate pair can be shown nowhere.
        code, reason = str(one["code"]), str(one["reason"])[:LONGEST]
        f"{code}{reason}".encode()
        yield Outage(ip_address(one["peer"]), begin, end, code, reason)


FIRST = 1.0
"""Seconds since the epoch of the first time that is told: 0 means none, and a clock may begin
there."""

LONGEST = 400
"""Characters of a reason."""
