"""`optional: true` as a problem, for as long as it is on: which peers enforcing would cut off now.

The guard has counted with whom packets pass in clear. A peer that has an SA now has changed over:
what it sent before its SA is past.
"""

from collections.abc import Iterable

from msgspec import Struct

from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.guard_table import COUNTED_FOR
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.problems.peer_faults import moment
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.traffic import by_peer

CODE = "optional-on"

NOT_COUNTED = "what enforcing would cut off is not known without the guard"

CHANGEOVER = 5.0
"""Seconds after its first SA in which a peer's last clear packets may be counted."""

MOST = 4096
"""Peers that are remembered."""


class ClearTalk(Struct, frozen=True):
    """A peer with which packets pass in clear. Times are seconds since the epoch.

    Attributes:
        since: when the first such packet was seen.
        last: when the last one was.
        way: in, out or both, as this VM sees it.
        encrypted: when it last had an SA with this VM, 0 for never.
    """

    address: Address
    since: float
    last: float
    way: str
    packets: int
    encrypted: float = 0.0


class Memory(Struct, frozen=True):
    """What is remembered from pass to pass; nothing while IPsec is enforced.

    Attributes:
        cut_off: peers that enforcing would cut off now, the most recent first.
        unseen: peers that once had an SA, and now neither have one nor send anything.
        secured: since when each peer with an SA has one.
    """

    cut_off: tuple[ClearTalk, ...] = ()
    unseen: tuple[Address, ...] = ()
    secured: tuple[tuple[Address, float], ...] = ()


def followed(drift: Drift, broadcasts: tuple[Address, ...], memory: Memory) -> Memory:
    """The memory after a pass.

    Args:
        broadcasts: addresses that are nobody's.
        memory: of the pass before; Memory() at first.
    """
    desired, observed = drift.desired, drift.observed
    if not desired.optional:
        return Memory()
    if {"states", "guard"} & {name for name, _ in observed.unreadable}:
        return memory
    now, before = observed.time, dict(memory.secured)
    secured = {
        peer: before.get(peer, min((float(sa.added) for sa in (*into, *out)), default=now))
        for peer, (into, out) in by_peer(observed.states, desired.addresses).items()
    }
    remembered = {peer.address: peer.seen for peer in observed.remembered}
    began = {one.address: one.since for one in memory.cut_off}
    found = []
    for peer, (way, counted) in _clear(drift, broadcasts).items():
        last = now - min(one.idle for one in counted)
        if now - last >= COUNTED_FOR or last <= secured.get(peer, -CHANGEOVER) + CHANGEOVER:
            continue
        ever = now if peer in secured else remembered.get(peer, 0.0)
        packets = sum(one.packets for one in counted)
        since = min(began.get(peer, last), last)
        found.append(ClearTalk(peer, since, last, way, packets, ever))
    cut_off = tuple(sorted(found, key=lambda one: -one.last)[:MOST])
    spoken = {one.address for one in cut_off} | secured.keys() | set(desired.addresses)
    unseen = tuple(peer for peer in remembered if peer not in spoken)
    return Memory(cut_off, unseen, tuple(secured.items()))


def _clear(
    drift: Drift, broadcasts: tuple[Address, ...]
) -> dict[Address, tuple[str, list[ClearPeer]]]:
    """What the guard counts of each address, and in which directions."""
    table = drift.observed.guard
    found: dict[Address, tuple[str, list[ClearPeer]]] = {}
    counted: Iterable[tuple[str, tuple[ClearPeer, ...]]] = (
        (("in", table.clear_in), ("out", table.clear_out)) if table else ()
    )
    nobody = {*broadcasts, *drift.desired.addresses}
    for way, peers in counted:
        for one in peers:
            if one.address not in nobody:
                known = found.get(one.address)
                both = ("both", [*known[1], one]) if known else (way, [one])
                found[one.address] = both
    return found


def problems(config: Config, memory: Memory, *, lowered: bool) -> tuple[Problem, ...]:
    """One, while IPsec is optional.

    Args:
        lowered: the guard, which counts, was taken down by hand.
    """
    if not config.optional:
        return ()
    counted = config.agent.guard is not GuardMode.NONE and not lowered
    return (
        Problem(
            CODE,
            Severity.WARNING,
            "IPsec is optional (optional: true), so peers without it are spoken with in clear; "
            + (outlook(memory) if counted else NOT_COUNTED),
            "once every VM runs IPsec, remove `optional: true` on one VM after the other",
        ),
    )


def outlook(memory: Memory) -> str:
    """What enforcing would cut off now, in one sentence without its end."""
    if not memory.cut_off:
        return "enforcing now would cut off none of the peers seen"
    return f"enforcing now would cut off {listed(memory.cut_off, say=_said)}"


def _said(one: ClearTalk) -> str:
    return f"{one.address} (clear since {moment(one.since)}, {history(one)})"


def history(one: ClearTalk) -> str:
    """Whether a peer ever had an SA."""
    return f"its last SA was seen {moment(one.encrypted)}" if one.encrypted else "never had an SA"
