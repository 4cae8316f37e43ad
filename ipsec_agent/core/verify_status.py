"""What `verify` takes from the agent's status, and the document that it prints."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from msgspec import Struct

from ipsec_agent.core.model import Action, Address, Network, Role
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.proof import Finding, Observation, Pair, Told, Verdict
from ipsec_agent.core.words import mentions

SCHEMA = 1


class Lists(Struct, frozen=True):
    """What the agent's status says of all peers.

    Attributes:
        addresses: this VM's own.
        unenforced: the encrypted subnets with a policy that is not in the kernel.
        encrypts: this VM does.
    """

    promise: Promise
    addresses: frozenset[Address]
    unenforced: tuple[Network, ...]
    encrypts: bool
    optional: bool

    @staticmethod
    def of(status: Mapping[str, Any]) -> "Lists":
        """The same of the document of `status --json`."""
        named = [(one, ip_network(one["remote"])) for one in status.get("connections", ())]
        traps = [(one, net) for one, net in named if one["action"] == Action.ENCRYPT.shown]
        exempt = tuple(net for one, net in named if one["name"] == f"no-ipsec-{net}")
        return Lists(
            Promise(tuple(net for _, net in traps), exempt),
            frozenset(map(ip_address, status.get("addresses", ()))),
            tuple(net for one, net in traps if not one["enforced"]),
            encrypts=status.get("role") == Role.ENCRYPT,
            optional=bool(status.get("optional")),
        )

    def pair(self, peer: Address, own: Address | None) -> Pair:
        """What is to be between a peer and this VM.

        Args:
            own: the source that a route to the peer has; None without one.
        """
        because = self._clear(peer, own)
        if because or own is None:
            encrypted = not because and self.promise.encrypted(peer)
            told = because or f"{peer} is {'' if encrypted else 'not '}encrypted"
            return Pair(peer, own, encrypted, told, optional=self.optional)
        flow = self.promise.flow(own, peer)
        return Pair(
            peer,
            own,
            flow.action is Action.ENCRYPT,
            flow.because,
            not any(_holds(network, peer) for network in self.unenforced),
            self.optional,
        )

    def _clear(self, peer: Address, own: Address | None) -> str:
        """Why it is clear whatever the lists say; "" where they decide."""
        if peer in self.addresses:
            return "it is this VM's own address"
        if not self.encrypts:
            return "this VM speaks clear with everyone"
        if own is not None and own not in self.addresses:
            return f"packets to it leave from {own}, which is not an address that the agent knows"
        return ""


def _holds(network: Network, peer: Address) -> bool:
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
    of_peer = next(
        (one for one in told if one.code == code and mentions(one.message, str(peer))), None
    )
    own = next((one for wanted in OWN_CODES for one in told if one.code == wanted), None)
    return of_peer, own


def dropped(status: Mapping[str, Any], peer: Address, seconds: float) -> bool:
    """Whether the guard dropped something clear that this VM sent to a peer.

    Args:
        seconds: within which it did.
    """
    guard = status.get("guard") or {}
    return not status.get("optional") and any(
        one["address"] == str(peer) and one["idle"] <= seconds for one in guard.get("clear_out", ())
    )


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
