"""Settings that undo IPsec, with real sysctls: they do what is said of them, and are found."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.model import Direction
from ipsec_agent.core.switch import Switch, SwitchKind
from ipsec_agent.host.switches import SwitchesReader
from ipsec_agent.host.xfrm import open_xfrm
from tests.charon.nodes import Node, ip, network
from tests.lab.namespaces import inside

pytestmark = pytest.mark.kernel

IPV4, IPV6 = ("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")
BIT = {4: 32, 6: 128}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A VM and a neighbour with both families, without agents."""
    with network(tmp_path, 2, "sw") as nodes:
        for number, each in enumerate(nodes, 1):
            ip("addr", "add", f"fd09::{number}/64", "dev", "eth0", "nodad", netns=each.name)
        # What blocks a neighbour's packets blocks its advertisements, too.
        known = ("lladdr", hardware(nodes[1]), "dev", "eth0", "nud", "permanent")
        ip("neigh", "replace", IPV6[1], *known, netns=nodes[0].name)
        yield nodes[0]


def hardware(node: Node) -> str:
    """The address of its NIC."""
    link = json.loads(ip("-json", "link", "show", "dev", "eth0", netns=node.name))[0]
    return str(link["address"])


def write(node: Node, path: str, value: int) -> None:
    """Write a sysctl of the VM."""
    words = ("sh", "-c", f"echo {value} > /proc/sys/{path}")
    subprocess.run(node.command(*words), check=True, timeout=20)


def echoed(node: Node, address: str) -> bool:
    """Whether the neighbour answers."""
    words = ("ping", "-n", "-c", "1", "-W", "1", address)
    done = subprocess.run(node.command(*words), check=False, capture_output=True, timeout=20)
    return done.returncode == 0


def switches(node: Node) -> tuple[Switch, ...]:
    """What the agent reads."""
    with inside(node.name):
        return SwitchesReader(lambda: 0.0).get()


def block(node: Node, direction: str, source: str, destination: str) -> None:
    """A policy that nothing passes that asks for it, as a trap where there is no SA."""
    ends = ("src", source, "dst", destination)
    ip("xfrm", "policy", "add", *ends, "dir", direction, "action", "block", netns=node.name)


@pytest.mark.parametrize("link", ["eth0", "all"])
@pytest.mark.parametrize(
    ("kind", "family", "direction"),
    [
        (SwitchKind.DISABLE_XFRM, 4, "out"),
        (SwitchKind.DISABLE_POLICY, 4, "in"),
        (SwitchKind.DISABLE_POLICY, 6, "in"),
    ],
)
def test_found(node: Node, kind: SwitchKind, family: int, direction: str, link: str) -> None:
    """Each lets a packet past a policy, is found, and is gone once it is put back."""
    own, other = IPV4 if family == 4 else IPV6
    ends = (own, other) if direction == "out" else (other, own)
    block(node, direction, *(f"{end}/{BIT[family]}" for end in ends))
    path = f"net/ipv{family}/conf/{link}/{kind}"
    assert not echoed(node, other)
    assert switches(node) == ()

    write(node, path, 1)
    assert echoed(node, other)
    assert switches(node) == (Switch(kind, family, link, path),)

    write(node, path, 0)
    assert not echoed(node, other)
    assert switches(node) == ()


def test_default_is_for_links_to_come(node: Node) -> None:
    """It changes nothing by itself, and is not told; the link that comes is."""
    write(node, "net/ipv4/conf/default/disable_xfrm", 1)
    assert switches(node) == ()

    ip("link", "add", "d0.7", "type", "bridge", netns=node.name)
    path = "net/ipv4/conf/d0.7/disable_xfrm"
    assert switches(node) == (Switch(SwitchKind.DISABLE_XFRM, 4, "d0.7", path),)
    words = ("sysctl", "-w", f"{path}=0")
    subprocess.run(node.command(*words), check=True, capture_output=True, timeout=20)
    assert switches(node) == ()


def test_a_reading_stands_for_a_while(node: Node) -> None:
    """Only where nothing is on: what an operator puts back is seen at once."""
    with inside(node.name):
        reader = SwitchesReader(lambda: 60.0)
        assert reader.get() == ()
        write(node, "net/ipv4/conf/eth0/disable_xfrm", 1)
        assert reader.get() == ()
        fresh = SwitchesReader(lambda: 60.0)
        assert fresh.get() != ()
        write(node, "net/ipv4/conf/eth0/disable_xfrm", 0)
        assert fresh.get() == ()


async def blocks_by_default() -> tuple[Direction, ...]:
    """What the agent reads."""
    async with open_xfrm() as xfrm:
        return await xfrm.default_blocks()


def test_default_policy(node: Node) -> None:
    """`ip xfrm policy setdefault` blocks what no policy selects, and is read in each direction."""
    setdefault = ("xfrm", "policy", "setdefault")
    with inside(node.name):
        assert asyncio.run(blocks_by_default()) == ()
        assert echoed(node, IPV4[1])

        ip(*setdefault, "out", "block", netns=node.name)
        assert not echoed(node, IPV4[1])
        assert asyncio.run(blocks_by_default()) == (Direction.OUT,)
        ip(*setdefault, "out", "accept", "in", "block", "fwd", "block", netns=node.name)
        assert asyncio.run(blocks_by_default()) == (Direction.IN, Direction.FWD)
        ip(*setdefault, "in", "accept", "fwd", "accept", netns=node.name)
        assert asyncio.run(blocks_by_default()) == ()


async def test_default_policy_wakes(node: Node) -> None:
    """The kernel tells that it changed."""
    woken = asyncio.Event()
    with inside(node.name):
        async with open_xfrm() as xfrm:
            watcher = asyncio.create_task(xfrm.watch(woken.set))
            async with asyncio.timeout(5):
                await woken.wait()
                woken.clear()
                ip("xfrm", "policy", "setdefault", "fwd", "block", netns=node.name)
                await woken.wait()
            watcher.cancel()
            await asyncio.wait({watcher})
