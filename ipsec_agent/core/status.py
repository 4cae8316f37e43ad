"""The status document: what `status --json` prints. A stable interface, versioned by `schema`."""

import enum
import math
from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field, to_builtins

from ipsec_agent.core import status_rotation
from ipsec_agent.core.commands import About
from ipsec_agent.core.config import Config
from ipsec_agent.core.drain import entry as drain_entry
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.events import Event
from ipsec_agent.core.fingerprint import fingerprint
from ipsec_agent.core.inside import is_called, link_names
from ipsec_agent.core.model import Desired, PolicySelector
from ipsec_agent.core.mtu import carriage, required
from ipsec_agent.core.observed import IkePorts, Link, Observed
from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.outages import Outage
from ipsec_agent.core.outages import entry as outage_entry
from ipsec_agent.core.peer_certificates import shown_by_peers
from ipsec_agent.core.placement import Placement, absent_links
from ipsec_agent.core.problems import optional
from ipsec_agent.core.problems.expiry import days_left
from ipsec_agent.core.problems.guard import GuardState, drops_clear, guard_state
from ipsec_agent.core.problems.kept_faults import Kept
from ipsec_agent.core.problems.peer_faults import Suspect
from ipsec_agent.core.problems.problem import Problem, healthy, loudest_first
from ipsec_agent.core.proving import Proofs, summary
from ipsec_agent.core.proving import entries as proof_entries
from ipsec_agent.core.status_peers import peer_entries
from ipsec_agent.core.traffic import Peer
from ipsec_agent.core.words import several, tenths

SCHEMA = 1


class State(enum.StrEnum):
    """Where the agent is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DRAINING = "draining"


class Snapshot(Struct, frozen=True):
    """All that one pass knows, for the status.

    Attributes:
        traffic: with each peer, as the kernel's SAs have counted it.
        suspects: peers with which something fails.
        events: what has happened, the oldest first.
        guard_lowered: an operator has taken the guard down.
        clear: with whom packets pass in clear while IPsec is optional.
        proofs: the newest of each peer, by `agent.proof`.
        outages: when peers were cut off, the newest last.
    """

    config: Config
    placement: Placement | None
    drift: Drift
    problems: tuple[Problem, ...]
    state: State
    pid: int
    version: str
    passes: int
    traffic: tuple[Peer, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    events: tuple[Event, ...] = ()
    guard_lowered: bool = False
    clear: optional.Memory = field(default_factory=optional.Memory)
    proofs: Proofs = Proofs()
    outages: tuple[Outage, ...] = ()

    @property
    def kept(self) -> Kept:
        """What outlives the agent."""
        return Kept(self.suspects, self.clear.talks)

    @property
    def desired(self) -> Desired:
        """What should be."""
        return self.drift.desired

    @property
    def observed(self) -> Observed:
        """What the pass has read."""
        return self.drift.observed

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong, and the VM has been as it should be at least once."""
        return self.state in {State.RUNNING, State.DRAINING} and healthy(self.problems)

    @property
    def guard_state(self) -> GuardState:
        """Whether the guard is up."""
        return guard_state(self.config, self.desired, self.observed, lowered=self.guard_lowered)


def document(
    snapshot: Snapshot, age: float = 0.0, config: str = "", socket: str = ""
) -> dict[str, Any]:
    """The snapshot as JSON's types.

    Args:
        age: seconds from the look to the question, 0 where it was taken after it.
        config: path of the agent's config.
        socket: path of its control socket.
    """
    desired, observed = snapshot.desired, snapshot.observed
    about = About(config, socket)
    return {
        "schema": SCHEMA,
        "version": snapshot.version,
        "pid": snapshot.pid,
        "config": config,
        "fingerprint": fingerprint(snapshot.config),
        "time": observed.time,
        # Never 0 for a look of before the question.
        "age": math.ceil(age * 10) / 10,
        "passes": snapshot.passes,
        "state": snapshot.state.value,
        "healthy": snapshot.healthy,
        "problems": [_problem(problem, about) for problem in snapshot.problems],
        "drain": drain_entry(observed.drain, observed.time) if observed.drain else None,
        "address": str(desired.addresses[0]) if desired.addresses else None,
        "addresses": [str(address) for address in desired.addresses],
        "role": desired.role.value,
        "notes": [*desired.notes, *_absent_links(snapshot)],
        "charon": _charon(observed),
        "connections": _connections(snapshot),
        "peers": _peers(snapshot, about),
        "rotation": status_rotation.summary(snapshot.drift),
        "optional": _optional(snapshot),
        "policies": _policies(snapshot),
        "guard": _guard(snapshot),
        "counters": {name: count for name, count in observed.counters if count},
        "certificates": _certificates(snapshot),
        "events": [to_builtins(one) for one in snapshot.events],
        "links": _links(snapshot),
        "inside": inside_links(snapshot.placement),
        "proof": summary(snapshot.proofs),
        "outages": [outage_entry(one) for one in snapshot.outages],
    }


def sentence(snapshot: Snapshot) -> str:
    """How the VM is, in one line; for systemd's STATUS (sd_notify(3)) and the log."""
    desired, problems = snapshot.desired, loudest_first(snapshot.problems)
    installed = len(desired.policies) - len(snapshot.drift.missing)
    if snapshot.healthy:
        with_sa = sum(peer.there == snapshot.observed.time for peer in snapshot.traffic)
        return (
            f"{snapshot.state.value}, healthy: {installed} of {len(desired.policies)} policies,"
            f" guard {snapshot.guard_state.value}, SAs with {several(with_sa, 'peer')}"
        )
    if not problems:
        return f"{snapshot.state.value}: {installed} of {len(desired.policies)} policies"
    first, more = problems[0], len(problems) - 1
    rest = f" (and {more} more)" if more else ""
    return " ".join(f"{snapshot.state.value}: {first.code}: {first.message}{rest}".split())


def _certificates(snapshot: Snapshot) -> list[dict[str, Any]]:
    config, observed = snapshot.config, snapshot.observed
    return [
        {
            "subject": facts.subject,
            "role": facts.role,
            "not_after": facts.not_after.isoformat(),
            "days_left": tenths(days_left(facts, observed.time)),
        }
        for facts in (*config.certificates, *shown_by_peers(observed.charon, config))
    ]


def _problem(problem: Problem, about: About) -> dict[str, Any]:
    return {
        "code": problem.code,
        "severity": problem.severity.value,
        "message": problem.message,
        "hint": about.text(problem.hint),
        "since": problem.since,
    }


def _charon(observed: Observed) -> dict[str, Any] | None:
    charon = observed.charon
    if charon is None:
        return None
    return {
        "pid": charon.process.pid,
        "started": charon.process.started,
        "memory": charon.process.memory,
        "version": charon.version,
        "responsive": charon.responsive,
        "ports": [
            {"version": version, "port": port, "address": str(address)}
            for version, port, address in (observed.ike_ports or IkePorts()).addresses
        ],
    }


def _peers(snapshot: Snapshot, about: About) -> list[dict[str, Any]]:
    used = {str(peer): one for peer, one in status_rotation.of_peers(snapshot.drift).items()}
    entries = peer_entries(snapshot.desired, snapshot.observed, snapshot.traffic, snapshot.suspects)
    proofs = proof_entries(snapshot.proofs, about)
    return [
        {
            **entry,
            **used.get(entry["address"], status_rotation.NO_IKE),
            "proof": proofs.get(entry["address"]),
        }
        for entry in entries
    ]


def _connections(snapshot: Snapshot) -> list[dict[str, Any]]:
    charon = snapshot.observed.charon
    loaded = {item.name for item in charon.connections} if charon else set()
    lacking = {policy.connection for policy in snapshot.drift.missing}
    return [
        {
            "name": connection.name,
            "remote": str(connection.remote),
            "action": connection.action.shown,
            "loaded": connection.name in loaded,
            "enforced": connection.name not in lacking,
        }
        for connection in snapshot.desired.connections
    ]


def _optional(snapshot: Snapshot) -> dict[str, Any] | None:
    """What enforcing would cut off now; None while it is enforced."""
    if not snapshot.config.optional:
        return None
    return {
        "counted": snapshot.guard_state is GuardState.UP,
        "would_cut_off": [_talk(one) for one in snapshot.clear.cut_off],
        "never_heard": [_talk(one) for one in snapshot.clear.never_heard],
        "unseen": [str(peer) for peer in snapshot.clear.unseen],
    }


def _talk(one: optional.ClearTalk) -> dict[str, Any]:
    return {
        "address": str(one.address),
        "since": one.since,
        "last": one.last,
        "way": one.way,
        "packets": one.packets,
        "encrypted": one.encrypted,
    }


def _guard(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "mode": snapshot.config.agent.guard.value,
        "state": snapshot.guard_state.value,
        "drops": drops_clear(snapshot.desired, snapshot.observed.guard),
        **guard_counters(snapshot.observed.guard),
    }


def guard_counters(table: GuardTable | None) -> dict[str, Any]:
    """What the guard counts, as JSON's types; zeroes where there is no table."""
    table = table or GuardTable("")
    return {
        "dropped_in": table.dropped_in,
        "dropped_out": table.dropped_out,
        "clear_in": _clear(table.clear_in),
        "clear_out": _clear(table.clear_out),
        "wrong_source": _clear(table.misplaced),
        "nat_bypassed": _clear(table.untranslated),
        "wrong_mode": _clear(table.tunnelled),
        "unguarded": [
            {"link": seen.link, "packets": seen.packets, "bytes": seen.bytes, "idle": seen.idle}
            for seen in table.unguarded
        ],
    }


def _clear(peers: tuple[ClearPeer, ...]) -> list[dict[str, Any]]:
    return [
        {
            "address": str(peer.address),
            "packets": peer.packets,
            "bytes": peer.bytes,
            "idle": peer.idle,
        }
        for peer in peers
    ]


def _policies(snapshot: Snapshot) -> dict[str, Any]:
    wanted = len(snapshot.desired.policies)
    missing, foreign = snapshot.drift.missing, snapshot.drift.foreign
    return {
        "desired": wanted,
        "installed": wanted - len(missing),
        "missing": [_selector(p.selector) for p in missing],
        "foreign": [f"{_selector(p.selector)} {p.narrowed or ''}".rstrip() for p in foreign],
    }


def _selector(selector: PolicySelector) -> str:
    protocol = f" proto {selector.protocol}" if selector.protocol else ""
    return (
        f"{selector.direction.name.lower()} {selector.source} -> {selector.destination}{protocol}"
    )


def _links(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The guarded links; `max_packet` is the largest packet in clear whose ESP fits, in bytes."""
    placement = snapshot.placement
    guarded = (*placement.guarded, *_empty_bridges(placement)) if placement else ()
    if placement is None or not placement.present:
        links = snapshot.observed.network.links
        guarded = tuple(link for link in links if not link.loopback)
    how = carriage(snapshot.config, snapshot.desired)
    return [
        {
            "name": link.name,
            "mtu": link.mtu,
            "up": link.up,
            "max_packet": required(link.mtu, how) if how else None,
            "reason": _why_guarded(snapshot, link),
        }
        for link in guarded
    ]


def _absent_links(snapshot: Snapshot) -> Iterator[str]:
    """Links that the config names and this VM has not: a name may be mistyped, or come later."""
    network, agent = snapshot.observed.network, snapshot.config.agent
    if "network" in dict(snapshot.observed.unreadable):
        return
    yield from absent_links(agent, link_names(network.links))


def _why_guarded(snapshot: Snapshot, link: Link) -> str:
    """Why the guard covers a link, as the end of a sentence."""
    network = snapshot.observed.network
    if snapshot.placement is None or not snapshot.placement.present:
        return "this VM's address is not known"
    if is_called(link, snapshot.config.agent.uplinks):
        return "agent.uplinks names it"
    if link in _empty_bridges(snapshot.placement):
        return "this bridge has no port yet"
    own = snapshot.placement.addresses
    for one in network.addresses:
        if one.link == link.index and one.address in own:
            return f"it has this VM's address {one.address}"
    if link.index in network.default_links:
        return "a default route uses it"
    kind = link.kind or "network card"
    return f"it is a {kind} that may lead out of this VM"


def inside_links(placement: Placement | None) -> list[dict[str, Any]]:
    """The links that are not guarded, and why, as JSON's types."""
    inside = placement.inside if placement and placement.present else ()
    return [{"name": one.link.name, "reason": one.because} for one in inside if one.exempt]


def _empty_bridges(placement: Placement) -> tuple[Link, ...]:
    """Guarded, though their addresses are not the VM's."""
    return tuple(one.link for one in placement.inside if not one.exempt)
