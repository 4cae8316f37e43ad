"""XFRM messages to and from the agent's records; no socket."""

import enum
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from msgspec import Struct

from ipsec_agent.core.esp import Algorithm, DummySa, Use
from ipsec_agent.core.model import Address, Direction, Network, PolicySelector
from ipsec_agent.core.observed import Policy, SecurityAssociation
from ipsec_agent.host.xfrm_messages import (
    Kind,
    NewSa,
    PolicyId,
    SaId,
    Template,
    pack_algorithm,
    pack_extended_window,
    unpack_templates,
)

ESP = socket.IPPROTO_ESP
MODE_TRANSPORT = 0
ACTION_BLOCK = 1
ALL_BITS = 0xFFFF

RESERVED_SPIS = range(1, 256)
"""Nobody negotiates these (RFC 4303, 2.1)."""

DUMMY_SPI, DUMMY_LIFE = 255, 2
"""SPI of a dummy SA, and the seconds after which the kernel ends it by itself."""

TIMES = ("soft_add_expires_seconds", "soft_use_expires_seconds", "hard_use_expires_seconds")
"""The limits in seconds that a dummy SA does not have."""

EXTENDED = 128
"""XFRM_STATE_ESN."""

IN_UDP, IKE_PORT = 2, 4500
"""UDP_ENCAP_ESPINUDP, and the port that ESP shares with IKE then."""


class XfrmEventKind(enum.StrEnum):
    """What happened to a policy or an SA."""

    POLICY_ADDED = "policy added"
    POLICY_UPDATED = "policy updated"
    POLICY_DELETED = "policy deleted"
    POLICY_EXPIRED = "policy expired"
    POLICIES_FLUSHED = "policies flushed"
    SA_ADDED = "sa added"
    SA_UPDATED = "sa updated"
    SA_DELETED = "sa deleted"
    SA_EXPIRED = "sa expired"
    SAS_FLUSHED = "sas flushed"
    OTHER = "other"


_KINDS = {
    Kind.NEW_POLICY: XfrmEventKind.POLICY_ADDED,
    Kind.UPDATE_POLICY: XfrmEventKind.POLICY_UPDATED,
    Kind.DELETE_POLICY: XfrmEventKind.POLICY_DELETED,
    Kind.POLICY_EXPIRE: XfrmEventKind.POLICY_EXPIRED,
    Kind.FLUSH_POLICY: XfrmEventKind.POLICIES_FLUSHED,
    Kind.NEW_SA: XfrmEventKind.SA_ADDED,
    Kind.UPDATE_SA: XfrmEventKind.SA_UPDATED,
    Kind.DELETE_SA: XfrmEventKind.SA_DELETED,
    Kind.EXPIRE: XfrmEventKind.SA_EXPIRED,
    Kind.FLUSH_SA: XfrmEventKind.SAS_FLUSHED,
}


class XfrmEvent(Struct, frozen=True):
    """One event of the kernel.

    Attributes:
        selector: of the policy, None for SAs, flushes and policies that no PolicySelector tells.
        spi: of the SA, 0 for policies and larval SAs.
        hard: an expiry that ended the SA.
    """

    kind: XfrmEventKind
    selector: PolicySelector | None = None
    spi: int = 0
    hard: bool = False


def policy_of(message: Any) -> Policy | None:
    """A policy of a dump; None where no PolicySelector tells what it applies to."""
    selector = selector_of(message)
    if selector is None:
        return None
    templates = unpack_templates(message.get_attr("XFRMA_TMPL") or b"")
    return Policy(
        selector=selector,
        priority=message["priority"],
        esp=any(
            template.protocol == ESP and template.mode == MODE_TRANSPORT and not template.optional
            for template in templates
        ),
        blocks=message["action"] == ACTION_BLOCK,
        optional=any(template.optional for template in templates),
        reqid=templates[0].reqid if templates else 0,
        index=message["index"],
        added=message["add_time"],
        tunnel=_tunnel(selector.direction, templates),
    )


def _tunnel(direction: Direction, templates: tuple[Template, ...]) -> Address | None:
    for template in templates:
        if template.mode != MODE_TRANSPORT:
            out = direction is Direction.OUT
            return _address(template.destination if out else template.source, template.family)
    return None


def state_of(message: Any) -> SecurityAssociation | None:
    """An SA of a dump, without its keys; None where it is not ESP, or a dummy."""
    if message["proto"] != ESP or _is_dummy(message):
        return None
    encapsulation = message.get_attr("XFRMA_ENCAP")
    source = _address(message["saddr"], message["family"])
    destination = _address(message["daddr"], message["family"])
    return SecurityAssociation(
        source=source,
        destination=destination,
        spi=message["spi"],
        reqid=message["reqid"],
        bytes=message["bytes"],
        packets=message["packets"],
        added=message["add_time"],
        first_used=message["use_time"],
        last_used=message.get_attr("XFRMA_LASTUSED") or 0,
        encapsulated=encapsulation is not None and encapsulation["type"] != 0,
        between_hosts=message["mode"] == MODE_TRANSPORT
        and message["sel_family"] == message["family"]
        and _network(message["sel_saddr"], message["sel_prefixlen_s"], message["family"])
        == ip_network(source)
        and _network(message["sel_daddr"], message["sel_prefixlen_d"], message["family"])
        == ip_network(destination),
    )


def default_blocks(message: Any) -> tuple[Direction, ...]:
    """Where packets that no policy selects are blocked."""
    # linux/xfrm.h: XFRM_USERPOLICY_BLOCK.
    return tuple(one for one in Direction if message[one.name.lower()] == ACTION_BLOCK)


def event_of(message: Any) -> XfrmEvent:
    """What an event is about."""
    kind = _KINDS.get(message["header"]["type"], XfrmEventKind.OTHER)
    match kind:
        case XfrmEventKind.POLICY_ADDED | XfrmEventKind.POLICY_UPDATED:
            return XfrmEvent(kind, selector=selector_of(message))
        case XfrmEventKind.POLICY_DELETED:
            # Deleted by index, the id names no selector: the whole policy inside does.
            return XfrmEvent(
                kind, selector=selector_of(message.get_attr("XFRMA_POLICY") or message)
            )
        case XfrmEventKind.SA_ADDED | XfrmEventKind.SA_UPDATED | XfrmEventKind.SA_DELETED:
            return XfrmEvent(kind, spi=message["spi"])
        case XfrmEventKind.SA_EXPIRED:
            return XfrmEvent(kind, spi=message["spi"], hard=bool(message["hard"]))
        case _:
            return XfrmEvent(kind)


def matters(message: Any) -> bool:
    """Whether an event calls for a look: larval SAs come and go with every silent peer.

    A dummy SA never does, whoever tries with it what the kernel can do.
    """
    kind = message["header"]["type"]
    if kind in {Kind.EXPIRE, Kind.DELETE_SA} and _is_dummy(message):
        return False
    if kind == Kind.EXPIRE:
        return bool(message["hard"]) and message["spi"] != 0
    return kind not in {Kind.NEW_SA, Kind.UPDATE_SA, Kind.ACQUIRE}


def selector_of(message: Any) -> PolicySelector | None:
    """A policy's selector; None where a socket, mark, interface or link narrows it."""
    if message["dir"] not in tuple(Direction) or message["sel_ifindex"]:
        return None
    if message.get_attr("XFRMA_IF_ID") or (message.get_attr("XFRMA_MARK") or {}).get("mask"):
        return None
    family = message["sel_family"]
    return PolicySelector(
        direction=Direction(message["dir"]),
        source=_network(message["sel_saddr"], message["sel_prefixlen_s"], family),
        destination=_network(message["sel_daddr"], message["sel_prefixlen_d"], family),
        protocol=message["sel_proto"],
        # The kernel compares (port XOR wanted) AND mask: mask 0 is any port.
        source_port=message["sel_sport"] & message["sel_sport_mask"],
        destination_port=message["sel_dport"] & message["sel_dport_mask"],
    )


def policy_deletion(policy: Policy | PolicySelector) -> PolicyId:
    """The request that deletes a policy: the very one that was read, or the one with a selector."""
    selector = policy.selector if isinstance(policy, Policy) else policy
    message = PolicyId()
    message.update(_selector_fields(selector))
    message["dir"] = int(selector.direction)
    # With an index the kernel takes that policy, whatever else makes up its identity.
    message["index"] = policy.index if isinstance(policy, Policy) else 0
    return message


def state_deletion(destination: Address, spi: int) -> SaId:
    """The request that deletes an ESP SA."""
    message = SaId()
    message["daddr"] = _raw(destination)
    message["spi"] = spi
    message["family"] = _family(destination)
    message["proto"] = ESP
    return message


def dummy_sa(sa: DummySa, random: Callable[[int], bytes]) -> NewSa:
    """The request that adds a dummy SA, in transport mode, which ends by itself.

    Args:
        random: makes so many bytes, for its keys.
    """
    own = _LOOPBACK[sa.version]
    message = NewSa()
    message["daddr"] = message["saddr"] = _raw(own)
    message["spi"], message["proto"], message["mode"] = DUMMY_SPI, ESP, MODE_TRANSPORT
    message["family"] = message["sel_family"] = _family(own)
    # Of seconds 0 is without limit; all ones would be over at once (xfrm_state.c).
    message.update(dict.fromkeys(TIMES, 0), hard_add_expires_seconds=DUMMY_LIFE)
    attributes: list[tuple[str, bytes | dict[str, int]]] = [
        _algorithm(one, random(one.key // 8)) for one in sa.algorithms
    ]
    if sa.encapsulated:
        ports = {"type": IN_UDP, "sport": IKE_PORT, "dport": IKE_PORT}
        attributes.append(("XFRMA_ENCAP", ports))
    if sa.extended:
        message["flags"] = EXTENDED
        attributes.append(("XFRMA_REPLAY_ESN_VAL", pack_extended_window()))
    message["attrs"] = attributes
    return message


def dummy_deletion(version: int) -> SaId:
    """The request that deletes the dummy SA of a family, 4 or 6."""
    return state_deletion(_LOOPBACK[version], DUMMY_SPI)


_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


def _is_dummy(message: Any) -> bool:
    """Whether an SA is one that only tries what the kernel can do."""
    return (
        message["spi"] in RESERVED_SPIS
        and _address(message["daddr"], message["family"]).is_loopback
    )


def _algorithm(one: Algorithm, key: bytes) -> tuple[str, bytes]:
    match one.use:
        case Use.AEAD:
            return "XFRMA_ALG_AEAD", pack_algorithm(one.name, key, one.icv)
        case Use.CIPHER:
            return "XFRMA_ALG_CRYPT", pack_algorithm(one.name, key)
        case Use.INTEGRITY:
            return "XFRMA_ALG_AUTH_TRUNC", pack_algorithm(one.name, key, one.icv)


def _selector_fields(selector: PolicySelector) -> dict[str, int | bytes]:
    return {
        "sel_daddr": _raw(selector.destination.network_address),
        "sel_saddr": _raw(selector.source.network_address),
        "sel_dport": selector.destination_port,
        "sel_dport_mask": ALL_BITS if selector.destination_port else 0,
        "sel_sport": selector.source_port,
        "sel_sport_mask": ALL_BITS if selector.source_port else 0,
        "sel_family": _family(selector.destination.network_address),
        "sel_prefixlen_d": selector.destination.prefixlen,
        "sel_prefixlen_s": selector.source.prefixlen,
        "sel_proto": selector.protocol,
    }


def _address(raw: bytes, family: int) -> Address:
    return IPv6Address(raw) if family == socket.AF_INET6 else IPv4Address(raw[:4])


def _network(raw: bytes, prefix: int, family: int) -> Network:
    return ip_network((_address(raw, family), prefix), strict=False)


def _raw(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _family(address: Address) -> int:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
