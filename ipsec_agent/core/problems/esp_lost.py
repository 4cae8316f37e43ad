"""IKE works with a peer, but ESP does not arrive: told apart from jobs that only send, by probes.

Who gets packets and sends none back may have nothing to answer. So it is sent some that every VM
answers, by the same SAs; what comes back ends the suspicion, as any other packet does.

A firewall of the peer's may drop both kinds without a word, but only behind the SA. So that peer,
which sees packets come in and none go out, sends one of its own: it takes the way that is doubted.
"""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.model import Address
from ipsec_agent.core.problems.peer_faults import Hearing
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.traffic import Peer
from ipsec_agent.core.words import instant, several

ENOUGH = 6
"""Probes of which none was answered."""

EACH, LATER = 5.0, 60.0
"""Seconds between probes, and between further ones once that is enough."""

IN_TURN = 25.0
"""Seconds for which packets only came in until one is sent back: after the peer has begun to probe,
whose answers would do, and before it has had enough."""

PROBED_AT_ONCE = 64
"""Peers that are probed in one pass."""


class Trial(Struct, frozen=True):
    """A peer that is being probed. Times are seconds since the epoch.

    Attributes:
        way: `out` where packets only go out to it, `in` where they only come in.
        first: when the first probe was due.
        last: when the latest was.
        sent: how many.
    """

    address: Address
    way: str
    first: float
    last: float = -math.inf
    sent: int = 0


Memory = tuple[Trial, ...]
"""What is remembered from pass to pass."""


def followed(peers: Iterable[Peer], memory: Memory, now: float) -> Memory:
    """The next memory: of the peers to or from which packets only go one way, and need a probe.

    Args:
        memory: of the pass before; () at first.
        now: seconds since the epoch.
    """
    known = {(trial.address, trial.way): trial for trial in memory}
    found, room = [], PROBED_AT_ONCE
    for peer in peers:
        way = peer.one_way
        if way == "out" or (way == "in" and peer.inward.last - peer.inward.alone >= IN_TURN):
            trial = known.get((peer.address, way), Trial(peer.address, way, now))
            if room and _is_due(trial, now):
                room -= 1
                trial = replace(trial, last=now, sent=trial.sent + 1)
            found.append(trial)
    return tuple(found)


def _is_due(trial: Trial, now: float) -> bool:
    waited = now - trial.last
    # The clock may have been set back.
    soon = trial.way == "out" and trial.sent < ENOUGH
    return waited < 0 or waited >= (EACH if soon else LATER)


def to_probe(memory: Memory, now: float) -> tuple[Address, ...]:
    """The peers whose probe is due in the pass of this time."""
    return tuple(trial.address for trial in memory if trial.last == now)


def waits(memory: Memory) -> bool:
    """Whether a peer has not yet had enough probes: the next pass must not be late."""
    return any(trial.way == "out" and trial.sent <= ENOUGH for trial in memory)


def lost(memory: Memory, heard: Mapping[str, Hearing], now: float) -> frozenset[Address]:
    """The peers that answered IKE meanwhile, and no probe; a dead one answers neither."""
    return frozenset(
        trial.address
        for trial in memory
        if trial.way == "out"
        and trial.sent - (trial.last == now) >= ENOUGH
        and heard.get(str(trial.address), Hearing()).answered > trial.first
    )


def problems(peers: Iterable[Peer], memory: Memory, gone: frozenset[Address]) -> Iterable[Problem]:
    """One for each peer.

    Args:
        gone: what `lost` says.
    """
    trials = {trial.address: trial for trial in memory}
    for peer in peers:
        if peer.address in gone:
            yield Problem(
                "peer-esp-lost",
                Severity.ERROR,
                f"{peer.address} answers IKE, but no ESP has come back from it since"
                f" {instant(peer.outward.alone)}, not even an answer to"
                f" {several(trials[peer.address].sent, 'probe')}",
                "have protocol 50 (UDP 4500, where encapsulated) pass between the two VMs, both"
                " ways: security groups, firewalls; or set force_udp_encapsulation on every VM",
                str(peer.address),
            )
