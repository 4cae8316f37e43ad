"""What the guard lets pass between encrypted addresses: ESP and IKE, whole and in fragments."""

import socket
import struct

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import exempt_update
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    C4,
    GUARD,
    A,
    B,
    C,
    Capture,
    arrived,
    as_nobody,
    ipv4,
    ipv6,
    link,
    load,
    program,
    receiver,
    run,
    send_ip,
    send_raw,
    send_udp,
    silent,
    table,
    udp_header,
)
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

MARKED = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x40000000)
s.bind((sys.argv[1], 4500))
s.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[2], 4500))
"""
FREEBIND = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, 78, 1)
s.bind((sys.argv[1], 4500))
s.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[2], 4500))
"""
COUNT_MARKED = """
table inet marked { chain out {
type filter hook postrouting priority 301; meta mark != 0 udp dport 4500 counter
}; }
"""
IKE = bytes(4) + b"initiate" + bytes(20)
ESP_IN_UDP = b"\x00\x00\x10\x01" + bytes(60)
FORCED = replace(GUARD, force_encapsulation=True)
LATER = 1480


@pytest.mark.parametrize(
    ("guard", "port", "payload", "passes"),
    [
        (GUARD, 500, b"ike", True),
        (GUARD, 4500, IKE, True),
        (GUARD, 4500, ESP_IN_UDP, False),
        (GUARD, 4500, b"some user's data", False),
        (GUARD, 4500, b"\0\0", False),
        (GUARD, 4500, b"\xff", False),
        (GUARD, 501, IKE, False),
        (FORCED, 500, b"ike", True),
        (FORCED, 4500, IKE, True),
        (FORCED, 4500, ESP_IN_UDP, True),
        (FORCED, 4500, b"\xff", True),
        (FORCED, 4500, b"\xff\xff", False),
        (FORCED, 4500, b"a", False),
    ],
)
@pytest.mark.parametrize("end", [A, B], ids=["out", "in"])
def test_ports_of_ike(guard: Guard, port: int, payload: bytes, passes: bool, end: str) -> None:
    """IKE passes; port 4500 lets pass what is IKE, and ESP in UDP where that is forced."""
    load(end, guard)

    with receiver(B, B4, port) as at_b, receiver(B, B6, port) as at_b6:
        send_udp(A, A4, B4, payload, ports=(port, port))
        send_udp(A, A6, B6, payload, ports=(port, port))

        if passes:
            assert (arrived(at_b), arrived(at_b6)) == (payload, payload)
        else:
            assert silent(at_b)
            assert silent(at_b6)


@pytest.mark.parametrize("ports", [(0, 500), (0, 4500), (500, 9), (4500, 4501), (500, 4500)])
def test_only_ike_port_to_ike_port(wire: Capture, ports: tuple[int, int]) -> None:
    """A port of IKE at one end only is no IKE."""
    load(A, FORCED)

    assert not send_udp(A, A4, B4, IKE, ports=ports)
    assert not wire.between(A4, B4)


def test_another_user_is_no_ike(wire: Capture) -> None:
    """On port 4500 an ordinary user's marker opens nothing, root's does."""
    load(A)

    assert not as_nobody(A, A4, B4, IKE, 4500)
    assert not wire.between(A4, B4)
    assert send_udp(A, A4, B4, IKE, ports=(4500, 4500))
    assert len(wire.between(A4, B4, 1)) == 1


@pytest.mark.parametrize("payload", [ESP_IN_UDP, IKE, b"\xff", b"data"])
def test_another_users_data_is_no_esp_in_udp(wire: Capture, payload: bytes) -> None:
    """No content of a datagram is taken for the kernel's or charon's; with a mark neither."""
    load(A, FORCED)

    assert not as_nobody(A, A4, B4, payload, 4500)
    assert not program(A, MARKED, A4, B4, payload.hex(), user=65534)
    assert not wire.between(A4, B4)


def test_the_mark_is_the_kernels_sign(wire: Capture) -> None:
    """Who may set it is as root; on the wire's side of the chain it is gone."""
    load(A, FORCED)
    run("nft", "-f", "-", ns=A, text=COUNT_MARKED)

    assert program(A, MARKED, A4, B4, ESP_IN_UDP.hex())
    assert len(wire.between(A4, B4, 1)) == 1
    assert "packets 0" in run("nft", "list", "table", "inet", "marked", ns=A)


def test_another_user_with_a_false_source_is_no_router(wire: Capture) -> None:
    """An IPv6 source that nobody has does not make a datagram one that is only passed on."""
    load(A, FORCED)

    for payload in (IKE, ESP_IN_UDP):
        assert not program(A, FREEBIND, "fd77::99", B6, payload.hex(), user=65534)
    assert not wire.between("fd77::99", B6)


@pytest.mark.parametrize("exempt", [False, True])
@pytest.mark.parametrize("guard", [GUARD, FORCED])
@pytest.mark.parametrize("port", [500, 4500])
def test_a_containers_ike_is_not_its_vms(
    wire: Capture, guard: Guard, port: int, *, exempt: bool
) -> None:
    """What masquerade gives the VM's address was not sent by its charon, whatever it looks like."""
    for family in ("ip", "ip6"):
        nat = f"table {family} nat {{ chain post {{ type nat hook postrouting priority 100; "
        run("nft", "-f", "-", ns=A, text=nat + "oifname a0 masquerade; }; }")
    run("ip", "addr", "add", "fd88::1/64", "dev", "ac0", "nodad", ns=A)
    run("ip", "addr", "add", "fd88::2/64", "dev", "c0", "nodad", ns=C)
    run("ip", "route", "add", "default", "via", "fd88::1", ns=C)
    run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", ns=A)
    load(A, guard, more=exempt_update([link(A, "ac0")] if exempt else []))

    for payload in (IKE, ESP_IN_UDP, b"\xff"):
        send_udp(C, C4, B4, payload, ports=(port, port))
        send_udp(C, "fd88::2", B6, payload, ports=(port, port))

    assert not wire.udp()
    # A router of IPv6 joins groups, and the kernel reports that when it likes.
    found = [peer for peer in table(A).clear_out if not peer.address.is_multicast]
    assert [(str(peer.address), peer.packets) for peer in found] == [(B4, 3), (B6, 3)]


@pytest.mark.parametrize("guard", [GUARD, FORCED])
def test_a_container_with_an_encrypted_address_speaks_no_ike(wire: Capture, guard: Guard) -> None:
    """By a link of containers it is data; by any other the VM is a router, and it passes."""
    run("ip", "addr", "add", "10.77.5.5/32", "dev", "c0", ns=C)
    run("ip", "route", "add", "10.77.5.5/32", "dev", "ac0", ns=A)
    sent = ((500, IKE), (4500, IKE), *[(4500, ESP_IN_UDP)][: guard is FORCED])

    def send(expected: int) -> int:
        for port, payload in sent:
            send_udp(C, "10.77.5.5", B4, payload, ports=(port, port))
        return len(wire.between("10.77.5.5", B4, expected))

    load(A, guard)
    assert send(len(sent)) == len(sent)
    load(A, guard, more=exempt_update([link(A, "ac0")]))
    assert send(0) == 0


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_large_esp_in_udp_passes_in_fragments(wire: Capture, source: str, target: str) -> None:
    """3,000 bytes on port 4500 arrive whole, without conntrack to put them together before."""
    load(A, FORCED)
    load(B, FORCED)
    payload = ESP_IN_UDP + bytes(3000)

    with receiver(B, target, 4500) as at_b:
        send_udp(A, source, target, payload, ports=(4500, 4500))

        assert arrived(at_b) == payload
    assert len(wire.between(source, target, 3)) == 3


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_large_ike_passes_in_fragments(source: str, target: str) -> None:
    """A certificate chain in one IKE message is larger than a packet."""
    load(A)
    load(B)

    with receiver(B, target, 500) as at_b:
        send_udp(A, source, target, IKE * 100, ports=(500, 500))

        assert arrived(at_b) == IKE * 100


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_large_clear_datagrams_do_not_arrive(source: str, target: str) -> None:
    """Their first fragment is dropped and counted; the later ones alone are nothing."""
    load(B)

    with receiver(B, target) as at_b:
        send_udp(A, source, target, bytes(4000))

        assert silent(at_b)
    assert table(B).dropped_in == 1


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, socket.IPPROTO_ICMP, 97])
def test_later_fragments_of_other_protocols_are_dropped(protocol: int) -> None:
    """Only UDP needs them; a TCP fragment in clear is judged by its addresses."""
    load(B)

    assert send_ip(A, B4, ipv4(A4, B4, protocol, bytes(40), offset=LATER))

    assert [peer.packets for peer in table(B).clear_in] == [1]


def test_later_fragments_that_look_like_ike_do_not_leave(wire: Capture) -> None:
    """A container's fragment, whose data looks like a UDP header of IKE, is clear data."""
    load(A, FORCED)
    run("ip", "addr", "add", "10.77.5.5/32", "dev", "c0", ns=C)
    run("ip", "route", "add", "10.77.5.5/32", "dev", "ac0", ns=A)
    fragment = ipv4("10.77.5.5", B4, 17, udp_header((4500, 4500), IKE), offset=LATER)

    assert send_ip(C, B4, fragment)

    assert not wire.between("10.77.5.5", B4)
    assert table(A).dropped_out + table(A).dropped_in == 1


def test_a_tiny_first_fragment_is_no_ike(wire: Capture) -> None:
    """A first fragment that ends before the marker cannot be seen to be IKE."""
    load(A)
    packet = bytearray(ipv4(A4, B4, 17, struct.pack("!HHHH", 4500, 4500, 900, 0)))
    packet[6:8] = b"\x20\x00"  # more fragments

    assert not send_ip(A, B4, bytes(packet))
    assert not wire.between(A4, B4)


def test_ip_options_hide_nothing(wire: Capture) -> None:
    """A longer IPv4 header moves the ports, and is judged all the same."""
    load(A)
    datagram = udp_header((500, 9), b"clear")
    packet = bytearray(ipv4(A4, B4, 17, b"\x01\x01\x01\x00" + datagram))
    packet[0] = 0x46
    ike = bytearray(ipv4(A4, B4, 17, b"\x01\x01\x01\x00" + udp_header((500, 500), b"ike")))
    ike[0] = 0x46

    assert not send_ip(A, B4, bytes(packet))
    assert send_ip(A, B4, bytes(ike))
    assert len(wire.between(A4, B4, 1)) == 1


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_esp_passes(wire: Capture, source: str, target: str) -> None:
    """Protocol 50 passes in both directions, large ones in fragments, too."""
    load(A)
    load(B)

    with (
        inside(B),
        socket.socket(
            socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_RAW, 50
        ) as at_b,
    ):
        assert send_raw(A, source, target, 50, bytes(80))
        assert arrived(at_b) is not None
    assert send_raw(A, source, target, 50, bytes(3000))

    assert len(wire.between(source, target, 4)) == 4
    assert table(B).dropped_in == 0


def test_a_tunnel_in_clear_is_dropped(wire: Capture) -> None:
    """IP in IP, GRE and 6in4 between two VMs are as clear as anything, whatever is inside."""
    load(A)
    inner = ipv4("192.0.2.1", "192.0.2.2", 17, udp_header((1, 2), b"inner"))

    assert [send_raw(A, A4, B4, protocol, inner) for protocol in (4, 41, 47)] == [False] * 3
    assert not wire.between(A4, B4)


@pytest.mark.parametrize("header", [0, 60])
def test_ipv6_extension_headers_hide_nothing(wire: Capture, header: int) -> None:
    """Behind hop-by-hop or destination options clear is clear, and IKE is IKE."""
    load(A)
    options = b"\x11\0\x01\x04\0\0\0\0"

    clear = ipv6(A6, B6, header, options + udp_header((500, 9), b"clear"))
    ike = ipv6(A6, B6, header, options + udp_header((500, 500), b"ike"))

    assert not send_ip(A, B6, clear)
    assert not wire.between(A6, B6)
    assert send_ip(A, B6, ike)
    assert len(wire.between(A6, B6, 1)) == 1
