"""`status PEER`: all that is known of one peer, or why an address is none."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from ipsec_agent.core.commands import About
from ipsec_agent.core.sa_details import EXTENDED_SEQUENCES, SEQUENCES, key_exchanges
from ipsec_agent.core.status_view import BY_ESP, Condition, PeerView, peers
from ipsec_agent.core.words import duration, lasting, mentions, moment, several, size
from ipsec_agent.errors import ControlError
from ipsec_agent.verbs import status_events
from ipsec_agent.verbs.status_peers import OTHER_CERTIFICATE, ago
from ipsec_agent.verbs.status_text import certificate, problem_lines, shown

OUTAGES = 3
"""Outages of a peer that are shown."""

SEE_PEERS = "`ipsec-agent status --peers` shows the peers"


def the_peer(status: dict[str, Any], text: str) -> PeerView:
    """The peer with an address.

    Raises:
        ControlError: it is that of no peer; it says why.
    """
    address = str(ip_address(text))
    if "charon" not in status:
        raise ControlError(
            "the agent has not looked at its peers yet",
            hint="wait a moment: `ipsec-agent status --wait running`",
        )
    found = next((one for one in peers(status) if one.address == address), None)
    if found is None:
        raise _no_peer(status, address)
    return found


def _no_peer(status: dict[str, Any], address: str) -> ControlError:
    # Here, for what is needed of a peer is less.
    from ipsec_agent.core.verify_status import Lists  # noqa: PLC0415

    peer = ip_address(address)
    own = (ip_address(one) for one in status.get("addresses", ()))
    source = next((one for one in own if one.version == peer.version), None)
    pair = Lists.of(status).pair(peer, source)
    if pair.encrypted:
        return ControlError(
            f"there is no SA with {address}, and nothing has failed; packets to it travel as ESP",
            hint=f"`ipsec-agent verify {address}` sends it some; {SEE_PEERS}",
        )
    plan = About(config=status.get("config", "")).command(f"ipsec-agent plan --to {address}")
    return ControlError(
        f"{address} is not a peer: {pair.because}",
        hint=f"`{plan}` shows how packets travel; {SEE_PEERS}",
    )


def text(status: dict[str, Any], view: PeerView) -> str:
    """The peer for a person; empty lines of what is not known are left out."""
    now = status["time"]
    kind = "by ESP" if view.condition in BY_ESP else "NOT BY ESP"
    how = [view.clear_says] if view.condition is Condition.CLEAR else [kind, view.clear_says]
    lines = [f"{view.address}  {', '.join(filter(None, [view.condition.value, *how]))}"]
    for problem in _problems(status, view):
        lines += problem_lines(problem, now)
    lines += [f"{name:14} {says}" for name, says in _facts(status, view) if says]
    if found := status_events.of_peer(status, view.address):
        lines += ["events", *(f"  {line}" for line in status_events.lines(found))]
    return shown(lines)


def as_json(status: dict[str, Any], view: PeerView) -> dict[str, Any]:
    """What `status PEER --json` prints."""
    return {
        "schema": status["schema"],
        "time": status["time"],
        "peer": {"address": view.address, "condition": view.condition, **view.entry},
        "problems": _problems(status, view),
        "connections": _connections(status, view),
        "events": status_events.of_peer(status, view.address),
        "outages": _outages(status, view),
    }


def _problems(status: dict[str, Any], view: PeerView) -> list[dict[str, Any]]:
    return [one for one in status["problems"] if mentions(one["message"], view.address)]


def _connections(status: dict[str, Any], view: PeerView) -> list[dict[str, Any]]:
    """The connections whose subnet has the peer."""
    peer = ip_address(view.address)
    return [one for one in status["connections"] if peer in ip_network(one["remote"])]


def _facts(status: dict[str, Any], view: PeerView) -> Iterator[tuple[str, str]]:
    peer = view.entry
    if peer.get("ike_sas") or peer.get("child_sas"):
        yield "ESP", _esp(peer)
        yield "key exchange", _exchange(peer)
        yield "this VM is", peer.get("own_identity", "")
        yield "the peer is", _identity(status, peer)
        yield "certificate", _certificate(peer)
        yield "SAs", _sas(peer)
        yield "negotiated", _times(peer)
        yield "sequence", _sequence(peer)
    if peer.get("packets_in", 0) + peer.get("packets_out", 0) or peer.get("child_sas"):
        yield "received", _way(peer, "in")
        yield "sent", _way(peer, "out")
    for one in _connections(status, view):
        state = "enforced" if one["enforced"] else "NOT IN THE KERNEL"
        yield "policy", f"{one['action']}, {one['name']}, {state}"
    yield "proof", _proof(peer.get("proof"), status["time"])
    for one in _outages(status, view):
        begin = moment(one["begin"])
        when = f"from {begin} until {moment(one['end'])}" if one["end"] else f"since {begin}"
        yield "cut off", f"{when}: {one['reason']}"


def _proof(found: dict[str, Any] | None, now: float) -> str:
    """What `agent.proof` saw last."""
    if found is None:
        return ""
    before = f"{duration(now - found['time'])} ago"
    return f"{before}, {found['verdict']}{'' if found['proven'] else ': ' + found['message']}"


def _outages(status: dict[str, Any], view: PeerView) -> list[dict[str, Any]]:
    """The newest."""
    return [one for one in status.get("outages", ()) if one["peer"] == view.address][-OUTAGES:]


def _esp(peer: dict[str, Any]) -> str:
    if not peer["child_sas"]:
        return f"no SA; IKE is {peer['state']}"
    udp = ", in UDP" if peer.get("encapsulated") else ""
    return f"{peer['esp_algorithms'] or 'algorithms not known'}{udp}"


def _exchange(peer: dict[str, Any]) -> str:
    names = key_exchanges(peer.get("ike_algorithms", ""))
    if not names:
        return ""
    kind = "post-quantum" if peer.get("post_quantum") else "not post-quantum"
    return f"{' + '.join(names)} ({kind}); IKE by {peer['ike_algorithms'].split('/')[0]}"


def _identity(status: dict[str, Any], peer: dict[str, Any]) -> str:
    """Who the peer is, and how long the certificate lasts with which it proved that."""
    name = peer.get("identity", "")
    theirs = [one for one in status["certificates"] if one["subject"] == name]
    left = max(
        (one["days_left"] for one in theirs if one["role"] in {"peer", "instance"}), default=None
    )
    return name if left is None else f"{name}, its certificate: {lasting(left)}"


def _certificate(peer: dict[str, Any]) -> str:
    """With which certificate of this VM the SA was made."""
    if not peer.get("certificate"):
        return ""
    state = OTHER_CERTIFICATE.get(peer["certificate_state"], "")
    ends = peer.get("ends_in")
    more = (state, f"the agent ends the SA in {duration(ends)}" if ends is not None else "")
    return ", ".join((certificate(peer), *filter(None, more)))


def _sas(peer: dict[str, Any]) -> str:
    twice = f" ({several(peer['duplicates'], 'duplicate')})" if peer["duplicates"] else ""
    spis = (
        f", SPI {peer['spi_in']} in, {peer['spi_out'] or 'none'} out" if peer.get("spi_in") else ""
    )
    return f"{peer['ike_sas']} of IKE, {peer['child_sas']} of ESP{twice}{spis}"


def _times(peer: dict[str, Any]) -> str:
    said = []
    if peer.get("handshake") is not None:
        said.append(f"last {duration(peer['handshake'])} ago")
    if peer["child_sas"]:
        said.append(f"the ESP SA is {duration(peer['age'])} old")
    for key, what in (("rekey_in", "next ESP SA"), ("ike_rekey_in", "next IKE_SA")):
        if peer.get(key) is not None:
            said.append(f"{what} in {duration(peer[key])}")
    return ", ".join(said)


def _sequence(peer: dict[str, Any]) -> str:
    """How many of the sequence numbers are used; at their end an SA carries nothing."""
    if "extended" not in peer or not peer["child_sas"]:
        return ""
    limit, shown_as = (EXTENDED_SEQUENCES, "2^64") if peer["extended"] else (SEQUENCES, "2^32")
    into, out = peer["sequence_in"], peer["sequence_out"]
    part = max(into, out) / limit
    return f"{into} in, {out} out of {shown_as} numbers used ({part:.1%})"


def _way(peer: dict[str, Any], way: str) -> str:
    only = ", ONE WAY: none the other way" if peer.get("one_way") == way else ""
    packets = several(peer[f"packets_{way}"], "packet")
    return f"{size(peer[f'bytes_{way}'])} in {packets}, last {ago(peer.get(f'idle_{way}'))}{only}"
