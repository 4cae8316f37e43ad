"""The guard and who sends from an address in no list: free only on the link that has it."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import exempt_update
from tests.kernel.guard_lab import (
    A4,
    B4,
    B6,
    C4,
    GATE4,
    PLAIN4,
    PLAIN6,
    PROMISE,
    A,
    B,
    C,
    Capture,
    arrived,
    link,
    load,
    program,
    receiver,
    run,
    send_udp,
    table,
)
from tests.lab.namespaces import await_links

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

GATE6, LO4, LO6, NOBODYS = "fd88::1", "192.168.79.1", "fd79::1", "fd99::9"
LISTED_NOBODYS = "fd77:9::77"
"""In a no-ipsec subnet."""

FREEBIND = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, 78, 1)
s.bind((sys.argv[1], 0))
s.sendto(b"clear", (sys.argv[2], 9))
"""
FREEBIND_STREAM = """
import socket, sys
s = socket.socket(socket.AF_INET6)
s.settimeout(0.3)
s.setsockopt(socket.IPPROTO_IPV6, 78, 1)
s.bind((sys.argv[1], 0))
try: s.connect((sys.argv[2], 9))
except ConnectionRefusedError: pass
"""
PKTINFO_FREEBIND = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, 78, 1)
s.sendmsg([b"clear"], [(41, 50, bytes.fromhex(sys.argv[3]))], 0, (sys.argv[2], 9))
"""
PKTINFO = """
import socket, sys
four = ":" not in sys.argv[2]
s = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
control = (0, 8) if four else (41, 50)
s.sendmsg([b"clear"], [(*control, bytes.fromhex(sys.argv[3]))], 0, (sys.argv[2], 9))
"""
BIND = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.sendto(b"clear", (sys.argv[2], 9))
"""
STREAM = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET)
s.settimeout(0.3)
s.bind((sys.argv[1], 0))
try: s.connect((sys.argv[2], 9))
except ConnectionRefusedError: pass
"""


@pytest.fixture(autouse=True)
def addresses(guarded: None) -> None:
    """What A has on other links than its uplink, and a kernel that lets 127.0.0.0/8 out."""
    run("ip", "addr", "add", f"{GATE6}/64", "dev", "ac0", "nodad", ns=A)
    run("ip", "addr", "add", f"{LO4}/32", "dev", "lo", ns=A)
    run("ip", "addr", "add", f"{LO6}/128", "dev", "lo", ns=A)
    run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", ns=A)
    # An ARP request from 127.0.0.1 is not answered.
    assert send_udp(A, A4, B4)


def send(code: str, source: str, target: str) -> bool:
    """Send as an ordinary user; False where the guard forbids it."""
    address = IPv6Address(source) if ":" in source else IPv4Address(source)
    info = struct.pack("=i4s4s", 0, address.packed, bytes(4))
    if address.version == 6:
        info = struct.pack("=16si", address.packed, 0)
    return program(A, code, source, target, info.hex(), user=65534)


@pytest.mark.parametrize(
    ("code", "source", "target"),
    [
        (FREEBIND, NOBODYS, B6),
        (FREEBIND, "::1", B6),
        (FREEBIND, GATE6, B6),
        (BIND, "::1", B6),
        (BIND, GATE6, B6),
        (BIND, LO6, B6),
        (BIND, "127.0.0.1", B4),
        (BIND, "127.7.7.7", B4),
        (BIND, GATE4, B4),
        (BIND, LO4, B4),
        (PKTINFO, GATE4, B4),
        (PKTINFO, LO4, B4),
        (PKTINFO, GATE6, B6),
        (PKTINFO, "::1", B6),
        (STREAM, GATE4, B4),
        (STREAM, GATE6, B6),
    ],
)
def test_an_address_that_the_link_does_not_have(
    wire: Capture, code: str, source: str, target: str
) -> None:
    """Whatever a program sends from there to an encrypted address is clear, and named as such."""
    send(code, source, target)
    # A connection that nobody answers is asked for again after a second.
    assert wire.between(source, target, 1), "it leaves without a guard"
    load(A)

    assert not send(code, source, target)

    assert not wire.between(source, target)
    found = table(A)
    assert [str(peer.address) for peer in found.misplaced] == [source]
    assert found.dropped_out == found.misplaced[0].packets >= 1
    assert (found.clear_out, found.untranslated) == ((), ())


@pytest.mark.parametrize(
    ("source", "target"), [(GATE4, PLAIN4), (GATE6, PLAIN6), (LO4, PLAIN4), (LO6, PLAIN6)]
)
def test_to_who_may_have_it_clear(wire: Capture, source: str, target: str) -> None:
    """To a no-ipsec subnet an own address of any link speaks."""
    load(A)

    assert send(BIND, source, target)
    assert len(wire.between(source, target, 1)) == 1
    assert table(A).misplaced == ()


@pytest.mark.parametrize(("source", "target"), [(LO4, B4), (LO6, B6)])
def test_a_listed_source_speaks_clear(wire: Capture, source: str, target: str) -> None:
    """A virtual address on lo in a no-ipsec subnet is what the operator wants in clear."""
    listed = (*PROMISE.no_ipsec, ip_network(LO4), ip_network(LO6))
    load(A, Guard(replace(PROMISE, no_ipsec=listed)))

    assert send(BIND, source, target)
    assert len(wire.between(source, target, 1)) == 1


@pytest.mark.parametrize("code", [FREEBIND, FREEBIND_STREAM, PKTINFO_FREEBIND])
def test_a_listed_source_that_this_vm_does_not_have(wire: Capture, code: str) -> None:
    """A program chose it: also in a no-ipsec subnet nobody else's address speaks from here."""
    send(code, LISTED_NOBODYS, B6)
    assert wire.between(LISTED_NOBODYS, B6, 1), "it leaves without a guard"
    load(A)

    assert not send(code, LISTED_NOBODYS, B6)

    assert not wire.between(LISTED_NOBODYS, B6)
    assert [str(peer.address) for peer in table(A).misplaced] == [LISTED_NOBODYS]


def test_a_listed_source_is_forwarded(wire: Capture) -> None:
    """What a container has there is its own: it goes on as before."""
    run("ip", "addr", "add", f"{LISTED_NOBODYS}/128", "dev", "c0", "nodad", ns=C)
    run("ip", "addr", "add", "fd88::2/64", "dev", "c0", "nodad", ns=C)
    run("ip", "route", "add", f"{B6}/128", "via", GATE6, "src", LISTED_NOBODYS, ns=C)
    run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", ns=A)
    load(A)

    assert send_udp(C, LISTED_NOBODYS, B6)
    assert len(wire.between(LISTED_NOBODYS, B6, 1)) == 1
    assert table(A).misplaced == ()


@pytest.mark.parametrize(("source", "target"), [("192.168.78.1", B4), ("fd78::1", B6)])
def test_an_address_of_the_link_speaks_clear(wire: Capture, source: str, target: str) -> None:
    """A VM that is in no list has the role clear, and goes on as before."""
    run("ip", "addr", "add", source, "dev", "a0", *["nodad"][: ":" in source], ns=A)
    load(A)

    assert send(BIND, source, target)
    assert len(wire.between(source, target, 1)) == 1
    assert [str(peer.address) for peer in table(A).untranslated] == [source]


def test_to_its_own_container_a_vm_speaks_from_any_address() -> None:
    """The link of a container is not judged, also if the container's address is encrypted."""
    run("ip", "addr", "add", "10.77.5.5/32", "dev", "c0", ns=C)
    run("ip", "route", "add", "10.77.5.5/32", "dev", "ac0", ns=A)
    run("ip", "addr", "add", "192.168.78.1/32", "dev", "a0", ns=A)
    load(A, more=exempt_update([link(A, "ac0")]))

    with receiver(C, "10.77.5.5") as at_c:
        assert send(BIND, "192.168.78.1", "10.77.5.5")
        assert arrived(at_c) == b"clear"
    assert table(A).misplaced == ()


def test_what_a_judged_bridge_passes_on_is_not_sent_from_here() -> None:
    """With bridge-nf-call-iptables such a packet has no input link, and yet another sender."""
    run("ip", "link", "add", "br0", "type", "bridge", ns=A)
    run("ip", "link", "set", "br0", "up", ns=A)
    run("ip", "link", "set", "ac0", "master", "br0", ns=A)
    run("ip", "link", "add", "ad0", "netns", A, "type", "veth", "peer", "b1", "netns", B)
    run("ip", "link", "set", "ad0", "up", "master", "br0", ns=A)
    run("ip", "link", "set", "b1", "up", ns=B)
    run("ip", "addr", "add", "10.77.5.6/32", "dev", "b1", ns=B)
    await_links(A, "ac0", "ad0")
    await_links(B, "b1")
    run("ip", "route", "add", f"{C4}/32", "dev", "b1", ns=B)
    run("ip", "route", "add", "10.77.5.6/32", "dev", "c0", ns=C)
    run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1", ns=A)
    load(A)

    with receiver(B, "10.77.5.6") as other:
        send_udp(C, C4, "10.77.5.6")
        assert arrived(other) == b"clear"
    found = table(A)
    assert [str(peer.address) for peer in found.untranslated] == [C4]
    assert found.dropped_out == 0


def test_the_kernels_own_answers_are_held_too() -> None:
    """An echo reply is sent by no program: from an address of another link it does not leave."""
    run("ip", "route", "add", f"{GATE4}/32", "via", A4, ns=B)
    ping = ("ping", "-c", "1", "-W", "1", "-I", B4, GATE4)
    run(*ping, ns=B)
    load(A)

    with pytest.raises(AssertionError):
        run(*ping, ns=B)
    assert [str(peer.address) for peer in table(A).misplaced] == [GATE4]
