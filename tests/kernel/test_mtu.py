"""The remedy on a real kernel: both ends of a container's veth, and the bridge between."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.mtu import Carriage, judge_links, suites, wanted
from ipsec_agent.errors import KernelError
from ipsec_agent.host.links import Links, open_links
from ipsec_agent.host.veth import lower_inner_end
from tests.charon.nodes import ip
from tests.kernel.conftest import Run

pytestmark = pytest.mark.kernel

INNER = f"mt{os.getpid()}"


@pytest.fixture
def vm(namespace: Run) -> Iterator[Run]:
    """A VM with the uplink v0, and a container whose eth0 is veth1's other end, below docker0."""
    ip("netns", "add", INNER)
    try:
        namespace("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        namespace("ip", "link", "add", "docker0", "type", "bridge")
        peer = ("peer", "name", "eth0", "netns", INNER)
        namespace("ip", "link", "add", "veth1", "master", "docker0", "type", "veth", *peer)
        for name in ("v0", "v1", "docker0", "veth1"):
            namespace("ip", "link", "set", name, "up")
        ip("link", "set", "eth0", "up", netns=INNER)
        yield namespace
    finally:
        ip("netns", "del", INNER)


def inner_mtu() -> int:
    """The MTU that the container itself sees."""
    return int(ip("-o", "link", "show", "eth0", netns=INNER).split(" mtu ")[1].split()[0])


async def index_of(links: Links, name: str) -> int:
    """A link's index."""
    return next(link.index for link in (await links.facts()).links if link.name == name)


async def test_fix(vm: Run) -> None:
    """What is wanted is applied, inside the container, too; then nothing is left to do."""
    carriage = Carriage(suites(()))
    async with open_links() as links:
        network = await links.facts()
        uplinks = tuple(link for link in network.links if link.name == "v0")
        found = judge_links(uplinks, network, carriage)
        assert {misfit.link.name: misfit.link.elsewhere for misfit in found} == {
            "docker0": False,
            "veth1": True,
            "v1": False,
        }
        assert network.may_enter

        for index, mtu in wanted(found, may_enter=True):
            await lower_inner_end(index, mtu)
            await links.set_mtu(index, mtu)

        after = await links.facts()
    assert judge_links(uplinks, after, carriage) == ()
    assert inner_mtu() == 1466
    assert {link.name: link.mtu for link in after.links}["v0"] == 1500


async def test_smaller_is_left_alone(vm: Run) -> None:
    """An inner end that is small enough stays as it is."""
    ip("link", "set", "eth0", "mtu", "1300", netns=INNER)
    async with open_links() as links:
        await lower_inner_end(await index_of(links, "veth1"), 1466)
    assert inner_mtu() == 1300


async def test_others_are_left_alone(vm: Run) -> None:
    """A bridge, and a veth whose ends are both here, have no inner end."""
    async with open_links() as links:
        for name in ("docker0", "v1"):
            await lower_inner_end(await index_of(links, name), 1400)
        assert {link.name: link.mtu for link in (await links.facts()).links}["v0"] == 1500


@pytest.fixture
def nameless(vm: Run) -> Iterator[int]:
    """A process in a namespace that has no name, as a container's is."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
        holder.kill()


async def test_namespace_of_a_process(vm: Run, nameless: int) -> None:
    """A namespace that has no name is found by a process in it."""
    peer = ("peer", "name", "eth0", "netns", str(nameless))
    vm("ip", "link", "add", "veth2", "type", "veth", *peer)
    async with open_links() as links:
        await lower_inner_end(await index_of(links, "veth2"), 1234)

    shown = vm("nsenter", f"--net=/proc/{nameless}/ns/net", "ip", "-o", "link", "show", "eth0")
    assert " mtu 1234 " in shown


async def test_no_such_link(vm: Run) -> None:
    """A link that has gone is the kernel's error, with what to do instead."""
    with pytest.raises(KernelError) as caught:
        await lower_inner_end(9999, 1466)
    assert "9999" in caught.value.message
    assert "1466" in caught.value.hint


def own_namespace() -> Path:
    """What this thread's network namespace is."""
    return Path("/proc/thread-self/ns/net").readlink()


async def test_this_thread_stays(vm: Run) -> None:
    """Afterwards the process is where it was."""
    before = own_namespace()
    async with open_links() as links:
        await lower_inner_end(await index_of(links, "veth1"), 1400)
    assert own_namespace() == before
    assert inner_mtu() == 1400
