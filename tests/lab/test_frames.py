"""What the judge takes each frame for."""

import struct
from ipaddress import ip_address

import pytest

from tests.lab.frames import ESP, FRAGMENT, ICMPV6, UDP, Kind, Reader

A4, B4, A6, B6 = "10.9.0.1", "10.9.0.2", "fd09::1", "fd09::2"
TCP = 6
IKE = bytes(16) + b"\x2e\x20\x22\x08" + bytes(4) + struct.pack("!I", 60) + bytes(32)
"""A message of IKEv2 that says it has 60 bytes, and has."""


def ipv4(protocol: int, payload: bytes, *, fragment: int = 0, identity: int = 7) -> bytes:
    """A frame from A to B; fragment is the header's field: the flag 0x2000 and offset / 8."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identity, fragment, 64, protocol, 0)
    ends = ip_address(A4).packed + ip_address(B4).packed
    return bytes(12) + b"\x08\x00" + head + ends + payload


def ipv6(protocol: int, payload: bytes, *, target: str = B6) -> bytes:
    """A frame from A to B, or to another target."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    ends = ip_address(A6).packed + ip_address(target).packed
    return bytes(12) + b"\x86\xdd" + head + ends + payload


def udp(source: int, target: int, payload: bytes) -> bytes:
    """A UDP packet."""
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def kind(frame: bytes, *, encapsulated: bool = False) -> Kind:
    """What a fresh reader takes a frame for."""
    return Reader(encapsulated).kind(frame)[2]


def test_esp() -> None:
    """Protocol 50 is ESP, and its ends are read."""
    assert Reader().kind(ipv4(ESP, bytes(40))) == (A4, B4, Kind.ESP)
    assert Reader().kind(ipv6(ESP, bytes(40))) == (A6, B6, Kind.ESP)


@pytest.mark.parametrize("protocol", [1, TCP, 47, 51, 132])
def test_clear(protocol: int) -> None:
    """Everything else between two addresses is clear, AH (51) included: it does not encrypt."""
    assert kind(ipv4(protocol, bytes(40))) is Kind.CLEAR
    assert kind(ipv6(protocol, bytes(40))) is Kind.CLEAR


def test_ike() -> None:
    """IKE on port 500, behind the marker on 4500, and the keepalive of RFC 3948."""
    assert kind(ipv4(UDP, udp(500, 500, IKE))) is Kind.IKE
    assert kind(ipv6(UDP, udp(500, 500, IKE))) is Kind.IKE
    assert kind(ipv4(UDP, udp(4500, 4500, bytes(4) + IKE))) is Kind.IKE
    assert kind(ipv4(UDP, udp(4500, 4500, b"\xff"))) is Kind.IKE


@pytest.mark.parametrize(
    "packet",
    [
        udp(500, 500, b"a user's data on port 500 of both ends"),
        udp(500, 500, IKE + b"x"),
        udp(500, 500, b""),
        udp(4500, 4500, b"\0\0\0\0and then a user's data, behind the marker"),
        udp(4500, 4500, b"\x12\x34\x56\x78" + bytes(40)),
        udp(4500, 4500, b"\xff\xff"),
        udp(4500, 500, IKE),
        udp(9, 4500, IKE),
        udp(53, 53, bytes(30)),
    ],
)
def test_the_ports_of_ike_are_no_excuse(packet: bytes) -> None:
    """What only uses IKE's ports is clear."""
    assert kind(ipv4(UDP, packet)) is Kind.CLEAR


def test_esp_in_udp_only_where_it_is_forced() -> None:
    """The same packet is ESP where the lab forces encapsulation, and clear elsewhere."""
    frame = ipv4(UDP, udp(4500, 4500, b"\x12\x34\x56\x78" + bytes(40)))

    assert kind(frame, encapsulated=True) is Kind.ESP
    assert kind(frame) is Kind.CLEAR


def test_later_fragments_are_what_the_first_was() -> None:
    """They have no ports; the first fragment of the same datagram says what they are."""
    reader = Reader(encapsulated=True)
    secret = ipv4(UDP, udp(4500, 4500, b"\x12\x34\x56\x78" + bytes(40)), fragment=0x2000)
    reader.kind(secret)

    assert reader.kind(ipv4(UDP, bytes(40), fragment=6))[2] is Kind.ESP
    assert reader.kind(ipv4(UDP, bytes(40), fragment=6, identity=8))[2] is Kind.CLEAR


def test_later_fragments_of_ipv6() -> None:
    """The same behind the fragment header; a fragment of ESP is ESP by itself."""
    reader = Reader(encapsulated=True)
    first = struct.pack("!BBHI", UDP, 0, 1, 7) + udp(4500, 4500, b"\x12\x34\x56\x78" + bytes(40))
    reader.kind(ipv6(FRAGMENT, first))

    later = struct.pack("!BBHI", UDP, 0, 48, 7) + bytes(40)
    assert reader.kind(ipv6(FRAGMENT, later))[2] is Kind.ESP
    assert kind(ipv6(FRAGMENT, later)) is Kind.CLEAR
    assert kind(ipv6(FRAGMENT, struct.pack("!BBHI", ESP, 0, 48, 7) + bytes(40))) is Kind.ESP


def test_extension_headers_hide_nothing() -> None:
    """A packet behind hop-by-hop and destination options is found."""
    options = bytes([UDP, 0]) + bytes(6)
    inner = bytes([60, 0]) + bytes(6) + options + udp(500, 500, IKE)

    assert kind(ipv6(0, inner)) is Kind.IKE
    assert kind(ipv6(0, bytes([TCP, 0]) + bytes(6) + bytes(20))) is Kind.CLEAR


@pytest.mark.parametrize("number", [133, 134, 135, 136, 137])
def test_neighbour_discovery_is_no_traffic(number: int) -> None:
    """It must pass in clear, or nothing ever establishes."""
    assert kind(ipv6(ICMPV6, bytes([number]) + bytes(23))) is Kind.OTHER


def test_other_icmp_is_traffic() -> None:
    """An echo is clear, and so is a listener report that goes to one VM."""
    assert kind(ipv6(ICMPV6, bytes([128]) + bytes(23))) is Kind.CLEAR
    assert kind(ipv6(ICMPV6, bytes([143]) + bytes(23))) is Kind.CLEAR
    assert kind(ipv6(ICMPV6, bytes([143]) + bytes(23), target="ff02::16")) is Kind.OTHER


def test_no_ip() -> None:
    """ARP and short frames are no traffic between VMs."""
    assert kind(bytes(12) + b"\x08\x06" + bytes(28)) is Kind.OTHER
    assert kind(bytes(12) + b"\x08\x00") is Kind.OTHER
