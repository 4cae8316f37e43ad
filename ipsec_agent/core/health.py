"""Desired, observed and the time: what is wrong with this VM, and what of it is shown.

The subjects have modules of their own: traffic.py and those in problems/. Which problem hides
which, and how long one must last, is in problems/damping.py.
"""

from collections.abc import Mapping
from ipaddress import ip_address

from msgspec import Struct, field

from ipsec_agent.core import traffic
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.liars import Lie
from ipsec_agent.core.lockout import Finding
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems import (
    damping,
    esp_lost,
    guard_drops,
    liars,
    optional,
    peer_faults,
    xfrm_counters,
)
from ipsec_agent.core.problems.charon import charon_problems, explained
from ipsec_agent.core.problems.esp import esp_problems
from ipsec_agent.core.problems.expiry import expiry_problems
from ipsec_agent.core.problems.guard import drops_clear, guard_problems, lockout_problems
from ipsec_agent.core.problems.ike_ports import ike_port_problems
from ipsec_agent.core.problems.kernel import network_problems, policy_problems, unreadable
from ipsec_agent.core.problems.links import link_problems
from ipsec_agent.core.problems.mtu import mtu_problems
from ipsec_agent.core.problems.own_certificates import is_own
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity, healthy
from ipsec_agent.core.problems.proposals import proposal_problems
from ipsec_agent.core.problems.rotation import rotation_problems
from ipsec_agent.core.problems.switches import switch_problems
from ipsec_agent.core.promise import Promise

__all__ = [
    "Assessment",
    "LogLine",
    "Memory",
    "Problem",
    "Severity",
    "assess",
    "healthy",
    "judge",
]


NOTHING: Mapping[str, peer_faults.Hearing] = {}


class Memory(Struct, frozen=True):
    """What health remembers from pass to pass."""

    seen: damping.Memory = ()
    counters: xfrm_counters.Memory = ()
    drops: guard_drops.Memory = field(default_factory=guard_drops.Memory)
    followed: traffic.Memory = field(default_factory=traffic.Memory)
    suspects: peer_faults.Memory = ()
    trials: esp_lost.Memory = ()
    lies: liars.Memory = ()
    clear: optional.Memory = field(default_factory=optional.Memory)


class Assessment(Struct, frozen=True):
    """How the VM is.

    Attributes:
        problems: to be shown.
        peers: what travels between this VM and each of them.
        memory: for the next pass.
    """

    problems: tuple[Problem, ...]
    peers: tuple[traffic.Peer, ...]
    memory: Memory


def assess(
    config: Config,
    placement: Placement | None,
    drift: Drift,
    memory: Memory,
    *,
    failures: tuple[Problem, ...] = (),
    lines: tuple[LogLine, ...] = (),
    heard: Mapping[str, peer_faults.Hearing] = NOTHING,
    lockouts: tuple[Finding, ...] = (),
    lowered: bool = False,
    lies: tuple[Lie, ...] = (),
) -> Assessment:
    """Judge a pass, and decide what of it is shown.

    Args:
        memory: of the pass before; Memory() at first.
        failures: what the pass itself could not do.
        lines: of charon's log, those that are young enough to explain something.
        heard: what else the log has told of peers, by their addresses.
        lockouts: what the config cuts this VM off from.
        lowered: an operator has taken the guard down, and the agent leaves it so.
        lies: what peers had made in the course of the pass.
    """
    desired, observed = drift.desired, drift.observed
    now = observed.time
    rises, counters = xfrm_counters.watched(observed.counters, memory.counters, now)
    drops = guard_drops.watched(observed.guard, memory.drops, now)
    followed = memory.followed
    if "states" not in dict(observed.unreadable):
        followed = traffic.followed(observed.states, desired.addresses, followed, now)
    broadcasts = placement.broadcasts if placement else ()
    encrypted = Promise.of(config).encrypted
    clear = optional.followed(drift, broadcasts, memory.clear, encrypted, heard)
    trials = esp_lost.followed(followed.peers, memory.trials, now)
    lost = esp_lost.lost(trials, heard, now)
    told = liars.remembered(lies, observed.guard, memory.lies, now)
    suspects, others = _suspects(config, drift, memory.suspects, lines, heard)
    found = (
        *failures,
        *judge(config, placement, drift, lockouts=lockouts, lowered=lowered),
        *(guard_drops.problems(drops) if drops_clear(desired, drops.table) else ()),
        *optional.problems(config, clear, lowered=lowered),
        *liars.liar_problems(lies, observed.guard, memory.lies),
        *esp_lost.problems(followed.peers, trials, lost),
        *traffic.one_way(peer for peer in followed.peers if peer.address not in lost),
        *xfrm_counters.problems(rises),
    )
    named = (*explained(found, others, drift), *peer_faults.problems(suspects, drift))
    shown, seen = damping.damped(named, memory.seen, now)
    return Assessment(
        damping.uncovered(shown),
        followed.peers,
        Memory(seen, counters, drops, followed, suspects, trials, told, clear),
    )


def _suspects(
    config: Config,
    drift: Drift,
    before: peer_faults.Memory,
    lines: tuple[LogLine, ...],
    heard: Mapping[str, peer_faults.Hearing],
) -> tuple[peer_faults.Memory, tuple[LogLine, ...]]:
    """The peers with which something fails, and the lines that are not about one."""
    promise = Promise.of(config)

    def encrypted(peer: str) -> bool:
        return promise.encrypted(ip_address(peer))

    def ours(line: LogLine) -> bool:
        return line.code == "peer-certificate-invalid" and is_own(line.text, config.certificates)

    about: list[LogLine] = []
    others: list[LogLine] = []
    for line in (line for line in lines if not ours(line)):
        mine = peer_faults.concerns(line) and encrypted(line.peer)
        (about if mine else others).append(line)
    known = peer_faults.without(before, ours)
    return peer_faults.followed(known, about, heard, drift, encrypted), tuple(others)


def judge(
    config: Config,
    placement: Placement | None,
    drift: Drift,
    *,
    lockouts: tuple[Finding, ...] = (),
    lowered: bool = False,
) -> tuple[Problem, ...]:
    """Every problem that one pass shows by itself, without a memory of others."""
    desired, observed = drift.desired, drift.observed
    return (
        *charon_problems(desired, observed),
        *ike_port_problems(desired, observed),
        *esp_problems(observed.esp),
        *policy_problems(drift),
        *guard_problems(config, placement, drift, lowered=lowered),
        *unreadable(observed),
        *network_problems(placement, observed.network),
        *link_problems(
            Promise.of(config),
            placement,
            observed.network,
            guarded=config.agent.guard is GuardMode.ENFORCE,
        ),
        *switch_problems(placement, desired, observed),
        *mtu_problems(config, placement, desired, observed),
        *expiry_problems(config, observed),
        *proposal_problems(config, observed),
        *rotation_problems(drift),
        *lockout_problems(lockouts, observed.charon),
    )
