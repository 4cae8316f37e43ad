"""The guard's table judges real packets by their addresses, in both directions."""

import socket
from ipaddress import IPv4Address

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard_table import PEERS_COUNTED
from ipsec_agent.core.problems.guard_drops import Memory, problems, watched
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    GUARD,
    MOMENT,
    PLAIN4,
    PLAIN6,
    SCALE,
    A,
    B,
    Capture,
    arrived,
    ipv4,
    load,
    receiver,
    run,
    send_raw,
    send_udp,
    silent,
    table,
)
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_clear_is_dropped_on_the_way_out(wire: Capture, source: str, target: str) -> None:
    """UDP, TCP, ICMP and an unknown protocol: the sender is told, the wire sees nothing."""
    assert send_udp(A, source, target)
    assert len(wire.between(source, target, 1)) == 1
    load(A)

    ping = socket.IPPROTO_ICMPV6 if ":" in target else socket.IPPROTO_ICMP
    sent = [send_udp(A, source, target), send_udp(A, source, target, bytes(4000))]
    sent += [send_raw(A, source, target, ping, b"\x80\0\0\0\0\0\0\0" * 2)]
    sent += [send_raw(A, source, target, 97, b"what is this")]

    assert sent == [False] * 4
    assert not wire.between(source, target)
    assert table(A).dropped_out == 4
    (peer,) = table(A).clear_out
    assert (str(peer.address), peer.packets) == (target, 4)
    assert peer.idle < 5 * SCALE


def test_a_tcp_connection_is_dropped_on_the_way_out(wire: Capture) -> None:
    """The first segment goes nowhere."""
    load(A)

    with inside(A), socket.socket() as stream:
        stream.settimeout(MOMENT)
        with pytest.raises(OSError, match=r"timed out|not permitted"):
            stream.connect((B4, 9))

    assert not wire.between(A4, B4)
    assert table(A).dropped_out >= 1


@pytest.mark.parametrize(("source", "target"), [(A4, B4), (A6, B6)])
def test_clear_is_dropped_on_the_way_in(source: str, target: str) -> None:
    """A peer without a guard is not heard, and counted by its address."""
    with receiver(B, target) as socket_b:
        send_udp(A, source, target)
        assert arrived(socket_b) == b"clear"
        load(B)

        for _ in range(3):
            assert send_udp(A, source, target)

        assert silent(socket_b)
    assert [(str(peer.address), peer.packets) for peer in table(B).clear_in] == [(source, 3)]
    assert table(B).dropped_in == 3
    assert table(B).dropped_out == 0


@pytest.mark.parametrize(("source", "target"), [(A4, PLAIN4), (A6, PLAIN6)])
def test_no_ipsec_speaks_clear_in_both_directions(source: str, target: str) -> None:
    """An address in a no-ipsec subnet is free, though ipsec subnets hold it and overlap."""
    load(A)
    load(B)

    with receiver(B, target) as at_b, receiver(A, source) as at_a:
        send_udp(A, source, target)
        send_udp(B, target, source)

        assert (arrived(at_b), arrived(at_a)) == (b"clear", b"clear")


def test_neighbour_discovery_and_multicast_pass() -> None:
    """Two VMs find each other, with the addresses that they must encrypt between."""
    load(A)
    load(B)
    run("ip", "neigh", "flush", "all", ns=A)

    send_udp(A, A6, B6, b"ike", ports=(500, 500))
    with Capture(B, "b0") as wire:
        send_udp(A, A6, "ff02::1%a0")
        send_udp(A, A4, "224.0.0.251")
        groups = {"ff02::1", "224.0.0.251"}
        seen = wire.matching(lambda seen: seen.target in groups, 2)

    assert {one.target for one in seen} == groups
    assert "lladdr" in run("ip", "-6", "neigh", "show", B6, "dev", "a0", ns=A)


def test_forged_neighbour_discovery_is_dropped(wire: Capture) -> None:
    """ICMPv6 of that type which could have crossed a router is none."""
    load(A)

    with inside(A), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.bind((A6, 0))
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 64)
        with pytest.raises(PermissionError):
            raw.sendto(b"\x87\0\0\0\0\0\0\0" + bytes(16) + b"data", (B6, 0))

    assert not [seen for seen in wire.packets() if b"data" in seen.raw]


def test_a_subnets_broadcast_is_dropped(wire: Capture) -> None:
    """A directed broadcast is an address of the encrypted set as any other."""
    load(A)

    with inside(A), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.bind((A4, 0))
        with pytest.raises(PermissionError):
            sender.sendto(b"clear", ("10.77.255.255", 9))
    assert not wire.between(A4, "10.77.255.255")


def test_a_vm_speaks_with_itself() -> None:
    """Own address to own address runs over lo."""
    load(A)

    for own in (A4, A6):
        with receiver(A, own) as at_a:
            assert send_udp(A, own, own)
            assert arrived(at_a) == b"clear"


def test_a_full_counter_set_still_drops() -> None:
    """With room for three peers, the fourth and fifth are dropped, uncounted, in each direction."""
    small = ("size 4096", "size 3")
    load(A, change=small)
    targets = [f"10.77.1.{number}" for number in range(1, 6)]
    for target in targets:
        run("ip", "addr", "add", f"{target}/16", "dev", "b0", ns=B)

    assert [send_udp(A, A4, target) for target in targets] == [False] * 5
    full = table(A)
    # While a table is replaced, the kernel may take a report of multicast groups for a peer's.
    others = [peer for peer in full.clear_out if peer.address.version == 6]
    assert len(full.clear_out) - len(others) == 3
    assert full.dropped_out - sum(peer.packets for peer in others) == 5
    run("nft", "delete", "table", "inet", "ipsec_agent", ns=A)
    load(A, change=small)
    with receiver(A, A4) as at_a:
        for target in targets:
            send_udp(B, target, A4)
        assert silent(at_a)
    assert (len(table(A).clear_in), table(A).dropped_in) == (3, 5)


def test_whom_a_full_set_cannot_name_is_told_all_the_same() -> None:
    """5,000 forged senders fill it; the one that really sends clear then is still a problem."""
    load(B)
    forged = [ipv4(str(IPv4Address("10.77.16.0") + n), B4, 99, b"clear") for n in range(5000)]
    with inside(A), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in forged:
            raw.sendto(packet, (B4, 0))
    full = table(B)
    assert len(full.clear_in) == PEERS_COUNTED
    assert full.dropped_in == 5000
    memory = watched(full, Memory(), 0)

    for _ in range(7):
        send_udp(A, A4, B4)

    after = table(B)
    assert A4 not in {str(peer.address) for peer in after.clear_in}
    memory = watched(replace(after, reading=1), memory, 10)
    assert problems(memory) == ()
    # Counters and sets are read one after the other: what both readings say has no name.
    (problem,) = problems(watched(replace(table(B), reading=2), memory, 15))
    assert problem.code == "clear-received"
    assert "dropped 7 clear packets from addresses" in problem.message


def test_optional_counts_and_lets_through() -> None:
    """Without enforcement the same table measures who speaks clear."""
    load(A, replace(GUARD, enforce=False))
    load(B, replace(GUARD, enforce=False))

    with receiver(B, B4) as at_b:
        assert send_udp(A, A4, B4)
        assert arrived(at_b) == b"clear"
    assert [str(peer.address) for peer in table(A).clear_out] == [B4]
    assert [str(peer.address) for peer in table(B).clear_in] == [A4]


def test_clear_from_a_link_local_address(wire: Capture) -> None:
    """A VM that lost its IPv6 address sends from its link-local one, and is not let."""
    shown = run("ip", "-6", "-o", "addr", "show", "dev", "a0", "scope", "link", ns=A)
    local = shown.split("inet6 ")[1].partition("/")[0]
    source = f"{local}%a0"
    assert send_udp(A, source, B6)
    assert len(wire.between(local, B6, 1)) == 1
    load(A)

    assert not send_udp(A, source, B6)
    assert not wire.between(local, B6)
    assert [str(peer.address) for peer in table(A).clear_out] == [B6]
    for name in (A, B):
        run("ip", "neigh", "flush", "all", ns=name)
    assert send_udp(A, source, PLAIN6)
    assert len(wire.between(local, PLAIN6, 1)) == 1
    assert table(A).untranslated == ()
