"""A bed for faults: two VMs, or more, with floods that go on while one thing after another happens.

Floods and agents start once, since that takes longer than most faults.
"""

import contextlib
import functools
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.charon.nodes import SCALE, Node, ip, network, until
from tests.lab.container import container
from tests.lab.deployment import configure, hub_of, start
from tests.lab.floods import Flood, flood
from tests.lab.judge import Pair
from tests.lab.truth import Entry, Events, Kernel, TableEvents

RATE = 1000 if SCALE == 1 else 400
"""Packets a second of each of two floods; more of them share as many. In a slow guest a moment
without protection lasts as much longer, and encrypting 2,000 of them a second takes all of its CPU,
which the agents have on a real machine."""

LONG = 3600.0
UDP_OUT, UDP_BACK, TCP = "udp a>b", "udp b>a", "tcp b>a"
INSIDE_UDP, INSIDE_TCP = "udp a's container>b's", "tcp b's container>a's"
SECOND, SECOND_OUT = "tcp b>a, second link", "udp a>b, second link"
FLOATING = "udp b>floating address"
TOWARDS_A = {UDP_BACK, TCP, INSIDE_TCP, SECOND, FLOATING}
"""The floods that VM b begins; of the others VM a is the sender."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a matrix runs in.

    Attributes:
        flows: the floods.
        containers: behind both VMs, with the translation and so the tracking of connections.
        version: of IP.
        nics: of each VM.
    """

    name: str
    flows: tuple[str, ...]
    containers: bool = False
    version: int = 4
    nics: int = 1

    @property
    def rate(self) -> int:
        """Packets a second of each flood."""
        return 2 * RATE // len(self.flows)

    @property
    def floating(self) -> str:
        """The address that moves: at first VM a has it on its first link."""
        return self.address(100)

    @property
    def vms(self) -> int:
        """Two, and a third where an address moves."""
        return 1 + self.nics

    def address(self, number: int, nic: int = 0) -> str:
        """The address of a VM on one of its links, as the kernel writes it."""
        text = f"10.9.{nic}.{number}" if self.version == 4 else f"fd09::{nic}:{number:x}"
        return str(ip_address(text))

    def gateway(self, nic: int = 0) -> str:
        """Where a default route leads to, which is nobody."""
        return self.address(254, nic)

    @property
    def subnet(self) -> str:
        """What is encrypted."""
        if self.version == 6:
            return "fd09::/64"
        return "10.9.0.0/24" if self.nics == 1 else "10.9.0.0/23"

    def write(
        self,
        nodes: Sequence[Node],
        number: int,
        encrypted: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """Write the config of one VM; `more` is for `configure`."""
        configure(nodes[number - 1 : number], [], encrypted or [self.subnet], **more)


BARE = Setting("bare", (UDP_OUT, TCP))
CONTAINERS = Setting("containers", (INSIDE_UDP, INSIDE_TCP), containers=True)
TRACKED = Setting("connections tracked", (UDP_BACK, TCP), containers=True)
IPV6 = Setting("IPv6", (UDP_OUT, TCP), version=6)
TWO_NICS = Setting("two NICs", (UDP_OUT, FLOATING, SECOND, SECOND_OUT), nics=2)
"""Both NICs have an encrypted address, and one of them has the default route."""


@dataclass
class Bed:
    """Where a fault happens: on VM a.

    Attributes:
        kernel, events, tables: of VM a.
        floods: by the name of the flow.
        held: sockets that a fault keeps open until it is over.
        told: the agent of VM a has been told to take another config.
        ended: the CHILD_SAs of VM a, by number, that a fault ends.
    """

    setting: Setting
    nodes: list[Node]
    kernel: Kernel
    events: Events
    tables: TableEvents
    floods: dict[str, Flood]
    held: list[socket.socket] = field(default_factory=list)
    told: bool = False
    ended: set[int] = field(default_factory=set)

    @property
    def a(self) -> Node:
        """The VM that has the fault."""
        return self.nodes[0]

    @property
    def b(self) -> Node:
        """Its peer."""
        return self.nodes[1]

    @property
    def one(self) -> str:
        """The address of VM a."""
        return self.setting.address(1)

    @property
    def other(self) -> str:
        """The address of its peer."""
        return self.setting.address(2)

    @property
    def further(self) -> tuple[Pair, ...]:
        """The other addresses of VM a that are flooded, with their peers and links."""
        if self.setting.nics == 1:
            return ()
        own, peer = self.setting.address(1, 1), self.setting.address(2, 1)
        return ((own, peer, "eth1"), (self.setting.floating, self.other, "eth0"))

    @property
    def hub(self) -> str:
        """The namespace of the bridge."""
        return hub_of(self.nodes)

    @property
    def prefix(self) -> str:
        """The length of a VM's own selector."""
        return "32" if self.setting.version == 4 else "128"

    def traps(self) -> frozenset[Entry]:
        """Those of VM a's policies that stand by the config."""
        return self.kernel.traps()

    def settle(self) -> None:
        """Wait until all agents run, no policy is missing, and every flood arrives."""
        for node in self.nodes:
            if node.agent is None or node.agent.poll() is not None:
                node.start()
        for node in self.nodes:
            until(functools.partial(enforces, node), f"{node.name} enforces: {node.log[-2000:]}")
        self.flowing(tuple(self.floods), 10 * SCALE)

    def let_go(self) -> None:
        """Close what a fault held open."""
        for channel in self.held:
            channel.close()
        self.held.clear()

    def flowing(self, names: tuple[str, ...], seconds: float) -> float:
        """Wait until each of these floods arrives at its end; seconds that it took."""
        began = time.monotonic()
        starts = {name: self.floods[name].read().came["received"] for name in names}

        def arrives() -> bool:
            return all(
                self.floods[name].read().came["received"] > count + 5
                for name, count in starts.items()
            )

        until(arrives, f"{names} arrive: {self.a.log[-2000:]}", seconds)
        return time.monotonic() - began


def enforces(node: Node) -> bool:
    """Whether the agent says so; a problem may well outlast its cause for a while."""
    status = node.status()
    missing = status.get("policies", {}).get("missing", ["unknown"])
    return not missing and status["guard"]["state"] in {"up", "none"}


@contextlib.contextmanager
def bed(setting: Setting, directory: Path) -> Iterator[Bed]:
    """The VMs with their agents, and the floods, for as long as the context lasts."""
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(
            network(directory, setting.vms, "mx", version=setting.version, nics=setting.nics)
        )
        for number in range(1, setting.vms + 1):
            setting.write(nodes, number)
        start(nodes)
        names = [node.name for node in nodes]
        inner = {}
        if setting.containers:
            for number, node in enumerate(nodes[:2], 1):
                inner[number] = stack.enter_context(container(node, number))
        if setting.nics > 1:
            ip("addr", "add", setting.floating, "dev", "eth0", netns=nodes[0].name)
            for node in nodes:
                ip("route", "add", "default", "via", setting.gateway(), netns=node.name)
        kernel = stack.enter_context(Kernel(nodes[0].name))
        events = stack.enter_context(Events(nodes[0].name))
        tables = stack.enter_context(TableEvents(nodes[0].name))
        ready = Bed(setting, nodes, kernel, events, tables, {})
        for name in setting.flows:
            ready.floods[name] = stack.enter_context(_flood(name, setting, names, inner))
        ready.settle()
        yield ready


def _flood(
    name: str,
    setting: Setting,
    names: Sequence[str],
    inner: dict[int, tuple[str, str]],
) -> contextlib.AbstractContextManager[Flood]:
    one, other, *others = names
    a, b = setting.address(1), setting.address(2)
    start = functools.partial(flood, protocol=name[:3], rate=setting.rate, seconds=LONG)
    if name == INSIDE_UDP:
        return start(inner[1][0], inner[2][0], b, listen=inner[2][1])
    if name == INSIDE_TCP:
        return start(inner[2][0], inner[1][0], a, listen=inner[1][1])
    if name == FLOATING:
        return start(other, one, setting.floating, port=9004, also=others)
    ends, address, port = {
        UDP_OUT: ((one, other), b, 9001),
        UDP_BACK: ((other, one), a, 9002),
        TCP: ((other, one), a, 9002),
        SECOND: ((other, one), setting.address(1, 1), 9003),
        SECOND_OUT: ((one, other), setting.address(2, 1), 9006),
    }[name]
    return start(*ends, address, port=port)
