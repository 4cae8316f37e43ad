"""What an Ethernet frame is to the judge: ESP, IKE, neither of them, or no traffic between VMs.

The judge is strict: what only uses IKE's ports is clear, and so is whatever it cannot explain.
"""

import enum
import functools
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
UDP, ESP, FRAGMENT, ICMPV6 = 17, 50, 44, 58
EXTENSIONS = {0, 43, 60}
"""Hop-by-hop, routing and destination options: (length + 1) * 8 bytes (RFC 8200, section 4)."""

NEIGHBOUR = range(133, 138)
"""ICMPv6 types of neighbour discovery (RFC 4861, section 4)."""

LISTENER = {130, 131, 132, 143}
"""ICMPv6 types of multicast listener discovery (RFC 2710, RFC 3810)."""

IKE_VERSION = 0x20
SNAP = 256
"""Bytes of a frame that are enough to judge it, planted packets included."""


class Kind(enum.StrEnum):
    """What a frame is to the judge."""

    ESP = "esp"
    IKE = "ike"
    CLEAR = "clear"
    OTHER = "other"  # ARP, neighbour discovery, and what is no IP


Key = tuple[str, str, Kind]
"""Source, destination and kind."""


@dataclass(slots=True)
class Reader:
    """Tells the kind of one frame after another; it remembers what the first fragments were.

    Attributes:
        encapsulated: ESP in UDP is ESP here, because the lab's config forces encapsulation; if
            not, what is no IKE on port 4500 is clear.
    """

    encapsulated: bool = False
    _first: dict[bytes, Kind] = field(default_factory=dict)

    def kind(self, frame: bytes) -> Key:
        """Source, destination and kind of an Ethernet frame, of which SNAP bytes are enough."""
        if frame[12:14] == IPV4 and len(frame) >= 34:
            # Most frames are this, and the lab's guest is slow.
            if frame[23] == ESP:
                return _text(frame[26:30]), _text(frame[30:34]), Kind.ESP
            kind = self._version_4(frame)
            return _text(frame[26:30]), _text(frame[30:34]), kind
        if frame[12:14] == IPV6 and len(frame) >= 54:
            return _text(frame[22:38]), _text(frame[38:54]), self._version_6(frame)
        return "", "", Kind.OTHER

    def _version_4(self, frame: bytes) -> Kind:
        start = 14 + (frame[14] & 15) * 4
        flags = int.from_bytes(frame[20:22])
        if frame[23] != UDP:
            return Kind.CLEAR
        return self._fragment(
            frame[26:34] + frame[18:20], flags & 0x1FFF, flags & 0x2000, frame[start:]
        )

    def _version_6(self, frame: bytes) -> Kind:
        protocol, at = frame[20], 54
        while protocol in EXTENSIONS and at + 2 <= len(frame):
            protocol, at = frame[at], at + (frame[at + 1] + 1) * 8
        pieces = 0, 0, b""
        if protocol == FRAGMENT and at + 8 <= len(frame):
            offset = int.from_bytes(frame[at + 2 : at + 4])
            pieces = offset & 0xFFF8, offset & 1, frame[at + 4 : at + 8]
            protocol, at = frame[at], at + 8
        if protocol == ESP:
            return Kind.ESP
        if protocol == ICMPV6 and at < len(frame) and not pieces[0]:
            quiet = frame[at] in NEIGHBOUR or (frame[at] in LISTENER and frame[38] == 0xFF)
            return Kind.OTHER if quiet else Kind.CLEAR
        if protocol != UDP:
            return Kind.CLEAR
        return self._fragment(frame[22:54] + pieces[2], pieces[0], pieces[1], frame[at:])

    def _fragment(self, datagram: bytes, offset: int, more: int, udp: bytes) -> Kind:
        """The kind of a UDP packet; a later fragment is what the first of its datagram was."""
        if offset:
            return self._first.get(datagram, Kind.CLEAR)
        kind = self._udp(udp)
        if more:
            self._first[datagram] = kind
        return kind

    def _udp(self, udp: bytes) -> Kind:
        if len(udp) < 9:
            return Kind.CLEAR
        ports, length = udp[:4], int.from_bytes(udp[4:6]) - 8
        if ports == struct.pack("!HH", 500, 500):
            return Kind.IKE if _is_ike(udp[8:], length) else Kind.CLEAR
        if ports != struct.pack("!HH", 4500, 4500):
            return Kind.CLEAR
        # RFC 3948, section 2: a NAT keepalive; IKE behind four zero bytes; else ESP.
        if length == 1 and udp[8] == 0xFF:
            return Kind.IKE
        if udp[8:12] == bytes(4):
            return Kind.IKE if _is_ike(udp[12:], length - 4) else Kind.CLEAR
        return Kind.ESP if self.encapsulated else Kind.CLEAR


def _is_ike(message: bytes, length: int) -> bool:
    """Whether it has the header of IKEv2, which names its own length (RFC 7296, section 3.1)."""
    return (
        len(message) >= 28
        and message[17] == IKE_VERSION
        and int.from_bytes(message[24:28]) == length
    )


@functools.cache
def _text(address: bytes) -> str:
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))
