"""The closed table judges real packets: what it takes to mend a VM passes, and nothing else."""

import contextlib
import socket
import threading
from ipaddress import ip_address

import pytest

from ipsec_agent.core.closed_table import CLOSED, closed_table
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.host.nft import Nft
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    C4,
    GUARD,
    MOMENT,
    PLAIN4,
    PLAIN6,
    SCALE,
    SNAT,
    SOON,
    A,
    B,
    C,
    Capture,
    arrived,
    as_nobody,
    ipv4,
    load,
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

IKE = bytes(4) + b"initiate" + bytes(20)
PAIRS = [(A4, B4), (A6, B6)]
CLEAR = [(A4, B4), (A6, B6), (A4, PLAIN4), (A6, PLAIN6)]
"""Nobody knows which addresses are encrypted: all are closed."""


def close(ns: str) -> None:
    """Load the table as the unit does."""
    run("nft", "-f", "-", ns=ns, text=CLOSED)


def family(address: str) -> socket.AddressFamily:
    """Of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.parametrize(("source", "target"), CLEAR)
def test_clear_does_not_leave(wire: Capture, source: str, target: str) -> None:
    """UDP, an echo request and an unknown protocol: none is on the wire."""
    assert send_udp(A, source, target)
    assert len(wire.between(source, target, 1)) == 1
    close(A)

    ping = socket.IPPROTO_ICMPV6 if ":" in target else socket.IPPROTO_ICMP
    sent = [send_udp(A, source, target), send_udp(A, source, target, bytes(4000))]
    sent += [send_raw(A, source, target, ping, b"\x80\0\0\0\0\0\0\0" * 2)]
    sent += [send_raw(A, source, target, 97, b"what is this")]

    assert sent == [False] * 4
    assert not wire.between(source, target)


@pytest.mark.parametrize(("source", "target"), CLEAR)
def test_clear_is_not_heard(source: str, target: str) -> None:
    """Small and in fragments, from every address."""
    with receiver(B, target) as at_b:
        send_udp(A, source, target)
        assert arrived(at_b) == b"clear"
        close(B)

        send_udp(A, source, target)
        send_udp(A, source, target, bytes(4000))

        assert silent(at_b)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("end", [A, B], ids=["out", "in"])
def test_esp_and_ike_pass(end: str, source: str, target: str) -> None:
    """Protocol 50 and IKE on both ports, large IKE in fragments, outward and inward."""
    close(end)

    with (
        inside(B),
        socket.socket(family(target), socket.SOCK_RAW, 50) as esp,
        receiver(B, target, 500) as at_500,
        receiver(B, target, 4500) as at_4500,
    ):
        assert send_raw(A, source, target, 50, bytes(80))
        assert arrived(esp) is not None
        assert send_udp(A, source, target, IKE * 100, ports=(500, 500))
        assert arrived(at_500) == IKE * 100
        assert send_udp(A, source, target, IKE, ports=(4500, 4500))
        assert arrived(at_4500) == IKE


@pytest.mark.parametrize("end", [A, B], ids=["out", "in"])
@pytest.mark.parametrize(
    ("ports", "payload"),
    [
        ((4500, 4500), b"some user's data"),
        ((0, 500), IKE),
        ((500, 9), IKE),
        ((22, 22), IKE),
        ((67, 67), IKE),
        ((9, 22), IKE),
    ],
)
def test_what_only_looks_like_it_does_not_pass(
    end: str, ports: tuple[int, int], payload: bytes
) -> None:
    """A user's data on port 4500, IKE's port at one end only, SSH's port over UDP."""
    close(end)

    with receiver(B, B4, ports[1]) as at_b, receiver(B, B6, ports[1]) as at_b6:
        send_udp(A, A4, B4, payload, ports=ports)
        send_udp(A, A6, B6, payload, ports=ports)

        assert silent(at_b)
        assert silent(at_b6)


def test_another_user_is_no_ike(wire: Capture) -> None:
    """IKE of this VM is root's."""
    close(A)

    assert not as_nobody(A, A4, B4, IKE, 4500)
    assert not wire.between(A4, B4)


GREETING = b"SSH-2.0-x\r\n"


def serve(listener: socket.socket) -> None:
    """Answer one connection as an SSH server begins; that nobody comes is no error."""
    with contextlib.suppress(OSError):
        opened, _ = listener.accept()
        with opened:
            opened.sendall(GREETING)


def greets(client: str, server: str, address: str, port: int, *, patience: float = SOON) -> bool:
    """Whether a TCP server on a VM is heard by a client on the other within some seconds."""
    with inside(server), socket.create_server((address, port), family=family(address)) as listener:
        listener.settimeout(SOON)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            with inside(client), socket.socket(family(address)) as stream:
                stream.settimeout(patience)
                stream.connect((address, port))
                return stream.recv(100) == GREETING
        except (TimeoutError, PermissionError):
            return False
        finally:
            # It waits no more where nobody came.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("address", [B4, B6, PLAIN4])
def test_the_operators_way_in(address: str) -> None:
    """SSH to the closed VM works in both directions of its packets; no other port does."""
    close(B)

    assert greets(A, B, address, 22)
    assert not greets(A, B, address, 23, patience=MOMENT)


def test_a_containers_ssh_is_not_its_vms(wire: Capture) -> None:
    """Masquerade gives it the VM's address and leaves it the port: it would leave in clear."""
    run("nft", "-f", "-", ns=A, text=SNAT)

    def connect(expected: int) -> int:
        with inside(C), socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.settimeout(0.3 * SCALE)
            client.bind((C4, 22))
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                client.connect((B4, 22))
        return len(wire.between(A4, B4, expected))

    assert connect(1)
    close(A)
    assert not connect(0)
    assert table(A).dropped_out >= 1


@pytest.mark.parametrize("address", [B4, B6])
def test_no_way_out(address: str) -> None:
    """An SSH client on the closed VM would speak clear, and does not."""
    assert greets(A, B, address, 22)
    close(A)

    assert not greets(A, B, address, 22, patience=MOMENT)


def test_what_a_vm_needs() -> None:
    """With `--closed` its director is reached, as DNS and NTP are; nobody else and nothing else."""
    needs = EssentialAddresses(
        name_servers=(ip_address(B4),), directors=(ip_address(B6), ip_address(PLAIN4))
    )
    run("nft", "-f", "-", ns=A, text=closed_table(needs))

    assert greets(A, B, B6, 4222)
    assert greets(A, B, PLAIN4, 25250)
    assert not greets(A, B, B4, 4222, patience=MOMENT)
    assert greets(A, B, B4, 53)
    assert not send_udp(A, A6, B6)
    for target, port, passes in ((B4, 53, True), (PLAIN4, 53, False), (PLAIN4, 123, True)):
        assert send_udp(A, A4, target, b"question", ports=(0, port)) is passes
    with receiver(A, A4, 40000) as high, receiver(A, A4, 1000) as low:
        for port in (40000, 1000):
            send_udp(B, PLAIN4, A4, b"time", ports=(123, port))
        assert arrived(high) == b"time"
        assert silent(low)


def test_dhcp_passes(wire: Capture) -> None:
    """A lease is asked for and granted, by broadcast and to an address, for IPv4 and IPv6."""
    close(A)
    with inside(A), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"a0")
        sender.bind(("0.0.0.0", 68))
        sender.sendto(b"discover", ("255.255.255.255", 67))
    assert send_udp(A, A4, B4, b"renew", ports=(68, 67))
    assert send_udp(A, A6, "ff02::1:2%a0", b"solicit", ports=(546, 547))
    asked = [seen.raw for seen in wire.udp(3)]
    for payload in (b"discover", b"renew", b"solicit"):
        assert [raw for raw in asked if raw.endswith(payload)], payload

    with receiver(A, A4, 68) as at_a, receiver(A, A6, 546) as at_a6:
        send_udp(B, B4, A4, b"offer", ports=(67, 68))
        send_udp(B, B6, A6, b"reply", ports=(547, 546))
        assert (arrived(at_a), arrived(at_a6)) == (b"offer", b"reply")


def test_neighbours_find_each_other() -> None:
    """ARP and neighbour discovery work between two closed VMs."""
    close(A)
    close(B)
    for name in (A, B):
        run("ip", "neigh", "flush", "all", ns=name)

    for source, target in PAIRS:
        with receiver(B, target, 500) as at_b:
            send_udp(A, source, target, IKE, ports=(500, 500))
            assert arrived(at_b) == IKE


def test_forged_neighbour_discovery_is_dropped() -> None:
    """ICMPv6 of that type which could have crossed a router is none."""
    close(A)

    with inside(A), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.bind((A6, 0))
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 64)
        with pytest.raises(PermissionError):
            raw.sendto(b"\x87\0\0\0\0\0\0\0" + bytes(16) + b"data", (B6, 0))


def test_later_fragments_do_not_leave(wire: Capture) -> None:
    """They have no ports, and nothing here sends them."""
    close(A)

    assert not send_ip(A, B4, ipv4(A4, B4, 17, udp_header((500, 500), IKE), offset=1480))
    assert not wire.between(A4, B4)


def test_a_vm_speaks_with_itself() -> None:
    """Own address to own address runs over lo."""
    close(A)

    for own in (A4, A6):
        with receiver(A, own) as at_a:
            assert send_udp(A, own, own)
            assert arrived(at_a) == b"clear"


async def test_the_right_table_takes_its_place_and_back(wire: Capture) -> None:
    """Either replaces the other whole; what the right one lets pass, passes at once."""
    close(A)
    assert not send_udp(A, A4, PLAIN4)

    load(A)
    assert send_udp(A, A4, PLAIN4)
    assert not send_udp(A, A4, B4)
    assert "closed" not in run("nft", "list", "table", "inet", "ipsec_agent", ns=A)

    close(A)
    assert not send_udp(A, A4, PLAIN4)
    with inside(A):
        nft = Nft()
        await nft.learn(ruleset(GUARD))
        await nft.learn(CLOSED)
        table = await nft.read()
    assert table is not None
    assert table.mark == mark(CLOSED)
    assert len(wire.between(A4, PLAIN4, 1)) == 1
