"""The status document: what `status --json` prints. A stable interface, versioned by `schema`."""

import enum
from dataclasses import dataclass
from typing import Any

from ipsec_agent.core.config import Config
from ipsec_agent.core.drift import foreign, missing
from ipsec_agent.core.health import Problem, days_left, healthy
from ipsec_agent.core.model import Desired, PolicySelector
from ipsec_agent.core.observed import Charon, IkeSa, Observed
from ipsec_agent.core.placement import Placement

SCHEMA = 1


class State(enum.StrEnum):
    """Where the agent is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one pass knows, for the status."""

    config: Config
    placement: Placement | None
    desired: Desired
    observed: Observed
    problems: tuple[Problem, ...]
    state: State
    pid: int
    version: str
    passes: int


def document(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as JSON's types."""
    desired, observed = snapshot.desired, snapshot.observed
    return {
        "schema": SCHEMA,
        "version": snapshot.version,
        "pid": snapshot.pid,
        "time": observed.time,
        "passes": snapshot.passes,
        "state": snapshot.state.value,
        "healthy": snapshot.state is State.RUNNING and healthy(snapshot.problems),
        "problems": [_problem(problem) for problem in snapshot.problems],
        "address": str(desired.addresses[0]) if desired.addresses else None,
        "addresses": [str(address) for address in desired.addresses],
        "role": desired.role.value,
        "notes": list(desired.notes),
        "charon": _charon(observed.charon),
        "connections": _connections(snapshot),
        "peers": _peers(observed.charon),
        "policies": {
            "desired": len(desired.policies),
            "installed": len(desired.policies) - len(missing(desired, observed.policies)),
            "missing": [_selector(p.selector) for p in missing(desired, observed.policies)],
            "foreign": [_selector(p.selector) for p in foreign(desired, observed)],
        },
        "certificates": [
            {
                "subject": facts.subject,
                "role": facts.role,
                "not_after": facts.not_after.isoformat(),
                "days_left": round(days_left(facts, observed.time), 1),
            }
            for facts in snapshot.config.certificates
        ],
        "links": _links(snapshot),
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "severity": problem.severity.value,
        "message": problem.message,
        "hint": problem.hint,
        "since": problem.since,
    }


def _charon(charon: Charon | None) -> dict[str, Any] | None:
    if charon is None:
        return None
    return {
        "pid": charon.process.pid,
        "started": charon.process.started,
        "memory": charon.process.memory,
        "version": charon.version,
        "responsive": charon.responsive,
    }


def _connections(snapshot: Snapshot) -> list[dict[str, Any]]:
    charon = snapshot.observed.charon
    loaded = {item.name for item in charon.connections} if charon else set()
    lacking = {
        policy.connection for policy in missing(snapshot.desired, snapshot.observed.policies)
    }
    return [
        {
            "name": connection.name,
            "remote": str(connection.remote),
            "action": connection.action.value,
            "loaded": connection.name in loaded,
            "enforced": connection.name not in lacking,
        }
        for connection in snapshot.desired.connections
    ]


def _peers(charon: Charon | None) -> list[dict[str, Any]]:
    """One entry a peer; more than one CHILD_SA with it (both initiated at once) is counted."""
    by_peer: dict[str, list[IkeSa]] = {}
    for sa in charon.sas if charon else ():
        by_peer.setdefault(str(sa.remote), []).append(sa)
    return [_peer(address, sas) for address, sas in sorted(by_peer.items())]


def _peer(address: str, sas: list[IkeSa]) -> dict[str, Any]:
    children = [child for sa in sas for child in sa.children]
    installed = [child for child in children if child.state == "INSTALLED"]
    return {
        "address": address,
        "state": "installed" if installed else max(sas, key=lambda sa: sa.age).state.lower(),
        "age": max((child.age for child in installed), default=0),
        "ike_sas": len(sas),
        "child_sas": len(installed),
        "duplicates": max(len(installed) - 1, 0),
        "bytes_in": sum(child.bytes_in for child in children),
        "bytes_out": sum(child.bytes_out for child in children),
        "packets_in": sum(child.packets_in for child in children),
        "packets_out": sum(child.packets_out for child in children),
    }


def _selector(selector: PolicySelector) -> str:
    protocol = f" proto {selector.protocol}" if selector.protocol else ""
    return (
        f"{selector.direction.name.lower()} {selector.source} -> {selector.destination}{protocol}"
    )


def _links(snapshot: Snapshot) -> list[dict[str, Any]]:
    uplinks = snapshot.placement.uplinks if snapshot.placement else ()
    return [{"name": link.name, "mtu": link.mtu, "up": link.up} for link in uplinks]
