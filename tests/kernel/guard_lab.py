"""Two VMs and a container as network namespaces, with real packets and a capture as judge.

guard-c  c0 --- ac0  guard-a  a0 --- b0  guard-b
(container)          (a VM)              (its peer)
"""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Self

from ipsec_agent.core.flow_rules import flow_rules, wanted_flow_rules
from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import ruleset
from ipsec_agent.core.model import DesiredGuard, LinkId
from ipsec_agent.core.observed import Link
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.promise import Promise
from ipsec_agent.host.nft_table import guard_table
from ipsec_agent.host.nft_tables import guard_image
from ipsec_agent.host.nft_wire import Channel
from tests.charon.nodes import ips, remove
from tests.lab.namespaces import await_links, inside

A, B, C = (f"guard-{name}-{os.getpid()}" for name in "abc")
A4, B4, C4, GATE4 = "10.77.0.1", "10.77.0.2", "192.168.77.2", "192.168.77.1"
A6, B6 = "fd77::1", "fd77::2"
PLAIN4, PLAIN6 = "10.77.9.2", "fd77:9::2"
"""B's second addresses, which are in a no-ipsec subnet inside the ipsec subnet."""

PROMISE = Promise(
    tuple(ip_network(text) for text in ("10.77.0.0/16", "10.77.0.0/24", "fd77::/16")),
    tuple(ip_network(text) for text in ("10.77.9.0/24", "fd77:9::/32")),
)
GUARD = Guard(PROMISE)

SNAT = (
    "table ip nat { chain post {"
    " type nat hook postrouting priority 100; oifname a0 masquerade; }; }"
)
"""A translates its container to its own address."""

SCALE = float(os.environ.get("LAB_TIME_SCALE", "1"))
"""How much slower than usual this machine is."""

MOMENT = 0.3 * SCALE
"""Seconds for which what must not come is waited for."""

SOON = 20 * SCALE
"""Seconds for what must come."""

DEADLINE = 150 * SCALE
"""Seconds for a program that the tests run: one has nft put 300,000 elements into a set of
intervals, and others run beside."""


def run(*command: str | Path, ns: str = "", text: str = "") -> str:
    """Run a program, in a namespace if one is named; the test fails when it does."""
    with inside(ns) if ns else contextlib.nullcontext():
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """The lab, from nothing to nothing."""
    remove((A, B, C))
    try:
        # Few programs: to start one is what takes its time in the lab's guest.
        ips(*(f"netns add {name}" for name in (A, B, C)))
        for netns in (A, B, C):
            with inside(netns):
                # What the kernel sends by itself, when it likes, is counted by tests, too: no
                # probes, questions for routers, and second reports of multicast groups
                # (milliseconds).
                for name, value in (
                    ("accept_dad", "0"),
                    ("router_solicitations", "0"),
                    ("mldv2_unsolicited_report_interval", "600000"),
                ):
                    for path in Path("/proc/sys/net/ipv6/conf").glob(f"*/{name}"):
                        path.write_text(value)
        ips(
            f"link add a0 netns {A} type veth peer b0 netns {B}",
            f"link add c0 netns {C} type veth peer ac0 netns {A}",
        )
        addresses = (f"{B4}/16", f"{PLAIN4}/16", f"{B6}/16", f"{PLAIN6}/16")
        ips(*_up(b0=addresses), f"route add 192.168.77.0/24 via {A4}", netns=B)
        ips(*_up(a0=(f"{A4}/16", f"{A6}/16"), ac0=(f"{GATE4}/24",)), netns=A)
        ips(*_up(c0=(f"{C4}/24",)), f"route add default via {GATE4}", netns=C)
        with inside(A):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        await_links(B, "b0")
        await_links(A, "a0", "ac0")
        await_links(C, "c0")
        yield
    finally:
        remove((A, B, C))


def _up(**links: tuple[str, ...]) -> Iterator[str]:
    """Links with their addresses."""
    yield "link set lo up"
    for link, addresses in links.items():
        yield f"link set {link} up"
        for address in addresses:
            yield f"addr add {address} dev {link}" + (" nodad" if ":" in address else "")


def load(
    ns: str, guard: Guard = GUARD, *, change: tuple[str, str] = ("", ""), more: str = ""
) -> None:
    """Put the table in place, perhaps with a part of its text changed, or more behind it."""
    text = ruleset(guard)
    assert change[0] in text
    run("nft", "-f", "-", ns=ns, text=text.replace(*change) + more)


def flow_table(*links: str, guard: Guard = GUARD) -> str:
    """The text of the table beside flowtables, on these links."""
    wish = DesiredGuard("", "", (), flow_rules(guard))
    judged = [Link(number, name, 1500, up=True) for number, name in enumerate(links, 2)]
    return wanted_flow_rules(wish, ("inet fast f",), judged)


def table(ns: str) -> GuardTable:
    """The table as it is."""
    with inside(ns), Channel() as channel:
        image = guard_image(channel)
        assert image is not None
        return guard_table(image, dict(socket.if_nameindex()))


def index(ns: str, link: str) -> int:
    """Index of a link."""
    with inside(ns):
        return socket.if_nametoindex(link)


def link(ns: str, name: str) -> LinkId:
    """A link as the guard knows it."""
    return LinkId(index(ns, name), name)


def send_udp(
    ns: str, source: str, target: str, payload: bytes = b"clear", *, ports: tuple[int, int] = (0, 9)
) -> bool:
    """Send a datagram; False where the guard forbids it (EPERM)."""
    with inside(ns), socket.socket(_family(target), socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Path MTU discovery would refuse what is larger than the link.
        if ":" not in target:
            sender.setsockopt(socket.IPPROTO_IP, 10, 0)
        # So that a link-local address may name its link.
        sender.bind(socket.getaddrinfo(source, ports[0], type=socket.SOCK_DGRAM)[0][4])
        try:
            sender.sendto(payload, (target, ports[1]))
        except PermissionError:
            return False
        return True


def send_raw(ns: str, source: str, target: str, protocol: int, payload: bytes) -> bool:
    """Send a packet of any protocol; False where the guard forbids it."""
    with inside(ns), socket.socket(_family(target), socket.SOCK_RAW, protocol) as sender:
        sender.bind((source, 0))
        try:
            sender.sendto(payload, (target, 0))
        except PermissionError:
            return False
        return True


def send_ip(ns: str, target: str, packet: bytes) -> bool:
    """Send a whole packet, IP header included; False where the guard forbids it."""
    with inside(ns), socket.socket(_family(target), socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        try:
            sender.sendto(packet, (target, 0))
        except PermissionError:
            return False
        return True


def send_below(ns: str, link: int, packet: bytes) -> None:
    """Put an IPv4 packet on a link, past IPsec and the guard (packet(7)), to nobody's MAC."""
    with inside(ns), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sender:
        sender.sendto(packet, (socket.if_indextoname(link), 0x0800, 0, 0, b"\x02\0\0\0\0\x09"))


def ipv4(source: str, target: str, protocol: int, payload: bytes, *, offset: int = 0) -> bytes:
    """An IPv4 packet; `offset` in bytes makes it the last fragment. The kernel sums."""
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, offset // 8, 64, protocol, 0)
        + IPv4Address(source).packed
        + IPv4Address(target).packed
        + payload
    )


def ipv6(source: str, target: str, header: int, payload: bytes) -> bytes:
    """An IPv6 packet."""
    return (
        struct.pack("!IHBB", 6 << 28, len(payload), header, 64)
        + IPv6Address(source).packed
        + IPv6Address(target).packed
        + payload
    )


def udp_header(ports: tuple[int, int], payload: bytes) -> bytes:
    """A datagram without checksum."""
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def receiver(ns: str, address: str, port: int = 9) -> Iterator[socket.socket]:
    """A UDP socket to ask with `arrived`."""
    with inside(ns):
        opened = socket.socket(_family(address), socket.SOCK_DGRAM)
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        yield opened


def arrived(opened: socket.socket, wait: float = SOON) -> bytes | None:
    """The next datagram, None if none comes in time (seconds)."""
    if not select.select([opened], [], [], wait)[0]:
        return None
    data: bytes = opened.recv(65536)
    return data


def silent(opened: socket.socket) -> bool:
    """Whether no datagram comes for a moment, in which what was sent before would have come."""
    return arrived(opened, MOMENT) is None


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet on the wire, from its IP header on; `protocol` is the IP header's."""

    source: str
    target: str
    protocol: int
    raw: bytes


class Capture:
    """Every IP packet that comes to a link, taken below the guard (packet(7))."""

    def __init__(self, ns: str, link: str) -> None:
        with inside(ns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            self._socket.bind((link, 3))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def lost(self) -> int:
        """Packets that the capture itself missed since it was last asked."""
        _, lost = struct.unpack("II", self._socket.getsockopt(263, 6, 8))  # PACKET_STATISTICS
        return int(lost)

    def packets(self, wait: float = 0.2) -> list[Seen]:
        """What came since it was last asked, after a moment (seconds)."""
        time.sleep(wait * SCALE)
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                raw, origin = self._socket.recvfrom(65536)
                seen = _seen(raw) if origin[2] != socket.PACKET_OUTGOING else None
                if seen is not None:
                    found.append(seen)
        return found

    def between(self, source: str, target: str, expected: int = 0) -> list[Seen]:
        """The packets between two addresses, neighbour discovery left out.

        Args:
            expected: so many are waited for, until the deadline; more of them in a moment only.
        """
        return self.matching(
            lambda seen: (
                (seen.source, seen.target) == (source, target)
                and not (seen.protocol == socket.IPPROTO_ICMPV6 and seen.raw[40] in {135, 136})
            ),
            expected,
        )

    def udp(self, expected: int = 0) -> list[Seen]:
        """The same of UDP between any addresses."""
        return self.matching(lambda seen: seen.protocol == socket.IPPROTO_UDP, expected)

    def matching(self, wanted: Callable[[Seen], bool], expected: int) -> list[Seen]:
        """The same of packets of any kind."""
        end = time.monotonic() + SOON
        found = list(filter(wanted, self.packets()))
        while len(found) < expected and time.monotonic() < end:
            found += filter(wanted, self.packets(0.01))
        return found


def _seen(raw: bytes) -> Seen | None:
    if raw[0] >> 4 == 4:
        return Seen(str(IPv4Address(raw[12:16])), str(IPv4Address(raw[16:20])), raw[9], raw)
    if raw[0] >> 4 == 6:
        return Seen(str(IPv6Address(raw[8:24])), str(IPv6Address(raw[24:40])), raw[6], raw)
    return None


_FLOOD = """
import signal, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end, sent, passed = time.monotonic() + float(sys.argv[2]), 0, 0
def stop(*_):
    global end
    end = 0
signal.signal(signal.SIGTERM, stop)
print("go", flush=True)
while time.monotonic() < end:
    for _ in range(200):
        sent += 1
        try:
            s.sendto(b"flood", (sys.argv[1], 9))
            passed += 1
        except OSError:
            pass
print(sent, passed)
"""


class Flood:
    """A program that sends to an address as fast as it can, for some seconds or until `stop`."""

    def __init__(self, ns: str, target: str, seconds: float) -> None:
        with inside(ns):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _FLOOD, target, str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "go\n"

    @property
    def running(self) -> bool:
        """Whether it still sends."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Have it end now."""
        self._process.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def result(self) -> tuple[int, int]:
        """Datagrams tried and datagrams let through, once it has ended."""
        out, _ = self._process.communicate(timeout=60 * SCALE)
        sent, passed = out.split()
        return int(sent), int(passed)


_NOBODY = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[4])))
s.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[2], int(sys.argv[4])))
"""


def as_nobody(ns: str, source: str, target: str, payload: bytes, port: int) -> bool:
    """Send a datagram as the user nobody; False where the guard forbids it."""
    return program(ns, _NOBODY, source, target, payload.hex(), str(port), user=65534)


def program(ns: str, code: str, *arguments: str, user: int = 0) -> bool:
    """Run a Python program that sends; False where the guard forbids it, or it waits in vain."""
    caught = f"try:\n{textwrap.indent(code, ' ')}\nexcept PermissionError: print('refused')\n"
    caught += "except TimeoutError: print('in vain')"
    with inside(ns):
        done = subprocess.run(
            ["/usr/bin/python3", "-c", caught, *arguments],
            capture_output=True,
            text=True,
            timeout=20 * SCALE,
            check=False,
            user=user,
            cwd="/",
            env={**os.environ, "PATH": "/usr/bin"},
        )
    assert done.returncode == 0, done.stderr
    return not done.stdout
