"""XFRM messages to and from the agent's records, by `struct` (linux/xfrm.h); no socket."""

import errno
import functools
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple, TypeVar

from ipsec_agent.core.esp import Algorithm, DummySa, Use
from ipsec_agent.core.model import Address, Direction, Narrowing, Network, PolicySelector
from ipsec_agent.core.observed import Policy, SecurityAssociation
from ipsec_agent.core.sa_details import Sequence
from ipsec_agent.errors import KernelError
from ipsec_agent.host.decoded import Decoded
from ipsec_agent.host.rtnetlink import attributes
from ipsec_agent.host.understood import understood
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


_SELECTOR = "16s16s4HHBBBxxxiI"
_POLICY = struct.Struct(f"={_SELECTOR}64x4QIIBB6x")
POLICY_USED = slice(*(struct.calcsize(f"={_SELECTOR}64x{counters}Q") for counters in (3, 4)))
"""Where a policy has the time of its last packet, which no record has: it changes with traffic."""

_SA = struct.Struct(f"={_SELECTOR}16sIBxxx16s64x4Q16xIHBxB7x")


class _PolicyInfo(NamedTuple):
    """`struct xfrm_userpolicy_info`, without its limits; ports are in network order."""

    to: bytes
    by: bytes
    to_port: int
    to_mask: int
    by_port: int
    by_mask: int
    family: int
    to_prefix: int
    by_prefix: int
    upper: int
    link: int
    user: int
    bytes: int
    packets: int
    added: int
    used: int
    priority: int
    number: int
    direction: int
    action: int


class _SaInfo(NamedTuple):
    """`struct xfrm_usersa_info`, without limits and error counters; the SPI is in network order."""

    to: bytes
    by: bytes
    to_port: int
    to_mask: int
    by_port: int
    by_mask: int
    selected: int
    to_prefix: int
    by_prefix: int
    upper: int
    link: int
    user: int
    destination: bytes
    spi: int
    protocol: int
    source: bytes
    bytes: int
    packets: int
    added: int
    used: int
    reqid: int
    family: int
    mode: int
    flags: int


_SA_ID = struct.Struct("=16sIHBx")
"""`struct xfrm_usersa_id`."""

ENCAP, TEMPLATES, REPLAY, LAST_USED, MARK, REPLAY_ESN, IF_ID = 4, 5, 10, 15, 21, 23, 31
"""XFRMA_*: attributes. Those that carry keys are not looked at."""

T = TypeVar("T")


def records(known: Decoded[T], bodies: Iterable[bytes]) -> tuple[T, ...]:
    """The records of a whole dump.

    Raises:
        KernelError: a message is none of this kernel's kind.
    """
    with _understood():
        return known.all(bodies)


def _understood() -> AbstractContextManager[None]:
    return understood(
        lambda error: KernelError(
            f"cannot understand the kernel's IPsec messages: {error}",
            code=errno.EBADMSG,
            hint="this kernel may be newer than this agent",
        )
    )


def policy_of(body: bytes) -> Policy | None:
    """A policy of a dump; None where it is one socket's."""
    info = _PolicyInfo._make(_POLICY.unpack_from(body))
    if info.direction not in _DIRECTIONS:
        return None
    found = dict(attributes(body[_POLICY.size :]))
    templates = unpack_templates(found.get(TEMPLATES, b""))
    carried = [one for one in templates if (one.protocol, one.mode) == (ESP, MODE_TRANSPORT)]
    return Policy(
        selector=PolicySelector(
            direction=Direction(info.direction),
            source=_network(info.by, info.by_prefix, info.family),
            destination=_network(info.to, info.to_prefix, info.family),
            protocol=info.upper,
            # The kernel compares (port XOR wanted) AND mask: mask 0 is any port.
            source_port=socket.ntohs(info.by_port & info.by_mask),
            destination_port=socket.ntohs(info.to_port & info.to_mask),
        ),
        priority=info.priority,
        esp=any(not template.optional for template in carried),
        blocks=info.action == ACTION_BLOCK,
        optional=len(templates) == 1 and any(template.optional for template in carried),
        reqid=templates[0].reqid if templates else 0,
        index=info.number,
        added=info.added,
        tunnel=_tunnel(Direction(info.direction), templates),
        narrowed=_narrowed(found, info.link),
    )


def _narrowed(found: Mapping[int, bytes], link: int = 0) -> Narrowing | None:
    """What a policy or an SA asks of packets besides (`struct xfrm_mark`, XFRMA_IF_ID)."""
    value, mask = struct.unpack("=II", found.get(MARK, bytes(8)))
    (interface,) = struct.unpack("=I", found.get(IF_ID, bytes(4)))
    if not mask and not interface and not link:
        return None
    return Narrowing(value, mask, interface, link)


def _tunnel(direction: Direction, templates: tuple[Template, ...]) -> Address | None:
    for template in templates:
        if template.mode != MODE_TRANSPORT:
            out = direction is Direction.OUT
            return _address(template.destination if out else template.source, template.family)
    return None


def state_of(body: bytes) -> SecurityAssociation | None:
    """An SA of a dump, without its keys; None where it is not ESP, a dummy, or none of charon's.

    Of charon's none has a mark or an interface: only one of a route-based VPN does. Beside it there
    may be another one of the same destination and SPI.
    """
    info = _SaInfo._make(_SA.unpack_from(body))
    if info.protocol != ESP or _is_dummy(info.destination, info.spi, info.family):
        return None
    found = dict(attributes(body[_SA.size :]))
    if _narrowed(found) is not None:
        return None
    return SecurityAssociation(
        source=_address(info.source, info.family),
        destination=_address(info.destination, info.family),
        spi=socket.ntohl(info.spi),
        reqid=info.reqid,
        bytes=info.bytes,
        packets=info.packets,
        added=info.added,
        first_used=info.used,
        last_used=int.from_bytes(found.get(LAST_USED, b""), sys.byteorder),
        encapsulated=any(found.get(ENCAP, b"")[:2]),
        between_hosts=info.mode == MODE_TRANSPORT and _selects_its_hosts(info),
        sequence=Sequence(_newest(found), bool(info.flags & EXTENDED)),
    )


def _newest(found: Mapping[int, bytes]) -> int:
    """The highest sequence number (`struct xfrm_replay_state_esn`, `struct xfrm_replay_state`)."""
    plain = bytes(4) + found.get(REPLAY, bytes(8))[:8] + bytes(8)
    numbers: tuple[int, ...] = struct.unpack_from("=4I", found.get(REPLAY_ESN, plain), 4)
    out, into, more_out, more_in = numbers
    return max(more_out << 32 | out, more_in << 32 | into)


def _selects_its_hosts(info: _SaInfo) -> bool:
    """Whether an SA's selector is exactly its own two addresses."""
    size = _SIZE.get(info.family, 0)
    return (
        info.selected == info.family
        and info.to_prefix == info.by_prefix == size * 8
        and info.to[:size] == info.destination[:size]
        and info.by[:size] == info.source[:size]
    )


def default_blocks(body: bytes) -> tuple[Direction, ...]:
    """Where packets that no policy selects are blocked (struct xfrm_userpolicy_default).

    Raises:
        KernelError: it is no such message.
    """
    with _understood():
        into, forward, out = body[:3]
    actions = {Direction.IN: into, Direction.OUT: out, Direction.FWD: forward}
    # linux/xfrm.h: XFRM_USERPOLICY_BLOCK.
    return tuple(one for one in Direction if actions[one] == ACTION_BLOCK)


def matters(kind: int, body: bytes) -> bool:
    """Whether an event calls for a look: larval SAs come and go with every silent peer.

    A dummy SA never does, whoever tries with it what the kernel can do.

    Raises:
        KernelError: it is no such message.
    """
    with _understood():
        return _matters(kind, body)


def _matters(kind: int, body: bytes) -> bool:
    if kind == Kind.DELETE_SA:
        destination, spi, family, _ = _SA_ID.unpack_from(body)
        return not _is_dummy(destination, spi, family)
    if kind == Kind.EXPIRE:
        # struct xfrm_user_expire: the SA, and whether it has ended by it.
        info = _SaInfo._make(_SA.unpack_from(body))
        ended = body[_SA.size] != 0 and info.spi != 0
        return ended and not _is_dummy(info.destination, info.spi, info.family)
    return kind not in {Kind.NEW_SA, Kind.UPDATE_SA, Kind.ACQUIRE}


def policy_deletion(policy: Policy | PolicySelector) -> PolicyId:
    """The request that deletes a policy: the very one that was read, or the one with a selector."""
    selector = policy.selector if isinstance(policy, Policy) else policy
    message = PolicyId()
    message.update(selector_fields(selector))
    message["dir"] = int(selector.direction)
    # With an index the kernel takes that policy, whatever else makes up its identity.
    message["index"] = policy.index if isinstance(policy, Policy) else 0
    return message


def state_deletion(destination: Address, spi: int) -> SaId:
    """The request that deletes an ESP SA."""
    message = SaId()
    message["daddr"] = _raw(destination)
    message["spi"] = spi
    message["family"] = family_of(destination)
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
    message["family"] = message["sel_family"] = family_of(own)
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


_DIRECTIONS = frozenset(int(one) for one in Direction)
_SIZE = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}
"""Bytes of an address by its family."""

_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


def _is_dummy(destination: bytes, spi: int, family: int) -> bool:
    """Whether an SA is one that only tries what the kernel can do."""
    return socket.ntohl(spi) in RESERVED_SPIS and _address(destination, family).is_loopback


def _algorithm(one: Algorithm, key: bytes) -> tuple[str, bytes]:
    match one.use:
        case Use.AEAD:
            return "XFRMA_ALG_AEAD", pack_algorithm(one.name, key, one.icv)
        case Use.CIPHER:
            return "XFRMA_ALG_CRYPT", pack_algorithm(one.name, key)
        case Use.INTEGRITY:
            return "XFRMA_ALG_AUTH_TRUNC", pack_algorithm(one.name, key, one.icv)


def selector_fields(selector: PolicySelector) -> dict[str, int | bytes]:
    """A selector as the fields of a message."""
    return {
        "sel_daddr": _raw(selector.destination.network_address),
        "sel_saddr": _raw(selector.source.network_address),
        "sel_dport": selector.destination_port,
        "sel_dport_mask": ALL_BITS if selector.destination_port else 0,
        "sel_sport": selector.source_port,
        "sel_sport_mask": ALL_BITS if selector.source_port else 0,
        "sel_family": family_of(selector.destination.network_address),
        "sel_prefixlen_d": selector.destination.prefixlen,
        "sel_prefixlen_s": selector.source.prefixlen,
        "sel_proto": selector.protocol,
    }


# Addresses and networks are few and come again and again; to make one takes some microseconds.
@functools.lru_cache(maxsize=8192)
def _address(raw: bytes, family: int) -> Address:
    return IPv6Address(raw) if family == socket.AF_INET6 else IPv4Address(raw[:4])


@functools.lru_cache(maxsize=8192)
def _network(raw: bytes, prefix: int, family: int) -> Network:
    return ip_network((_address(raw, family), prefix), strict=False)


def _raw(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def family_of(address: Address) -> int:
    """The kernel's number of an address's family."""
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
