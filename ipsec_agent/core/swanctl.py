"""A connection in VICI's words (swanctl.conf(5)), and the fingerprint of what was loaded."""

import hashlib
from collections.abc import Iterator
from typing import Any

from ipsec_agent.core import handover
from ipsec_agent.core.credential_set import set_of
from ipsec_agent.core.derived import derived
from ipsec_agent.core.model import (
    Action,
    Child,
    Connection,
    Credentials,
    IkeSettings,
    TrafficSelector,
)

IPV6 = 6
ICMPV6 = 58
PROTOCOLS = {ICMPV6: "ipv6-icmp"}

IKE_REKEY, CHILD_REKEY = "4h", "1h"
"""As later versions of the add-on: far below the sequence numbers' end at any rate a VM reaches."""

MARKED = ":"
"""Stands between a connection's digest and the mark of its set of certificates."""

REPLAY_WINDOW = 2048
"""Packets by which one may be overtaken: the CPUs of a VM, and the queues of its NIC, reorder what
one SA carries by far more than the 32 of charon's default, and what comes later is lost. The kernel
takes up to 4,096 (XFRMA_REPLAY_ESN_MAX in linux/xfrm.h); an SA has a bit for each."""


def connection_message(connection: Connection) -> dict[str, Any]:
    """What load-conn is given: dicts, lists, text and bytes only."""
    body = _own_part(connection)
    if connection.settings is not None:
        body |= _negotiation(connection.settings)
    return {connection.name: body}


def _own_part(connection: Connection) -> dict[str, Any]:
    return {
        "version": "2",
        "local_addrs": [_anywhere(connection)],
        "remote_addrs": _peers(connection),
        "children": {
            name: body
            for child in connection.children
            for name, body in _with_later(child, connection.settings)
        },
    }


def _with_later(
    child: Child, settings: IkeSettings | None, levels: int = handover.LEVELS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A child, and behind a trap those that answer for an SA that is not sent on at first."""
    body = _child(child, settings)
    yield child.name, body
    for level in range(1, levels + 1) if settings is not None else ():
        yield (
            handover.answering(child.name, level),
            {
                **body,
                **_labelled(level),
                "start_action": "none",
                "priority": str(handover.priority(child, level)),
            },
        )


def _labelled(level: int) -> dict[str, str]:
    return {"label": handover.label(level), "label_mode": "simple"}


def renewal_message(connection: Connection) -> dict[str, Any]:
    """What load-conn is given for a connection with one peer, which is initiated, not trapped.

    A connection whose remote address is one host comes before the ones for any (strongSwan,
    peer_cfg selection by quality of the match), for this VM alone and only while it is loaded.
    So it is the one that answers where the peer begins in that moment, too, and it has what answers
    for a second SA as a trap has it. That comes before the child that asks with the same label: of
    equal ones charon takes the first (peer_cfg.c: select_child_cfg).
    """
    ordinary, *asking = connection.children
    levels = max([handover.LEVELS, *(child.level for child in asking)])
    children = {
        **dict(_with_later(ordinary, connection.settings, levels)),
        **{
            child.name: _child(child, connection.settings) | _labelled(child.level)
            for child in asking
        },
    }
    return {
        connection.name: {
            **connection_message(connection)[connection.name],
            "local_addrs": [str(ordinary.local.network.network_address)],
            "remote_addrs": [str(connection.remote.network_address)],
            "children": {name: {**one, "start_action": "none"} for name, one in children.items()},
        }
    }


def fingerprint(connection: Connection) -> str:
    """SHA-256, hex, of the message: what charon was given, certificates included.

    Behind it stands the mark of the set of certificates, so that what is remembered of a
    connection tells which one it was loaded with.
    """
    settings = connection.settings
    parts = (
        connection.name,
        _own_part(connection),
        _digest(settings) if settings is not None else "",
    )
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return digest if settings is None else f"{digest}{MARKED}{set_of(settings).mark}"


def set_mark(fingerprint: str) -> str:
    """The mark of the set of certificates behind a fingerprint, "" where it has none."""
    return fingerprint.partition(MARKED)[2]


@derived
def _digest(settings: IkeSettings) -> str:
    """Of what all connections of a config share, and which is most of it."""
    return hashlib.sha256(repr(_negotiation(settings)).encode()).hexdigest()


def credentials_mark(credentials: Credentials) -> str:
    """SHA-256, hex, of what `LoadKey` gives to charon, without the key itself."""
    parts = (credentials.key_id.encode(), *credentials.intermediates)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _anywhere(connection: Connection) -> str:
    """Where IKE may come from: for a shunt nowhere.

    A responder would else select the shunt's connection for a peer, as it matches every address and
    identity, and refuse the peer since it knows no authentication (seen with 5.9.8).

    For a trap the unspecified address; not `%any`, which is an address of either family, nor
    `%any6`, which charon asks the resolver for when a peer has an IPv4 address (5.9.8: host.c,
    ike_cfg.c).
    """
    ipv6 = connection.remote.version == IPV6
    if connection.settings is None:
        return "::1" if ipv6 else "127.0.0.1"
    return "::" if ipv6 else "0.0.0.0"  # noqa: S104 - binds nothing


def _peers(connection: Connection) -> list[str]:
    """Any peer, and those of the connection's subnet before all others.

    A responder knows only a peer's address when it chooses a connection, and a child
    only within that (ike_auth.c, child_create.c). It takes the one whose subnet is the narrowest
    (ike_cfg.c: match), as the kernel takes the trap. The unspecified address keeps the trap one for
    any peer (trap_manager.c).
    """
    anywhere = _anywhere(connection)
    return [anywhere] if connection.settings is None else [anywhere, str(connection.remote)]


def _negotiation(settings: IkeSettings) -> dict[str, Any]:
    body: dict[str, Any] = {
        "mobike": "no",
        # All VMs of a deployment share one identity: any other policy ends each other's SAs.
        "unique": "never",
        "encap": _yes(settings.force_encapsulation),
        "dpd_delay": f"{settings.dpd_delay}s",
        "rekey_time": IKE_REKEY,
        "local": {"auth": "pubkey", "certs": [settings.certificate]},
        "remote": {"auth": "pubkey", "cacerts": list(settings.authorities)},
    }
    if settings.ike_proposals:
        body["proposals"] = list(settings.ike_proposals)
    return body


def _child(child: Child, settings: IkeSettings | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "mode": "pass" if child.action is Action.PASS else "transport",
        "local_ts": [_selector(child.local)],
        "remote_ts": [_selector(child.remote)],
        "start_action": "trap",
    }
    if settings is not None:
        # The trap stays by itself; a dead peer's SA only has to end.
        body |= {
            "dpd_action": "clear",
            "rekey_time": CHILD_REKEY,
            "replay_window": str(REPLAY_WINDOW),
        }
        if child.reqid:
            body["reqid"] = str(child.reqid)
        if settings.esp_proposals:
            body["esp_proposals"] = list(settings.esp_proposals)
    return body


def _selector(selector: TrafficSelector) -> str:
    if not selector.protocol:
        return str(selector.network)
    protocol = PROTOCOLS.get(selector.protocol, str(selector.protocol))
    port = f"/{selector.port}" if selector.port else ""
    return f"{selector.network}[{protocol}{port}]"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
