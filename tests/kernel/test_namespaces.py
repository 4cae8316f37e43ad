"""Links of a VM's containers, read without entering them, and only where something changed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.observed import Namespace, NetworkFacts
from ipsec_agent.host.links import open_links
from tests.charon.nodes import ips, remove
from tests.kernel.conftest import Run
from tests.kernel.guard_lab import SCALE

pytestmark = pytest.mark.kernel

MANY = 150
"""More than the kernel's list of numbers holds in its first answer."""

SOON = 0.3 * SCALE


@pytest.fixture
def pods(namespace: Run) -> Iterator[list[str]]:
    """Containers, each with one veth to this namespace."""
    _ = namespace
    names = [f"pods-{os.getpid()}-{number}" for number in range(MANY)]
    try:
        ips(*(f"netns add {name}" for name in names))
        ips(
            *(
                f"link add v{number} type veth peer name eth0 netns {name}"
                for number, name in enumerate(names)
            )
        )
        yield names
    finally:
        remove(names)


def by_link(facts: NetworkFacts) -> dict[str, Namespace]:
    """The containers by the name of the VM's end."""
    numbers = {one.number: one for one in facts.namespaces}
    return {
        link.name: numbers[link.namespace] for link in facts.links if link.namespace is not None
    }


async def test_many(pods: list[str]) -> None:
    """Each is read, and of each event only that container again which it is about."""
    async with open_links() as links:
        woken = asyncio.Event()
        listening = asyncio.create_task(links.watch(woken.set))
        try:
            await asyncio.sleep(SOON)
            first = by_link(await links.facts())
            assert len(first) == len({one.number for one in first.values()}) == MANY
            assert all(len(one.links) == 2 for one in first.values())

            second = by_link(await links.facts())
            assert all(second[name] is one for name, one in first.items()), "nothing is read twice"

            woken.clear()
            await asyncio.to_thread(ips, "link set eth0 up", netns=pods[7])
            async with asyncio.timeout(10 * SOON):
                await woken.wait()
            await asyncio.sleep(SOON)
            third = by_link(await links.facts())
            again = {name for name in first if third[name] is not first[name]}
            # Its own first number for this namespace may be taken for one of ours.
            assert "v7" in again
            assert len(again) <= 2

            await asyncio.to_thread(ips, "link del v9")
            await asyncio.sleep(SOON)
            assert len(by_link(await links.facts())) == MANY - 1
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def bridged() -> Iterator[str]:
    """A container with a bridge and a port, and beside them a link that is no port yet."""
    name = f"pods-{os.getpid()}-bridge"
    try:
        ips(f"netns add {name}", f"link add v0 type veth peer name eth0 netns {name}")
        ips(
            "link add br0 type bridge",
            "link add port type veth peer name other",
            "link set port master br0",
            netns=name,
        )
        yield name
    finally:
        remove([name])


container = pytest.fixture(bridged, name="container")


def bridge(netns: str, command: str) -> None:
    """A command of bridge(8)."""
    subprocess.run(["bridge", "-n", netns, *command.split()], check=True, timeout=60 * SCALE)


async def test_what_a_bridge_tells_of_itself(namespace: Run, container: str) -> None:
    """A port's own state, which a bridge's timers change, wakes nobody; another port does."""
    _ = namespace
    async with open_links() as links:
        woken = asyncio.Event()
        listening = asyncio.create_task(links.watch(woken.set))
        try:
            await asyncio.sleep(SOON)
            # The first event gives that namespace a number for ours, which is one, too.
            for cost in (6, 7):
                woken.clear()
                await asyncio.to_thread(bridge, container, f"link set dev port cost {cost}")
                await asyncio.sleep(2 * SOON)
            assert not woken.is_set()
            before = by_link(await links.facts())["v0"]

            for change in ("link set other master br0", "link set port nomaster"):
                await asyncio.to_thread(ips, change, netns=container)
                async with asyncio.timeout(10 * SOON):
                    await woken.wait()
                await asyncio.sleep(SOON)
                after = by_link(await links.facts())["v0"]
                assert after != before, change
                before = after
                woken.clear()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


ASK = """
import asyncio
from ipsec_agent.host.links import open_links
from ipsec_agent.host.link_events import open_link_events
async def main():
    async with open_links() as links:
        print(len((await links.facts()).namespaces), end=" ")
    with open_link_events() as events:
        print(events.hears_all)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("without", "expected"),
    [((), "1 True"), (("net_broadcast",), "1 False"), (("net_admin",), "0 True")],
    ids=["all", "without CAP_NET_BROADCAST", "without CAP_NET_ADMIN"],
)
def test_as_the_unit_may(namespace: Run, without: tuple[str, ...], expected: str) -> None:
    """The capabilities of ipsec-agent.service are enough, and each of the two is needed."""
    unit = Path(__file__).parents[2] / "systemd/ipsec-agent.service"
    (line,) = (
        line for line in unit.read_text().splitlines() if line.startswith("CapabilityBoundingSet=")
    )
    allowed = [word.removeprefix("CAP_").lower() for word in line.partition("=")[2].split()]
    name = f"pods-{os.getpid()}"
    try:
        ips(f"netns add {name}", f"link add v0 type veth peer name eth0 netns {name}")
        bounding = ",".join(["-all", *(f"+{one}" for one in allowed if one not in without)])
        done = subprocess.run(
            ["setpriv", "--inh-caps=-all", f"--bounding-set={bounding}", sys.executable, "-c", ASK],
            capture_output=True,
            text=True,
            check=True,
            timeout=60 * SCALE,
        )
    finally:
        remove([name])
    assert done.stdout.strip() == expected
    assert namespace("ip", "link", "show", "lo")
