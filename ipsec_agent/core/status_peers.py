"""The status document's peers: SAs as charon lists them, traffic as the kernel counts it."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from ipsec_agent.core.model import Address, Desired, address_order
from ipsec_agent.core.observed import ChildSa, IkeSa, Observed, SecurityAssociation
from ipsec_agent.core.problems.charon import SILENT
from ipsec_agent.core.problems.peer_faults import GONE, Suspect
from ipsec_agent.core.sa_details import post_quantum
from ipsec_agent.core.traffic import Peer, Way, by_peer

_UNKNOWN = {
    "ike_algorithms": "",
    "esp_algorithms": "",
    "post_quantum": None,
    "own_identity": "",
    "handshake": None,
    "rekey_in": None,
    "ike_rekey_in": None,
    "spi_in": "",
    "spi_out": "",
    "encapsulated": False,
}
"""What only charon tells."""

_UNSEEN = {"sequence_in": 0, "sequence_out": 0, "extended": False}
"""What only the kernel tells."""

Sas = tuple[list[SecurityAssociation], list[SecurityAssociation]]
"""The kernel's SAs of a peer: those that come from it, and those that go there."""


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
    told = {ip_address(one.peer): (one.code, one.told) for one in suspects if one.code}
    listed, kernel = _by_remote(observed), by_peer(observed.states, desired.addresses)
    entries = {
        **{address: _without_sas(code) for address, (code, _) in told.items()},
        **{address: _of_charon(sas, kernel.get(address)) for address, sas in listed.items()},
        **_of_kernel_alone(observed, {one: it for one, it in kernel.items() if one not in listed}),
    }
    return [
        {
            "address": str(address),
            **entry,
            **_idleness(known.get(address), observed.time),
            **_problem(*told.get(address, ("", 0.0)), observed.time),
        }
        for address, entry in sorted(entries.items(), key=lambda item: address_order(item[0]))
    ]


def _without_sas(code: str) -> dict[str, Any]:
    return {
        "state": {SILENT: "silent", GONE: "gone"}.get(code, "refused"),
        **_UNKNOWN,
        **_UNSEEN,
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


def _of_charon(sas: list[IkeSa], kernel: Sas | None) -> dict[str, Any]:
    """Both initiated at once: then there is more than one CHILD_SA, which is counted."""
    children = [child for sa in sas for child in sa.children]
    installed = [child for child in children if child.state == "INSTALLED"]
    newest = max(sas, key=lambda sa: sa.unique_id)
    child = max(installed, key=_number) if installed else None
    return {
        "state": "installed" if installed else max(sas, key=lambda sa: sa.age).state.lower(),
        **_negotiated(newest, child),
        "handshake": _handshake(sas),
        **(_sequences(kernel, child) if kernel else _UNSEEN),
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


def _negotiated(newest: IkeSa, child: ChildSa | None) -> dict[str, Any]:
    """What protects the traffic, and for how long."""
    return {
        **_UNKNOWN,
        "ike_algorithms": newest.algorithms,
        "post_quantum": post_quantum(newest.algorithms) if newest.algorithms else None,
        "own_identity": newest.details.local_id,
        "ike_rekey_in": newest.details.rekey_in,
        **({} if child is None else _protecting(child)),
    }


def _protecting(child: ChildSa) -> dict[str, Any]:
    return {
        "esp_algorithms": child.algorithms,
        "rekey_in": child.details.rekey_in,
        "spi_in": f"{child.spi_in:08x}",
        "spi_out": f"{child.spi_out:08x}",
        "encapsulated": child.details.encapsulated,
    }


def _handshake(sas: list[IkeSa]) -> int | None:
    """Seconds since anything was last negotiated with success."""
    ages = [sa.age for sa in sas if sa.state == "ESTABLISHED"]
    ages += [child.age for sa in sas for child in sa.children if child.state == "INSTALLED"]
    return min(ages, default=None)


def _sequences(kernel: Sas, child: ChildSa | None) -> dict[str, Any]:
    """How many numbers of packets are used: of an SA of charon's, or of those of the kernel."""
    spis = None if child is None else {child.spi_in, child.spi_out}
    into, out = ([sa.sequence for sa in sas if spis is None or sa.spi in spis] for sas in kernel)
    return {
        "sequence_in": max((one.newest for one in into), default=0),
        "sequence_out": max((one.newest for one in out), default=0),
        "extended": any(one.extended for one in (*into, *out)),
    }


def _of_kernel_alone(
    observed: Observed, peers: Mapping[Address, Sas]
) -> dict[Address, dict[str, Any]]:
    """Peers whose traffic runs on SAs that charon does not list."""
    charon = observed.charon
    answered = charon is not None and charon.responsive
    entries = {}
    for address, (inward, outward) in peers.items():
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
            **_newest_spis(inward, outward),
            **_sequences((inward, outward), None),
        }
    return entries


def _newest_spis(
    inward: list[SecurityAssociation], outward: list[SecurityAssociation]
) -> dict[str, Any]:
    spis = [
        f"{max(sas, key=lambda sa: sa.added).spi:08x}" if sas else "" for sas in (inward, outward)
    ]
    udp = any(sa.encapsulated for sa in (*inward, *outward))
    return {"spi_in": spis[0], "spi_out": spis[1], "encapsulated": udp}


def _problem(code: str, when: float, now: float) -> dict[str, Any]:
    """What fails with a peer, and seconds since that was told last, None where nothing does."""
    return {"problem": code, "problem_age": max(int(now - when), 0) if code else None}


def _idleness(peer: Peer | None, now: float) -> dict[str, Any]:
    """Seconds since the last packet of each direction, None where unknown; one-way traffic."""
    return {
        "idle_in": _idle(peer.inward, now) if peer else None,
        "idle_out": _idle(peer.outward, now) if peer else None,
        "one_way": peer.one_way if peer else "",
    }


def _idle(way: Way, now: float) -> int | None:
    return max(int(now - way.last), 0) if way.last else None
