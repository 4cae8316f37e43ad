"""A VM whose agent guards it, with two NICs, containers, and a capture on both wires as judge.

links-pod  pod0 --- veth1  links-vm  eth0 --- h0  links-hub  hp --- p0  links-peer
                                     eth1 --- h1  (a bridge)

The agent is the real loop on the real kernel, without charon: what is judged holds without it.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Self, cast

from ipsec_agent.charon_part import CharonPart
from ipsec_agent.core.config import AgentConfig, Config
from ipsec_agent.core.status import Snapshot
from ipsec_agent.core.steps import CharonStep
from ipsec_agent.errors import CharonStartError
from ipsec_agent.host.clock import ClockReader
from ipsec_agent.host.links import open_links
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.xfrm import open_xfrm
from ipsec_agent.kernel_part import KernelPart
from ipsec_agent.machine import Machine
from ipsec_agent.observe import Reading
from ipsec_agent.reconcile import Reconciler
from tests.charon.nodes import ips, remove
from tests.configs import config
from tests.kernel.guard_lab import SCALE, Capture, Seen
from tests.lab.namespaces import await_links, inside

VM, HUB, PEER, POD, POD2 = (
    f"links-{name}-{os.getpid()}" for name in ("vm", "hub", "peer", "pod", "pod2")
)
SUBNET = "10.77.0.0/16"
ENCRYPTED = ip_network(SUBNET)
ONE, TWO = "10.77.0.1", "10.77.1.1"
"""The VM's addresses on eth0 and eth1."""

PEER_ONE, PEER_TWO = "10.77.0.2", "10.77.1.2"
SOON = 5.0 * SCALE
LASTS = 1.0
"""Seconds after which what no event tells of is read again."""


@contextlib.contextmanager
def lab() -> Iterator[None]:
    """The namespaces; this thread is in that of the VM. Its NICs have no address yet."""
    names = (VM, HUB, PEER, POD, POD2)
    remove(names)
    try:
        ips(*(f"netns add {name}" for name in names))
        for name in names:
            with inside(name):
                for path in Path("/proc/sys/net/ipv6/conf").glob("*/disable_ipv6"):
                    path.write_text("1")
        ips(
            *(f"link add eth{n} netns {VM} type veth peer h{n} netns {HUB}" for n in (0, 1)),
            f"link add p0 netns {PEER} type veth peer hp netns {HUB}",
        )
        ips(
            "link add hub type bridge",
            *(f"link set {name} master hub" for name in ("h0", "h1", "hp")),
            *(f"link set {name} up" for name in ("h0", "h1", "hp", "hub")),
            netns=HUB,
        )
        ips(
            "link set lo up",
            "link set p0 up",
            *(f"addr add {address}/24 dev p0" for address in (PEER_ONE, PEER_TWO)),
            netns=PEER,
        )
        with inside(VM):
            # What is let through must reach the wire, whether or not somebody there answers ARP.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            ips("link set lo up", "link set eth0 up", "link set eth1 up")
            await_links(HUB, "h0", "h1", "hp")
            await_links(PEER, "p0")
            await_links(VM, "eth0", "eth1")
            yield
    finally:
        remove(names)


def addresses(*which: str) -> None:
    """Give the VM its addresses, such as `10.77.0.1/24 dev eth0`."""
    ips(*(f"addr add {each}" for each in which))


def pod(name: str, end: str, address: str, gateway: str, *, master: str = "") -> None:
    """A container: its `eth0` has the address and a default route, the VM's end is `end`."""
    ips(f"link add {end} type veth peer eth0 netns {name}", f"link set {end} up")
    if master:
        ips(f"link set {end} master {master}")
    ips(
        "link set lo up",
        "link set eth0 up",
        f"addr add {address} dev eth0",
        f"route add {gateway} dev eth0",
        f"route add default via {gateway}",
        netns=name,
    )
    await_links(name, "eth0")
    await_links(VM, end)


class Kernel(KernelPart):
    """The kernel, looked at again soon though the loop's interval is long."""

    def _lasts(self) -> float:
        return LASTS / 2


class NoCharon:
    """A charon that cannot be started."""

    def adopt(self, config: Config) -> None:
        """Nothing here depends on it."""

    def outdate(self) -> None:
        """Nothing is kept."""

    def readings(self) -> tuple[Reading, ...]:
        """None runs."""
        return ()

    async def perform(self, step: CharonStep) -> None:
        """All that is asked of a charon."""
        raise CharonStartError(f"{step}: there is no charon in this test")


class Agent:
    """The loop while it runs."""

    def __init__(self, loop: Reconciler) -> None:
        self.loop = loop

    async def until(self, what: Callable[[Snapshot], bool]) -> Snapshot:
        """The first pass's picture for which something holds."""
        async with asyncio.timeout(SOON):
            while True:
                snapshot = self.loop.snapshot
                if snapshot is not None and what(snapshot):
                    return snapshot
                await asyncio.sleep(0.02)

    async def settled(self) -> Snapshot:
        """The picture once nothing is left to do, some passes from now."""
        async with asyncio.timeout(2 * SOON):
            await self.loop.passed()
            snapshot = await self.loop.passed()
        guard = snapshot.desired.guard
        assert guard is not None
        assert snapshot.observed.guard is not None
        assert snapshot.observed.guard.exempt == guard.exempt
        assert snapshot.observed.guard.overlay_ports == guard.overlay_ports
        return snapshot


@contextlib.asynccontextmanager
async def agent(tmp_path: Path, **section: object) -> AsyncIterator[Agent]:
    """An agent on the VM, its first pass done; `section` is the config's."""
    section = {"state_dir": str(tmp_path), "run_dir": str(tmp_path), **section}
    made = config((SUBNET,), agent=AgentConfig(**section))  # type: ignore[arg-type]

    async with open_xfrm() as xfrm, open_links() as links:
        kernel = Kernel(made, xfrm, links, Nft())
        machine = Machine(cast("CharonPart", NoCharon()), kernel, ClockReader(made))
        loop = Reconciler(machine, made, lambda _: None)
        listening = asyncio.create_task(kernel.watch(loop.heard))
        running = asyncio.create_task(loop.run())
        try:
            running_agent = Agent(loop)
            await running_agent.until(lambda seen: seen.observed.guard is not None)
            await running_agent.settled()
            yield running_agent
        finally:
            for task in (listening, running):
                task.cancel()
            await asyncio.gather(listening, running, return_exceptions=True)


# --- packets ----------------------------------------------------------------------------------


class Wires:
    """What the VM sends by either NIC, taken in the hub, below every guard."""

    def __init__(self, *links: str) -> None:
        self._wires = tuple(Capture(HUB, name) for name in links or ("h0", "h1"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self._wires:
            wire.__exit__()

    def clear(self, wait: float = 0.2) -> list[Seen]:
        """Packets in clear between encrypted addresses since it was last asked."""
        time.sleep(wait * SCALE)
        return [
            seen
            for wire in self._wires
            for seen in wire.packets(0)
            if ip_address(seen.source) in ENCRYPTED and ip_address(seen.target) in ENCRYPTED
        ]


EVERY = 0.001
"""Seconds between two packets of a stream."""


class Stream:
    """Datagrams of an ordinary program of the VM, each with the time it was sent at."""

    def __init__(self, target: str, source: str = "", link: str = "") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if source:
            self._socket.bind((source, 0))
        if link:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        self._target = (target, 9)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _send(self) -> None:
        while not self._ended.wait(EVERY):
            with contextlib.suppress(OSError):
                self._socket.sendto(repr(time.monotonic()).encode(), self._target)
            self.sent += 1


PAUSE = 10 * EVERY
"""Seconds between two packets that count at the most: for longer this process had no CPU, and with
it neither the stream nor the agent."""


def seconds_in_clear(packets: list[Seen]) -> float:
    """How long datagrams of a stream went out in clear, from the first to the last."""
    sent = sorted(float(seen.raw[28:]) for seen in packets if seen.protocol == socket.IPPROTO_UDP)
    return sum(min(after - before, PAUSE) for before, after in itertools.pairwise(sent))
