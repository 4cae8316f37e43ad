"""Packets whose header does not name those that count: mapped addresses and source routes."""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import pytest
from msgspec.structs import replace

from ipsec_agent.core.closed_table import CLOSED
from ipsec_agent.core.guard import Guard
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    GUARD,
    PLAIN4,
    PLAIN6,
    PROMISE,
    A,
    B,
    Capture,
    arrived,
    ipv6,
    load,
    program,
    receiver,
    run,
    send_ip,
    send_udp,
    silent,
    table,
    udp_header,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

ONLY_FOUR = Guard(replace(PROMISE, ipsec=PROMISE.ipsec[:1], no_ipsec=PROMISE.no_ipsec[:1]))
MAPPED_A, MAPPED_B = (str(IPv6Address(f"::ffff:{own}")) for own in (A4, B4))
CLEAR = udp_header((500, 500), b"clear")
"""IKE's ports: the closed table lets pass nothing else that could be told from nothing at all."""

OPTIONS = bytes([43, 3, 0x1E, 28]) + bytes(28)
"""An IPv6 header of 32 bytes to be skipped (RFC 8200, 4.2), and then one of routing."""

LOOSE, STRICT = 131, 137
ROUTED4 = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes.fromhex(sys.argv[3]))
s.bind(("", int(sys.argv[4])))
s.sendto(b"clear", (sys.argv[1], int(sys.argv[4]) or 9))
"""
ROUTED6 = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, bytes.fromhex(sys.argv[3]))
s.bind(("::", int(sys.argv[4])))
s.sendto(b"clear", (sys.argv[1], int(sys.argv[4]) or 9))
"""

Load = Callable[[str], None]


def close(ns: str) -> None:
    """Load the closed table."""
    run("nft", "-f", "-", ns=ns, text=CLOSED)


GUARDS = [load, partial(load, guard=ONLY_FOUR), close]


def source_route(kind: int) -> str:
    """To B's clear address, and on to the one that is encrypted (RFC 791, 3.1)."""
    return (bytes([1, kind, 7, 4]) + IPv4Address(PLAIN4).packed).hex()


def routing_header(behind: int = 0) -> str:
    """The same for IPv6 (RFC 8754, 2): the last segment first, none of both visited yet.

    Args:
        behind: the protocol of what comes behind it, which a socket sets itself.
    """
    segments = IPv6Address(B6).packed + IPv6Address(PLAIN6).packed
    return (bytes([behind, 4, 4, 1, 1, 0, 0, 0]) + segments).hex()


def send(version: int, kind: int, *, port: int = 0, user: int = 0) -> bool:
    """Send along the detour; False where the guard forbids it."""
    if version == 4:
        return program(A, ROUTED4, B4, "", source_route(kind), str(port), user=user)
    return program(A, ROUTED6, B6, "", routing_header(), str(port), user=user)


@contextlib.contextmanager
def detour() -> Iterator[None]:
    """B follows source routes and routing headers."""
    for name in ("all", "b0"):
        run("sysctl", "-qw", f"net.ipv4.conf.{name}.accept_source_route=1", ns=B)
        run("sysctl", "-qw", f"net.ipv6.conf.{name}.seg6_enabled=1", ns=B)
    yield


@pytest.mark.parametrize(
    ("version", "kind", "port", "user"),
    [(4, LOOSE, 500, 0), (4, STRICT, 500, 0), (6, 0, 500, 0), (6, 0, 0, 65534)],
)
@pytest.mark.parametrize("guard", [load, close])
def test_no_detour_leaves(  # noqa: PLR0917 - a row of the table each
    wire: Capture, guard: Load, version: int, kind: int, port: int, user: int
) -> None:
    """The header names a clear address, the option the encrypted one."""
    source, hop = {4: (A4, PLAIN4), 6: (A6, PLAIN6)}[version]
    assert send(version, kind, port=port, user=user)
    assert len(wire.between(source, hop, 1)) == 1
    guard(A)

    assert not send(version, kind, port=port, user=user)
    assert not wire.between(source, hop)


@pytest.mark.parametrize(
    ("version", "kind", "target"), [(4, LOOSE, B4), (4, STRICT, B4), (6, 0, B6)]
)
@pytest.mark.parametrize("guard", [load, close])
def test_no_detour_is_heard(guard: Load, version: int, kind: int, target: str) -> None:
    """At its clear address B would take what is for its encrypted one."""
    with detour(), receiver(B, target, 500) as at_b:
        send(version, kind, port=500)
        assert arrived(at_b) == b"clear"
        guard(B)

        send(version, kind, port=500)

        assert silent(at_b)


@pytest.mark.parametrize("cut", [8, len(OPTIONS)], ids=["cut", "left out"])
@pytest.mark.parametrize("guard", [load, close])
def test_no_detour_hides_in_a_later_fragment(wire: Capture, guard: Load, cut: int) -> None:
    """A first fragment that does not have all headers leaves the routing header to the next one."""
    whole = OPTIONS + bytes.fromhex(routing_header(17)) + _checked(A6, B6)

    def send_cut() -> bool:
        # The offset counts in units of 8 bytes above the flag that more fragments follow.
        sent = [
            send_ip(A, PLAIN6, ipv6(A6, PLAIN6, 44, struct.pack("!BBHI", 60, 0, *field) + part))
            for field, part in (((1, 7), whole[:cut]), ((cut, 7), whole[cut:]))
        ]
        return sent[0]

    with detour(), receiver(B, B6, 500) as at_b:
        assert send_udp(A, A6, PLAIN6)
        assert send_cut()
        assert arrived(at_b) == b"clear"
        guard(B)
        assert send_cut()
        assert silent(at_b)
    wire.packets()
    guard(A)
    assert not send_cut()
    assert not [seen for seen in wire.between(A6, PLAIN6) if seen.raw[42:44] == b"\0\1"]


def test_detours_are_counted() -> None:
    """At both ends, without a peer's name, which could be anybody's."""
    load(A)
    load(B)

    send(4, LOOSE)
    assert (table(A).disguised_out, table(A).dropped_out) == (1, 1)
    run("nft", "delete", "table", "inet", "ipsec_agent", ns=A)
    send(6, 0)
    assert (table(B).disguised_in, table(B).dropped_in) == (1, 1)


@pytest.mark.parametrize(
    ("source", "target"), [(MAPPED_A, MAPPED_B), (A6, MAPPED_B), (MAPPED_A, B6), (MAPPED_A, PLAIN6)]
)
@pytest.mark.parametrize("guard", GUARDS)
def test_no_mapped_address_leaves(wire: Capture, guard: Load, source: str, target: str) -> None:
    """Whatever the other address is, and where only IPv4 is encrypted, too."""
    packet = ipv6(source, target, 17, CLEAR)
    assert send_ip(A, B6, packet)
    assert len(wire.between(source, target, 1)) == 1
    guard(A)

    assert not send_ip(A, B6, packet)
    assert not wire.between(source, target)


@pytest.mark.parametrize("guard", GUARDS)
def test_no_mapped_address_is_heard(guard: Load) -> None:
    """A dual-stack socket would take it for IPv4; as a source the kernel refuses it, too."""
    run("ip", "addr", "add", f"{MAPPED_B}/128", "dev", "b0", "nodad", ns=B)
    with receiver(B, "::", 500) as at_b:
        send_ip(A, B6, ipv6(A6, MAPPED_B, 17, _checked(A6, MAPPED_B)))
        assert arrived(at_b) == b"clear", "without a guard it is heard"
        guard(B)

        send_ip(A, B6, ipv6(A6, MAPPED_B, 17, _checked(A6, MAPPED_B)))
        send_ip(A, B6, ipv6(MAPPED_A, B6, 17, _checked(MAPPED_A, B6)))

        assert silent(at_b)


def test_optional_counts_mapped_addresses(wire: Capture) -> None:
    """And lets them through, as all else."""
    load(A, replace(GUARD, enforce=False))

    assert send_ip(A, B6, ipv6(A6, MAPPED_B, 17, CLEAR))
    assert len(wire.between(A6, MAPPED_B, 1)) == 1
    assert table(A).disguised_out == 1


def _checked(source: str, target: str) -> bytes:
    """CLEAR with the checksum that IPv6 asks for (RFC 8200, 8.1)."""
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed
    pseudo += len(CLEAR).to_bytes(4, "big") + bytes([0, 0, 0, socket.IPPROTO_UDP])
    text = pseudo + CLEAR + bytes(len(CLEAR) % 2)
    total = sum(int.from_bytes(text[at : at + 2], "big") for at in range(0, len(text), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return CLEAR[:6] + (total ^ 0xFFFF).to_bytes(2, "big") + CLEAR[8:]
