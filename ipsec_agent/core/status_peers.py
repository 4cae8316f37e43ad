"""The status document's peers: SAs as charon lists them, traffic as the kernel counts it."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from ipsec_agent.core.model import Address, Desired, address_order
from ipsec_agent.core.observed import ChildSa, IkeSa, Observed
from ipsec_agent.core.problems.charon import SILENT
from ipsec_agent.core.problems.peer_faults import GONE, Suspect
from ipsec_agent.core.traffic import Peer, Way, by_peer

_UNKNOWN = {"ike_algorithms": "", "esp_algorithms": ""}


def peer_entries(
    desired: Desired,
    observed: Observed,
    traffic: Iterable[Peer],
    suspects: Iterable[Suspect] = (),
) -> list[dict[str, Any]]:
    """One entry for each peer with an SA, or with which something fails, by address.

    `state` is that of the CHILD_SA, or of the IKE_SA where there is none. SAs that only the kernel
    has are an `orphan` of an earlier charon, or `unknown` while charon does not answer. Without any
    it is `refused`, `silent` or `gone`.
    """
    known = {peer.address: peer for peer in traffic}
    codes = {ip_address(one.peer): one.code for one in suspects if one.code}
    entries = {
        **{address: _without_sas(code) for address, code in codes.items()},
        **{address: _of_charon(sas) for address, sas in _by_remote(observed).items()},
        **_of_kernel_alone(desired, observed),
    }
    return [
        {
            "address": str(address),
            **entry,
            **_idleness(known.get(address), observed.time),
            "problem": codes.get(address, ""),
        }
        for address, entry in sorted(entries.items(), key=lambda item: address_order(item[0]))
    ]


def _without_sas(code: str) -> dict[str, Any]:
    return {
        "state": {SILENT: "silent", GONE: "gone"}.get(code, "refused"),
        **_UNKNOWN,
        **dict.fromkeys(
            (
                *("age", "ike_sas", "child_sas", "duplicates"),
                *("bytes_in", "bytes_out", "packets_in", "packets_out"),
            ),
            0,
        ),
    }


def _by_remote(observed: Observed) -> dict[Address, list[IkeSa]]:
    found: dict[Address, list[IkeSa]] = {}
    for sa in observed.charon.sas if observed.charon else ():
        found.setdefault(sa.remote, []).append(sa)
    return found


def _of_charon(sas: list[IkeSa]) -> dict[str, Any]:
    """Both initiated at once: then there is more than one CHILD_SA, which is counted."""
    children = [child for sa in sas for child in sa.children]
    installed = [child for child in children if child.state == "INSTALLED"]
    newest = max(sas, key=lambda sa: sa.unique_id)
    return {
        "state": "installed" if installed else max(sas, key=lambda sa: sa.age).state.lower(),
        "ike_algorithms": newest.algorithms,
        "esp_algorithms": max(installed, key=_number).algorithms if installed else "",
        "age": max((child.age for child in installed), default=0),
        "ike_sas": len(sas),
        "child_sas": len(installed),
        "duplicates": max(len(installed) - 1, 0),
        "bytes_in": sum(child.bytes_in for child in children),
        "bytes_out": sum(child.bytes_out for child in children),
        "packets_in": sum(child.packets_in for child in children),
        "packets_out": sum(child.packets_out for child in children),
    }


def _number(child: ChildSa) -> int:
    return child.unique_id


def _of_kernel_alone(desired: Desired, observed: Observed) -> dict[Address, dict[str, Any]]:
    """Peers whose traffic runs on SAs that charon does not list."""
    charon = observed.charon
    listed = _by_remote(observed)
    answered = charon is not None and charon.responsive
    entries = {}
    for address, (inward, outward) in by_peer(observed.states, desired.addresses).items():
        if address in listed:
            continue
        began = min(sa.added for sa in (*inward, *outward))
        entries[address] = {
            "state": "orphan" if answered else "unknown",
            "age": max(int(observed.time) - began, 0) if began else 0,
            "ike_sas": 0,
            "child_sas": max(len(inward), len(outward)),
            "duplicates": max(len(inward) - 1, len(outward) - 1, 0),
            "bytes_in": sum(sa.bytes for sa in inward),
            "bytes_out": sum(sa.bytes for sa in outward),
            "packets_in": sum(sa.packets for sa in inward),
            "packets_out": sum(sa.packets for sa in outward),
            **_UNKNOWN,
        }
    return entries


def _idleness(peer: Peer | None, now: float) -> dict[str, Any]:
    """Seconds since the last packet of each direction, None where unknown; one-way traffic."""
    return {
        "idle_in": _idle(peer.inward, now) if peer else None,
        "idle_out": _idle(peer.outward, now) if peer else None,
        "one_way": peer.one_way if peer else "",
    }


def _idle(way: Way, now: float) -> int | None:
    return max(int(now - way.last), 0) if way.last else None
