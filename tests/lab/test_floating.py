"""VMs with two links, and an address that moves from one VM to another and back."""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import SCALE, Node, ip, until
from tests.lab.bed import LONG, TWO_NICS, Bed, bed
from tests.lab.judge import assert_only_esp
from tests.lab.matrix import DPD, SLOWER
from tests.lab.namespaces import inside
from tests.lab.traffic import Flood, between, flood
from tests.lab.wire import Capture

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

FLOATING = "10.9.0.100"
RATE = 500
IP_FREEBIND = 15


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Bed]:
    """Three VMs with two links each, and floods between the first two."""
    with bed(TWO_NICS, tmp_path) as ready:
        yield ready


def take(node: Node) -> None:
    """Give a VM the address, and say so to all, as whoever moves an address does (RFC 5227)."""
    ip("addr", "add", f"{FLOATING}/24", "dev", "eth0", netns=node.name)
    with inside(node.name):
        names = ip("-br", "link", "show", "eth0", netns=node.name)
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        mac = bytes.fromhex(names.split()[2].replace(":", ""))
        own = mac + socket.inet_aton(FLOATING)
        head = b"\xff" * 6 + mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        raw.send(head + own + bytes(6) + socket.inet_aton(FLOATING))


def lose(node: Node) -> None:
    """Take the address from a VM."""
    ip("addr", "del", f"{FLOATING}/24", "dev", "eth0", netns=node.name)


def speak(node: Node, address: str) -> None:
    """The service that moved with the address says something from there, where it may already."""
    with inside(node.name):
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with out:
        out.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        out.bind((FLOATING, 0))
        out.setblocking(False)
        try:
            out.sendto(b"here", (address, 9))
        except OSError:
            # The guard: the VM has no trap for it yet.
            return


def arrives(node: Node, peer: str, running: Flood) -> float:
    """Wait until a flood arrives where the address now is; seconds that it took."""
    began = time.monotonic()

    def does() -> bool:
        speak(node, peer)
        time.sleep(0.2)
        return time.monotonic() - running.arrived_last() < 0.2

    until(does, f"{FLOATING} is reached at {node.name}: {node.log[-2000:]}", 20 * SCALE)
    return time.monotonic() - began


def test_floating_address(three: Bed) -> None:
    """It moves, and moves back: never a clear packet, and it is reached in time where it is."""
    a, b, c = three.nodes
    with (
        flood(b.name, a.name, FLOATING, port=9010, rate=RATE, seconds=LONG) as at_a,
        flood(b.name, c.name, FLOATING, port=9011, rate=RATE, seconds=LONG) as at_c,
    ):
        three.settle()
        take(a)
        arrives(a, three.other, at_a)
        with Capture(three.hub, pair=(FLOATING, three.other)) as capture:
            starts = at_a.read(), at_c.read()
            lose(a)
            take(c)
            there = arrives(c, three.other, at_c)
            lose(c)
            take(a)
            back = arrives(a, three.other, at_a)
            flows = [
                between(start, running.read())
                for start, running in zip(starts, (at_a, at_c), strict=True)
            ]
            spent = flows[0].ended - flows[0].began
            least = int(RATE * spent)
            assert_only_esp(capture, a.name, FLOATING, three.other, *flows, at_least=least, esp=100)
            assert capture.clear() == {}
        lose(a)
        three.settle()
    print(f"\n{FLOATING} moved in {there:.1f} s, and back in {back:.1f} s: 0 clear packets")  # noqa: T201
    assert max(there, back) < DPD * SLOWER
