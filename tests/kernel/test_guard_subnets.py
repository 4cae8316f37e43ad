"""The guard and lists that nest, touch or hold everything, judged by real packets."""

import socket
from ipaddress import ip_network

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.promise import Promise
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    A,
    B,
    Capture,
    arrived,
    load,
    receiver,
    run,
    send_udp,
    silent,
    table,
)
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

EVERYTHING = Guard(Promise((ip_network("0.0.0.0/0"), ip_network("::/0")), ()))
IKE = bytes(4) + b"initiate" + bytes(20)


def guard_of(*ipsec: str, clear: tuple[str, ...] = ()) -> Guard:
    """A guard of these lists."""
    return Guard(Promise(tuple(map(ip_network, ipsec)), tuple(map(ip_network, clear))))


@pytest.mark.parametrize("end", [A, B], ids=["out", "in"])
@pytest.mark.parametrize(
    ("guard", "clear"),
    [
        # no-ipsec wins over a narrower ipsec subnet, and over the very same one.
        (guard_of("10.77.0.0/16", "10.77.4.4/32", clear=("10.77.4.4/31",)), ("10.77.4.4",)),
        (guard_of("10.77.0.0/16", clear=("10.77.4.4/32", "10.77.4.4/31")), ("10.77.4.4",)),
        (guard_of("10.77.0.0/16", "10.77.4.4/32", clear=("10.77.4.4/32",)), ("10.77.4.4",)),
        # An ipsec subnet in another, twice, and two that touch.
        (guard_of("10.77.0.0/16", "10.77.4.0/24", "10.77.4.4/32", "10.77.0.0/16"), ()),
        (guard_of("10.77.0.0/22", "10.77.4.0/23"), ()),
        # The last address of one, and the first behind it.
        (guard_of("10.77.0.0/24", "10.77.4.0/30"), ("10.77.4.4",)),
        (guard_of("10.77.0.0/24", "10.77.4.4/30"), ("10.77.4.3",)),
        (guard_of("10.77.0.0/16", clear=("10.77.4.4/31",)), ("10.77.4.4",)),
    ],
)
def test_nested(end: str, guard: Guard, clear: tuple[str, ...]) -> None:
    """Each address is clear or not as the lists say, whatever holds it besides."""
    targets = ("10.77.4.3", "10.77.4.4")
    for target in targets:
        run("ip", "addr", "add", f"{target}/16", "dev", "b0", ns=B)
    load(end, guard)

    for target in targets:
        with receiver(B, target) as at_b:
            send_udp(A, A4, target)
            if target in clear:
                assert arrived(at_b) == b"clear", target
            else:
                assert silent(at_b), target


@pytest.mark.parametrize("end", [A, B], ids=["out", "in"])
def test_everything_is_encrypted(end: str) -> None:
    """0.0.0.0/0 and ::/0: clear is dropped, and what a network needs passes all the same."""
    load(end, EVERYTHING)
    for name in (A, B):
        run("ip", "neigh", "flush", "all", ns=name)

    for source, target in ((A4, B4), (A6, B6)):
        with receiver(B, target) as clear, receiver(B, target, 500) as ike:
            send_udp(A, source, target)
            send_udp(A, source, target, IKE, ports=(500, 500))
            assert arrived(ike) == IKE
            assert silent(clear)


def test_link_local_and_multicast_pass(wire: Capture) -> None:
    """Of everything: link-local unicast, multicast of both families, MLD and router discovery."""
    shown = run("ip", "-6", "addr", "show", "dev", "b0", ns=B).split()
    (other,) = (word.partition("/")[0] for word in shown if word.startswith("fe80:"))
    load(A, EVERYTHING)
    load(B, EVERYTHING)

    with receiver(B, "::", 9) as at_b:
        assert send_udp(A, "::", f"{other}%a0", b"link-local")
        assert arrived(at_b) == b"link-local"
    assert send_udp(A, A6, "ff02::1%a0", b"multicast 6")
    assert send_udp(A, A4, "224.0.0.251", b"multicast 4")
    with inside(A), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        for kind in (133, 143):
            raw.sendto(bytes([kind]) + bytes(7), ("ff02::2%a0", 0))

    payloads = {b"link-local", b"multicast 6", b"multicast 4"}
    seen = wire.matching(
        lambda one: one.raw.endswith(tuple(payloads)) or one.target == "ff02::2", 5
    )
    assert {it for it in payloads for one in seen if one.raw.endswith(it)} == payloads
    kinds = {one.raw[40] for one in seen if one.target == "ff02::2" and one.protocol == 58}
    assert kinds == {133, 143}
    assert table(B).dropped_in == 0, seen


def test_a_lease_is_asked_for_by_broadcast(wire: Capture) -> None:
    """Of everything: DHCP's 255.255.255.255 passes outward and inward."""
    load(A, EVERYTHING)
    load(B, EVERYTHING)

    with inside(A), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"a0")
        sender.bind(("", 68))
        with receiver(B, "255.255.255.255", 67) as at_b:
            sender.sendto(b"discover", ("255.255.255.255", 67))
            assert arrived(at_b) == b"discover"


def test_a_clear_broadcast_of_a_subnet_is_neither_sent_nor_heard(wire: Capture) -> None:
    """It lies between encrypted addresses as any other packet, even where nothing else drops it."""

    def broadcast() -> bool:
        with inside(A), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.bind((A4, 0))
            try:
                sender.sendto(b"clear", ("10.77.255.255", 9))
            except PermissionError:
                return False
            return True

    with receiver(B, "10.77.255.255") as at_b:
        assert broadcast()
        assert arrived(at_b) == b"clear"
        load(B)
        assert broadcast()
        assert silent(at_b)
        assert [str(peer.address) for peer in table(B).clear_in] == [A4]
        wire.packets()
        load(A)
        assert not broadcast()
        assert not wire.between(A4, "10.77.255.255")


def test_optional_everything_stays_open() -> None:
    """Counted only, nothing is lost, not even of everything."""
    load(B, replace(EVERYTHING, enforce=False))

    with receiver(B, B6) as at_b:
        send_udp(A, A6, B6)
        assert arrived(at_b) == b"clear"
    assert [str(peer.address) for peer in table(B).clear_in] == [A6]
