"""What a packet on the wire is: nothing that is clear is taken for ESP, IKE or quiet."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.wire import Kind, kind_of

A, B = ip_address("10.0.0.5"), ip_address("10.0.0.9")
SIX = ip_address("fd00::5"), ip_address("fd00::9")


def ip4(protocol: int, rest: bytes, flags: int = 0) -> bytes:
    """An IPv4 packet from A to B."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(rest), 0, flags, 64, protocol, 0)
    return head + A.packed + B.packed + rest


def ip6(protocol: int, rest: bytes) -> bytes:
    """The same of IPv6."""
    head = struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64)
    return head + SIX[0].packed + SIX[1].packed + rest


def udp(source: int, destination: int, rest: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source, destination, 8 + len(rest), 0) + rest


IKE = bytes(17) + b"\x20" + bytes(6) + struct.pack("!I", 28)
REFUSED = b"\x03\x03" + bytes(6) + ip4(17, udp(500, 500, b""))


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (ip4(50, bytes(40)), Kind.ESP),
        (ip6(50, bytes(40)), Kind.ESP),
        (ip6(0, b"\x32\x00" + bytes(6) + bytes(40)), Kind.ESP),
        (ip4(50, bytes(40), flags=0x0010), Kind.ESP),
        (ip4(17, udp(4500, 4500, b"\x01\x02\x03\x04" + bytes(40))), Kind.ESP),
        (ip4(17, udp(500, 500, IKE)), Kind.IKE),
        (ip4(17, udp(4500, 4500, bytes(4) + IKE)), Kind.IKE),
        (ip4(17, udp(4500, 4500, b"\xff")), Kind.IKE),
        (ip4(17, udp(500, 500, b"secret" + bytes(60))), Kind.CLEAR),
        (ip4(17, udp(4500, 4500, bytes(4) + b"secret" + bytes(60))), Kind.CLEAR),
        (ip4(17, udp(4500, 53, b"\x01\x02\x03\x04")), Kind.CLEAR),
        (ip4(17, udp(53, 500, IKE)), Kind.CLEAR),
        (ip4(1, b"\x08" + bytes(30)), Kind.CLEAR),
        (ip4(6, bytes(20)), Kind.CLEAR),
        (ip6(58, b"\x80" + bytes(30)), Kind.CLEAR),
        (ip6(58, b"\x87" + bytes(30)), Kind.QUIET),
        (ip6(44, b"\x11\x00\x00\x09" + bytes(40)), Kind.QUIET),
        (ip4(17, bytes(40), flags=0x0010), Kind.QUIET),
        (ip4(1, REFUSED), Kind.CLOSED),
        (ip4(1, b"\x03\x03" + bytes(6) + ip4(17, udp(40000, 53, b""))), Kind.CLEAR),
        (ip4(1, b"\x0b" + REFUSED[1:]), Kind.CLEAR),
        (ip6(58, b"\x01\x04" + bytes(6) + ip6(17, udp(4500, 4500, b""))), Kind.CLOSED),
        (b"", Kind.QUIET),
    ],
)
def test_kinds(packet: bytes, kind: Kind) -> None:
    """Each is what its headers say, whatever port it uses."""
    assert kind_of(packet)[0] is kind


def test_names() -> None:
    """What travels in clear is named."""
    assert kind_of(ip4(6, bytes(20))) == (Kind.CLEAR, "TCP")
    assert kind_of(ip4(47, bytes(20))) == (Kind.CLEAR, "protocol 47")


@given(st.binary(max_size=128))
def test_whatever_comes(packet: bytes) -> None:
    """No packet breaks it."""
    assert kind_of(packet)[0] in Kind
