"""The guard and real ESP: what IPsec carries passes, and nothing else, with fixed SAs."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard_table import exempt_update
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    C4,
    GUARD,
    SNAT,
    A,
    B,
    C,
    Capture,
    arrived,
    as_nobody,
    link,
    load,
    receiver,
    run,
    send_udp,
    silent,
    table,
)
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.esp, pytest.mark.timeout(200), pytest.mark.usefixtures("guarded")]

PAIRS = [(A4, B4), (A6, B6)]
FORCED = replace(GUARD, force_encapsulation=True)
FRAGMENT = 44
KEY = "0x" + "0102030405" * 4
DNAT = (
    "table ip nat { chain pre { type nat hook prerouting priority -100;"
    f" iifname a0 udp dport 8080 dnat to {C4}:9; }}; }}"
)


def secure(one: str, other: str, *, encapsulated: bool = False) -> None:
    """SAs and required policies between two addresses, on both VMs."""
    encap = ["encap", "espinudp", "4500", "4500", "0.0.0.0"] if encapsulated else []
    for ns, own, peer in ((A, one, other), (B, other, one)):
        lines = []
        for source, target, direction, spi in ((own, peer, "out", own), (peer, own, "in", peer)):
            ends = f"src {source} dst {target}"
            number = 0x1000 + (spi == other)
            lines.append(
                f"xfrm state add {ends} proto esp spi {number} reqid 7 mode transport"
                f" aead rfc4106(gcm(aes)) {KEY} 128 {' '.join(encap)}"
            )
            lines.append(
                f"xfrm policy add {ends} dir {direction} priority 9"
                f" tmpl {ends} proto esp reqid 7 mode transport"
            )
            # charon's sockets have this exemption of their own.
            lines.append(
                f"xfrm policy add {ends} proto udp sport 4500 dport 4500 dir {direction} priority 1"
            )
        run("ip", "-batch", "-", ns=ns, text="\n".join(lines) + "\n")


@contextlib.contextmanager
def decapsulating(ns: str) -> Iterator[None]:
    """The socket that charon has on port 4500 (udp(7): UDP_ENCAP)."""
    with inside(ns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.IPPROTO_UDP, 100, 2)
        opened.bind(("0.0.0.0", 4500))
        yield


def protocols(capture: Capture, source: str, target: str) -> set[int]:
    """What was on the wire between two addresses, in IPv6 behind a fragment header."""
    seen = capture.between(source, target)
    return {one.raw[40] if one.protocol == FRAGMENT else one.protocol for one in seen}


@pytest.mark.parametrize("size", [5, 3000])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_ipsec_carries_passes(wire: Capture, one: str, other: str, size: int) -> None:
    """In both directions, small and in fragments; the guards count nothing."""
    secure(one, other)
    load(A)
    load(B)

    with receiver(B, other) as at_b, receiver(A, one) as at_a:
        assert send_udp(A, one, other, bytes(size))
        assert send_udp(B, other, one, bytes(size))
        assert (arrived(at_b), arrived(at_a)) == (bytes(size), bytes(size))

    assert protocols(wire, one, other) == {50}
    for ns in (A, B):
        assert (table(ns).dropped_in, table(ns).dropped_out) == (0, 0)


@pytest.mark.parametrize("size", [5, 3000])
def test_forced_encapsulation(wire: Capture, size: int) -> None:
    """ESP in UDP passes, whoever sent what is inside, and nothing is counted."""
    secure(A4, B4, encapsulated=True)
    load(A, FORCED)
    load(B, FORCED)

    with decapsulating(A), decapsulating(B), receiver(B, B4, 9000) as at_b:
        assert send_udp(A, A4, B4, bytes(size), ports=(0, 9000))
        assert arrived(at_b) == bytes(size)
        assert as_nobody(A, A4, B4, b"nobody's", 9000)
        assert arrived(at_b) == b"nobody's"

    assert protocols(wire, A4, B4) == {17}
    assert (table(A).dropped_out, table(B).dropped_in) == (0, 0)


def test_encapsulation_that_is_not_forced_is_dropped(wire: Capture) -> None:
    """The table lets pass what the config says, and this one says plain ESP."""
    secure(A4, B4, encapsulated=True)
    load(A)

    send_udp(A, A4, B4)

    assert not wire.between(A4, B4)
    assert table(A).dropped_out == 1


def test_a_container_travels_in_its_vms_ipsec(wire: Capture) -> None:
    """Translated outward and inward, as ESP in both directions."""
    secure(A4, B4)
    run("nft", "-f", "-", ns=A, text=SNAT + "\n" + DNAT)
    load(A, more=exempt_update([link(A, "ac0")]))
    load(B)

    with receiver(B, B4) as at_b:
        assert send_udp(C, C4, B4, b"outward")
        assert arrived(at_b) == b"outward"
    with receiver(C, C4) as at_c:
        assert send_udp(B, B4, A4, b"inward", ports=(0, 8080))
        assert arrived(at_c) == b"inward"

    assert protocols(wire, A4, B4) == {50}
    assert not wire.between(C4, B4)
    assert (table(A).dropped_out, table(A).dropped_in, table(B).dropped_in) == (0, 0, 0)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_without_policies_nothing_leaves(wire: Capture, one: str, other: str) -> None:
    """`ip xfrm policy flush`: the guard holds alone, and names the peer."""
    secure(one, other)
    load(A)
    run("ip", "xfrm", "policy", "flush", ns=A)

    assert [send_udp(A, one, other) for _ in range(5)] == [False] * 5

    assert not wire.between(one, other)
    assert [(str(peer.address), peer.packets) for peer in table(A).clear_out] == [(other, 5)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_peer_that_lost_its_policies_is_not_heard(one: str, other: str) -> None:
    """Its clear packets are dropped before the kernel looks for a policy, and counted."""
    secure(one, other)
    load(B)
    run("ip", "xfrm", "policy", "flush", ns=A)

    with receiver(B, other) as at_b:
        assert send_udp(A, one, other)
        assert silent(at_b)
    assert [(str(peer.address), peer.packets) for peer in table(B).clear_in] == [(one, 1)]
