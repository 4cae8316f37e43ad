"""What `verify` takes from the agent's status, and the document that it prints."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from ipsec_agent.core.model import Action, Address, Role
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.proof import Finding, Observation, Pair, Told, Verdict

SCHEMA = 1


def pair_of(status: Mapping[str, Any], peer: Address, own: Address | None) -> Pair:
    """What the agent's status says of a peer.

    Args:
        status: the document of `status --json`.
        own: the source that a route to the peer has; None without one.
    """
    named = [(one, ip_network(one["remote"])) for one in status.get("connections", ())]
    traps = {net: one for one, net in named if one["action"] == Action.ENCRYPT.shown}
    exempt = [net for one, net in named if one["name"] == f"no-ipsec-{net}"]
    promise = Promise(tuple(traps), tuple(exempt))
    optional = bool(status.get("optional"))
    if own is None:
        encrypted = promise.encrypted(peer)
        return Pair(peer, None, encrypted, _one_sided(promise, peer), optional=optional)
    if str(own) not in status.get("addresses", ()):
        why = f"packets to it leave from {own}, which is not an address that the agent knows"
        return Pair(peer, own, False, why, optional=optional)
    if str(peer) in status["addresses"]:
        return Pair(peer, own, False, "it is this VM's own address", optional=optional)
    if status.get("role") == Role.CLEAR:
        return Pair(peer, own, False, "this VM speaks clear with everyone", optional=optional)
    flow = promise.flow(own, peer)
    enforced = all(one["enforced"] for net, one in traps.items() if _holds(net, peer))
    return Pair(peer, own, promise.encrypts(own, peer), flow.because, enforced, optional)


def _one_sided(promise: Promise, peer: Address) -> str:
    return f"{peer} is {'' if promise.encrypted(peer) else 'not '}encrypted"


def _holds(network: Any, peer: Address) -> bool:
    return peer.version == network.version and peer in network


NO_LONGER = frozenset({"gone"})


def known_peers(status: Mapping[str, Any]) -> tuple[Address, ...]:
    """The peers that `--all` means: those with SAs, with faults, and those that send clear."""
    listed = [one["address"] for one in status.get("peers", ()) if one["state"] not in NO_LONGER]
    optional, guard = status.get("optional") or {}, status.get("guard") or {}
    listed += [one["address"] for one in optional.get("would_cut_off", ())]
    listed += optional.get("unseen", ())
    listed += [one["address"] for one in guard.get("clear_in", ())]
    return tuple(map(ip_address, dict.fromkeys(listed)))


OWN_CODES = (
    "esp-unavailable",
    "charon-down",
    "charon-unresponsive",
    "ike-port-taken",
    "ike-port-closed",
    "proposals-impossible",
    "certificate-expired",
    "certificate-not-valid-yet",
    "ipsec-disabled",
    "policies-bypassed",
    "own-key-missing",
    "link-down",
)
"""Problems of this VM that keep it from every peer, the likeliest cause first."""


def faults(status: Mapping[str, Any], peer: Address) -> tuple[Told | None, Told | None]:
    """What the status says of a peer, and what of this VM keeps it from every peer."""
    code = next(
        (one["problem"] for one in status.get("peers", ()) if one["address"] == str(peer)), ""
    )
    told = [Told(one["code"], one["message"], one["hint"]) for one in status.get("problems", ())]
    of_peer = next((one for one in told if one.code == code and _names(one, peer)), None)
    own = next((one for wanted in OWN_CODES for one in told if one.code == wanted), None)
    return of_peer, own


def _names(told: Told, peer: Address) -> bool:
    """Whether its message does; 10.0.1.9 is not named by 10.0.1.99."""
    return re.search(rf"(?<![\w.:]){re.escape(str(peer))}(?![\w.]|:\w)", told.message) is not None


def entry(seen: Observation, found: Finding) -> dict[str, Any]:
    """A peer's verdict as JSON's types."""
    times, window, path = seen.echoes.times, seen.proof, seen.path
    return {
        "address": str(seen.pair.peer),
        "source": str(seen.pair.own) if seen.pair.own else None,
        "verdict": found.verdict.value,
        "message": found.message,
        "hint": found.hint,
        "notes": list(found.notes),
        "esp_out": window.esp_out,
        "esp_in": window.esp_in,
        "counted_out": seen.counted_out,
        "counted_in": seen.counted_in,
        "clear_out": seen.clear_out,
        "clear_in": seen.clear_in,
        "ike_out": seen.before.ike_out,
        "ike_in": seen.before.ike_in,
        "links": list(window.links),
        "echoes": seen.echoes.sent,
        "answers": len(times),
        "latency": round(min(times), 6) if times else None,
        "max_packet": path.passes if path else None,
        "max_sent": path.link if path else None,
    }


def document(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What `verify --json` prints: a stable interface, versioned by `schema`."""
    peers = list(entries)
    proven = all(one["verdict"] == Verdict.PROVEN for one in peers)
    return {"schema": SCHEMA, "proven": proven and bool(peers), "peers": peers}
