"""Links, addresses and default routes of a real kernel, in a namespace of the test's own."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from ipsec_agent import machine_check
from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.observed import Link, NetworkFacts, OwnAddress
from ipsec_agent.errors import KernelError
from ipsec_agent.host.links import Links, open_links
from tests.configs import config
from tests.kernel.conftest import Run
from tests.lab.namespaces import await_links_here

pytestmark = pytest.mark.kernel

SOON = 5.0
QUIET = 0.3


@pytest.fixture
def machine(namespace: Run) -> Run:
    """A VM with two uplinks (v0, v2) and a bridge; gives a function that runs ip's lines."""

    def ip(*lines: str) -> str:
        return namespace("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    ip(
        "link add v0 mtu 1450 address 02:00:00:00:00:01 type veth peer name v1",
        "link add v2 type veth peer name v3",
        "link add br0 type bridge",
        "link set v3 master br0",
        *(f"link set {name} addrgenmode none" for name in ("v0", "v1", "v2", "v3", "br0")),
        *(f"link set {name} up" for name in ("v0", "v1", "v2", "v3")),
        "addr add 10.5.0.1/24 dev v0",
        "addr add 10.7.0.1 peer 10.7.0.2/32 dev v2",
        "addr add fd00:5::1/64 dev v0 nodad",
    )
    # What tells that a link has become ready comes by itself, and is heard by who listens.
    await_links_here("v0", "v1", "v2", "v3")
    return ip


async def facts() -> NetworkFacts:
    """What is read."""
    async with open_links() as links:
        return await links.facts()


def named(found: NetworkFacts) -> dict[str, Link]:
    """The links by name."""
    return {link.name: link for link in found.links}


async def test_links(machine: Run) -> None:
    """A link's MTU, state, kind, bridge and MAC are the kernel's."""
    links = named(await facts())

    assert set(links) == {"lo", "v0", "v1", "v2", "v3", "br0"}
    assert links["v0"] == Link(
        links["v0"].index,
        "v0",
        1450,
        up=True,
        kind="veth",
        lower=links["v1"].index,
    )
    assert links["lo"].loopback
    assert (links["br0"].kind, links["br0"].up, links["lo"].kind) == ("bridge", False, "")
    assert links["v3"].master == links["br0"].index


async def test_other_names(machine: Run) -> None:
    """Those of `ip link property` are told, too; `check --machine` finds them."""
    machine("link property add dev v0 altname ens3 altname the-first-link-of-this-vm")

    assert named(await facts())["v0"].altnames == ("ens3", "the-first-link-of-this-vm")
    uplinks = ("ens3", "v2", "the-first-link-of-this-vm")
    config_named = config(agent=AgentConfig(uplinks=uplinks, inside=("ens4",)))
    assert machine_check._links(config_named) == (
        ("links: agent.inside names ens4, and this VM has no such link",),
        (),
    )


async def test_addresses(machine: Run) -> None:
    """Addresses of both families; of a point-to-point link the own one."""
    found = await facts()
    links = named(found)

    assert set(found.addresses) == {
        OwnAddress(ip_address("127.0.0.1"), 8, links["lo"].index),
        OwnAddress(ip_address("::1"), 128, links["lo"].index),
        OwnAddress(ip_address("10.5.0.1"), 24, links["v0"].index),
        OwnAddress(ip_address("10.7.0.1"), 32, links["v2"].index),
        OwnAddress(ip_address("fd00:5::1"), 64, links["v0"].index),
    }


@pytest.mark.parametrize(
    ("routes", "links", "gateways"),
    [
        ([], [], []),
        (["default via 10.5.0.254"], ["v0"], ["10.5.0.254"]),
        (["default dev v2"], ["v2"], []),
        (
            ["default via 10.5.0.254 metric 20", "default via 10.7.0.2 metric 10"],
            ["v2", "v0"],
            ["10.7.0.2", "10.5.0.254"],
        ),
        (
            ["default nexthop via 10.5.0.254 dev v0 nexthop via 10.7.0.2 dev v2"],
            ["v0", "v2"],
            ["10.5.0.254", "10.7.0.2"],
        ),
        (["0.0.0.0/0 via inet6 fd00:5::fe dev v0"], ["v0"], ["fd00:5::fe"]),
        (
            ["default via 10.5.0.254", "default via fd00:5::fe"],
            ["v0"],
            ["10.5.0.254", "fd00:5::fe"],
        ),
        (["unreachable default", "10.9.0.0/16 via 10.5.0.254"], [], []),
        (["unreachable ::/0"], [], []),
        (["default via 10.5.0.254 table 100"], [], []),
    ],
)
async def test_default_routes(
    machine: Run, routes: list[str], links: list[str], gateways: list[str]
) -> None:
    """Default routes of the main table give links and gateways, the preferred ones first."""
    machine(*(f"route add {route}" for route in routes))

    found = await facts()

    names = {link.index: link.name for link in found.links}
    assert links == [names[index] for index in found.default_links]
    assert gateways == [str(gateway) for gateway in found.gateways]


async def test_set_mtu(machine: Run) -> None:
    """An MTU that is set is read back; what the link cannot carry is refused."""
    async with open_links() as links:
        index = named(await links.facts())["v0"].index
        await links.set_mtu(index, 1400)
        with pytest.raises(KernelError, match=f"MTU of link {index} to 70000") as large:
            await links.set_mtu(index, 70000)
        with pytest.raises(KernelError) as absent:
            await links.set_mtu(9999, 1400)

        assert named(await links.facts())["v0"].mtu == 1400

    assert (large.value.code, absent.value.code) == (errno.EINVAL, errno.ENODEV)


@asynccontextmanager
async def rings(links: Links) -> AsyncIterator[asyncio.Queue[None]]:
    """One entry for each ring of the watch; those at the start are over."""
    heard: asyncio.Queue[None] = asyncio.Queue()
    task = asyncio.create_task(links.watch(lambda: heard.put_nowait(None)))
    try:
        async with asyncio.timeout(SOON):
            await heard.get()
        await asyncio.sleep(QUIET)
        while not heard.empty():
            heard.get_nowait()
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "change",
    [
        "link set v0 mtu 1400",
        "link property add dev v0 altname ens3",
        "link set v2 down",
        "link del v2",
        "addr add 10.6.0.1/24 dev v0",
        "addr del 10.5.0.1/24 dev v0",
        "addr add fd00:6::1/64 dev v0",
        "addr del fd00:5::1/64 dev v0",
        "route add default via 10.5.0.254",
        "route add default via fd00:5::fe",
    ],
)
async def test_watch_wakes(machine: Run, change: str) -> None:
    """Each change of a link, address or default route wakes."""
    async with open_links() as links, rings(links) as heard:
        await asyncio.to_thread(machine, change)
        async with asyncio.timeout(SOON):
            await heard.get()


@pytest.mark.parametrize(
    "change",
    [
        "route add 10.9.0.0/16 via 10.5.0.254",
        "neigh add 10.5.0.7 lladdr 02:00:00:00:00:07 dev v0",
        "rule add from 10.5.0.0/24 lookup 100",
    ],
)
async def test_watch_sleeps_through_other_things(machine: Run, change: str) -> None:
    """A route to one network, or a neighbour that ARP found, is no reason to look."""
    async with open_links() as links, rings(links) as heard:
        await asyncio.to_thread(machine, change)
        await asyncio.sleep(QUIET)

        assert heard.empty()


async def test_a_nexthop_takes_its_routes_along(machine: Run) -> None:
    """The kernel tells of the nexthop only, and not of the default route that went with it."""
    machine("nexthop add id 7 via 10.5.0.254 dev v0", "route add default nhid 7")
    async with open_links() as links, rings(links) as heard:
        assert (await links.facts()).gateways == (ip_address("10.5.0.254"),)
        await asyncio.to_thread(machine, "nexthop del id 7")
        async with asyncio.timeout(SOON):
            await heard.get()
        assert (await links.facts()).gateways == ()


async def test_nobody_sets_an_mtu(machine: Run) -> None:
    """Without privilege the refusal says what to do."""
    os.seteuid(65534)
    try:
        async with open_links() as links:
            with pytest.raises(KernelError) as caught:
                await links.set_mtu(1, 1400)
    finally:
        os.seteuid(0)

    assert caught.value.code == errno.EPERM
    assert "run as root" in caught.value.hint
