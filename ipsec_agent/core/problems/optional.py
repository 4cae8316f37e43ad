"""`optional: true` as a problem, for as long as it is on: which peers enforcing would cut off now.

The guard has counted with whom packets pass in clear. A peer that has an SA now has changed over:
what it sent before its SA is past. Where packets only go to an address, nobody may be there.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.guard_table import COUNTED_FOR
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.problems.peer_faults import OLDEST, Hearing
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.traffic import by_peer
from ipsec_agent.core.words import instant

CODE = "optional-on"

NOT_COUNTED = "what enforcing would cut off is not known without the guard"

CHANGEOVER = 5.0
"""Seconds after its first SA in which a peer's last clear packets may be counted."""

WAYS = ("in", "out", "both")

MOST = 4096
"""Peers that are remembered."""


class ClearTalk(Struct, frozen=True):
    """A peer with which packets pass in clear. Times are seconds since the epoch.

    Attributes:
        since: when the first such packet was seen.
        last: when the last one was.
        way: in, out or both, as this VM sees it.
        encrypted: when it last had an SA with this VM, 0 for never.
        heard: it has sent something, or has answered IKE or neighbour discovery.
        until: when it is forgotten, unless more packets pass.
    """

    address: Address
    since: float
    last: float
    way: str
    packets: int
    encrypted: float = 0.0
    heard: bool = True
    until: float = 0.0


class Memory(Struct, frozen=True):
    """What is remembered from pass to pass; nothing while IPsec is enforced.

    Attributes:
        talks: with whom packets pass in clear, the most recent first.
        unseen: peers that once had an SA, and now neither have one nor send anything.
        secured: since when each peer with an SA has one.
    """

    talks: tuple[ClearTalk, ...] = ()
    unseen: tuple[Address, ...] = ()
    secured: tuple[tuple[Address, float], ...] = ()

    @property
    def cut_off(self) -> tuple[ClearTalk, ...]:
        """The peers that enforcing would cut off now."""
        return tuple(one for one in self.talks if one.heard)

    @property
    def never_heard(self) -> tuple[ClearTalk, ...]:
        """The addresses that packets are sent to, and that never answered."""
        return tuple(one for one in self.talks if not one.heard)


def followed(
    drift: Drift,
    broadcasts: tuple[Address, ...],
    memory: Memory,
    encrypted: Callable[[Address], bool],
    heard: Mapping[str, Hearing],
) -> Memory:
    """The memory after a pass.

    Args:
        broadcasts: addresses that are nobody's.
        memory: of the pass before; Memory() at first, or what an earlier agent knew.
        encrypted: whether the config wants ESP with an address.
        heard: what charon's log has told of peers, by their addresses.
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
    answered = {one.address for one in observed.neighbours if one.answered}
    answered |= {peer for peer in remembered if remembered[peer] > 0}
    found = _kept(memory, now, encrypted)
    nobody = {*broadcasts, *desired.addresses}
    for peer, (way, counted) in _clear(observed.guard, nobody).items():
        last, known = now - min(one.idle for one in counted), found.get(peer)
        found[peer] = ClearTalk(
            peer,
            min(known.since if known else last, last),
            last,
            way,
            sum(one.packets for one in counted),
            # The file of the peers forgets sooner.
            now if peer in secured else max(remembered.get(peer, 0.0), _had(known)),
            way != "out"
            or peer in answered
            or peer in secured
            or (known is not None and known.heard)
            or heard.get(str(peer), Hearing()).answered > 0,
            last + COUNTED_FOR,
        )
    return _memory(found.values(), secured, nobody, remembered, now)


def _had(known: ClearTalk | None) -> float:
    return known.encrypted if known else 0.0


def _memory(
    talks: Iterable[ClearTalk],
    secured: dict[Address, float],
    nobody: set[Address],
    remembered: Iterable[Address],
    now: float,
) -> Memory:
    """The memory with those who have not changed over, and are not forgotten."""
    lasting = (
        one
        for one in talks
        if now < one.until
        and one.last > secured.get(one.address, -CHANGEOVER) + CHANGEOVER
        and one.address not in nobody
    )
    kept = tuple(sorted(lasting, key=lambda one: -one.last)[:MOST])
    spoken = {one.address for one in kept} | secured.keys() | nobody
    unseen = tuple(peer for peer in remembered if peer not in spoken)
    return Memory(kept, unseen, tuple(secured.items()))


def _kept(
    memory: Memory, now: float, encrypted: Callable[[Address], bool]
) -> dict[Address, ClearTalk]:
    """What is known of peers also where the guard's table has begun to count from 0."""
    return {
        one.address: replace(
            one,
            since=min(one.since, now),
            last=min(one.last, now),
            encrypted=min(one.encrypted, now),
            # The clock may have been set back.
            until=min(one.until, now + COUNTED_FOR),
        )
        for one in memory.talks
        if encrypted(one.address)
    }


def resumed(talks: Iterable[ClearTalk], now: float) -> tuple[ClearTalk, ...]:
    """What an earlier agent knew, as this one takes it up.

    Nobody has counted meanwhile, so each has its time from now on.
    """
    return tuple(
        replace(one, until=now + COUNTED_FOR) for one in talks if abs(now - one.last) < OLDEST
    )


def _clear(
    table: GuardTable | None, nobody: set[Address]
) -> dict[Address, tuple[str, list[ClearPeer]]]:
    """What the guard counts of each address, and in which directions."""
    found: dict[Address, tuple[str, list[ClearPeer]]] = {}
    counted: Iterable[tuple[str, tuple[ClearPeer, ...]]] = (
        (("in", table.clear_in), ("out", table.clear_out)) if table else ()
    )
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
            "IPsec is optional (optional: true), so this VM speaks in clear with peers that have no"
            " IPsec; " + (outlook(memory) if counted else NOT_COUNTED),
            "once every VM runs IPsec, remove `optional: true` on one VM after the other",
        ),
    )


def outlook(memory: Memory) -> str:
    """What enforcing would cut off now, in one sentence without its end."""
    cut_off, silent = memory.cut_off, memory.never_heard
    what = listed(cut_off, say=_said) if cut_off else "none of the peers heard from"
    never = listed(silent, say=lambda one: str(one.address))
    return f"enforcing now would cut off {what}" + (
        f"; never heard from, though packets go there: {never}" if never else ""
    )


def _said(one: ClearTalk) -> str:
    return f"{one.address} (clear since {instant(one.since)}, {history(one)})"


def history(one: ClearTalk) -> str:
    """Whether a peer ever had an SA."""
    return f"its last SA was seen {instant(one.encrypted)}" if one.encrypted else "never had an SA"
