"""What an IP packet on the wire is between two encrypted addresses: ESP, IKE, clear, or neither.

What only uses IKE's ports is clear. A later fragment of a UDP datagram tells nothing: the first one
was judged.
"""

import enum

ESP, UDP, ICMP, ICMPV6 = 50, 17, 1, 58
IKE, NATT = 500, 4500
"""UDP ports; on the second one ESP travels, too (RFC 3948)."""

NEIGHBOUR = range(130, 138)
"""ICMPv6 types by which a link finds its neighbours and listeners (RFC 4861, RFC 2710)."""

LISTENERS = 143
ERRORS = {ICMP: 3, ICMPV6: 1}
"""Types of "destination unreachable" (RFC 792, RFC 4443), which quote the packet."""

QUOTED = 8
IP4, IP6 = 4, 6
HEADER_4, HEADER_6, HEADER_UDP, HEADER_IKE = 20, 40, 8, 28
EXTENSIONS = frozenset({0, 43, 60})
"""IPv6 headers of (length + 1) * 8 bytes (RFC 8200, section 4)."""

FRAGMENT = 44
IKE_VERSION = 0x20
NAMES = {ICMP: "ICMP", 6: "TCP", UDP: "UDP", ICMPV6: "ICMPv6"}


class Kind(enum.StrEnum):
    """What a packet is."""

    ESP = "esp"
    IKE = "ike"
    CLEAR = "clear"
    CLOSED = "closed"
    """An ICMP error that refuses IKE: nobody listens there."""

    QUIET = "quiet"
    """What is no traffic between two VMs, such as neighbour discovery, or tells nothing."""


def kind_of(packet: bytes) -> tuple[Kind, str]:
    """The kind of a packet that begins with its IP header, and what is in it, such as TCP.

    Args:
        packet: 96 bytes are enough.
    """
    version = packet[0] >> 4 if packet else 0
    if version == IP4 and len(packet) >= HEADER_4:
        offset = int.from_bytes(packet[6:8]) & 0x1FFF
        protocol, rest = packet[9], packet[(packet[0] & 15) * 4 :]
    elif version == IP6 and len(packet) >= HEADER_6:
        protocol, offset, rest = _payload_6(packet)
    else:
        return Kind.QUIET, ""
    return _kind(protocol, rest, later=offset > 0), NAMES.get(protocol, f"protocol {protocol}")


def _payload_6(packet: bytes) -> tuple[int, int, bytes]:
    """Protocol, offset of the fragment, and what is behind the headers."""
    protocol, at, offset = packet[6], HEADER_6, 0
    while protocol in EXTENSIONS and at + 2 <= len(packet):
        protocol, at = packet[at], at + (packet[at + 1] + 1) * 8
    if protocol == FRAGMENT and at + 8 <= len(packet):
        protocol, offset, at = packet[at], int.from_bytes(packet[at + 2 : at + 4]) & ~7, at + 8
    return protocol, offset, packet[at:]


def _kind(protocol: int, rest: bytes, *, later: bool) -> Kind:
    if protocol == ESP:
        return Kind.ESP
    if protocol in ERRORS and not later and _refuses_ike(protocol, rest):
        return Kind.CLOSED
    if protocol == ICMPV6 and rest and not later:
        quiet = rest[0] in NEIGHBOUR or rest[0] == LISTENERS
        return Kind.QUIET if quiet else Kind.CLEAR
    if protocol != UDP:
        return Kind.CLEAR
    return Kind.QUIET if later else _udp(rest)


def _refuses_ike(protocol: int, message: bytes) -> bool:
    quoted = message[QUOTED:]
    if message[:1] != bytes([ERRORS[protocol]]) or len(quoted) < HEADER_4:
        return False
    four = quoted[0] >> 4 == IP4
    inner, at = (quoted[9], (quoted[0] & 15) * 4) if four else (quoted[6], HEADER_6)
    return inner == UDP and int.from_bytes(quoted[at + 2 : at + 4]) in {IKE, NATT}


def _udp(datagram: bytes) -> Kind:
    ports = int.from_bytes(datagram[:2]), int.from_bytes(datagram[2:4])
    length, inside = int.from_bytes(datagram[4:6]) - HEADER_UDP, datagram[HEADER_UDP:]
    if ports == (IKE, IKE):
        return Kind.IKE if _is_ike(inside, length) else Kind.CLEAR
    if ports != (NATT, NATT):
        return Kind.CLEAR
    if length == 1 and inside[:1] == b"\xff":
        # It keeps a NAT's entry alive.
        return Kind.IKE
    if inside[:4] == bytes(4):
        return Kind.IKE if _is_ike(inside[4:], length - 4) else Kind.CLEAR
    return Kind.ESP


def _is_ike(message: bytes, length: int) -> bool:
    """Whether it has the header of IKEv2, which names its own length (RFC 7296, section 3.1)."""
    return (
        len(message) >= HEADER_IKE
        and message[17] == IKE_VERSION
        and int.from_bytes(message[24:28]) == length
    )
