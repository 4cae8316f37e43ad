"""Whether a peer on a link is there, by a real kernel's neighbour discovery."""

import asyncio
import os
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.observed_peers import Neighbour
from ipsec_agent.host.links import open_links
from ipsec_agent.host.neighbours import Neighbours
from tests.charon.nodes import ips, remove
from tests.kernel.conftest import Run

pytestmark = pytest.mark.kernel

THERE = ("10.5.0.2", "fd00:5::2")
NOBODY = ("10.5.0.3", "fd00:5::3")
FAR = ("10.6.0.2", "fd00:6::2")
SOON = 15.0


@pytest.fixture
def other(namespace: Run) -> Iterator[str]:
    """The name of another VM, on a link of this one."""
    name = f"near-{os.getpid()}"
    try:
        ips(f"netns add {name}")
        namespace("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", name)
        namespace("ip", "link", "set", "v0", "up")
        namespace("ip", "addr", "add", "10.5.0.1/24", "dev", "v0")
        namespace("ip", "addr", "add", "fd00:5::1/64", "dev", "v0", "nodad")
        ips(
            "link set v1 up",
            "addr add 10.5.0.2/24 dev v1",
            "addr add fd00:5::2/64 dev v1 nodad",
            netns=name,
        )
        yield name
    finally:
        remove([name])


async def facts() -> NetworkFacts:
    """This VM's links and addresses."""
    async with open_links() as links:
        return await links.facts()


async def known(reader: Neighbours, count: int) -> dict[str, Neighbour]:
    """What is known once each of so many has answered or failed."""
    network, end = await facts(), time.monotonic() + SOON
    found: dict[str, Neighbour] = {}
    while time.monotonic() < end:
        found = {str(one.address): one for one in reader.get(network)}
        if sum(bool(one.answered) or one.failed for one in found.values()) == count:
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(found)


async def test_who_answers(other: str) -> None:
    """Nobody sends anything, and it is known who is there; of whom is beyond a router, nothing."""
    _ = other
    reader = Neighbours()
    assert reader.get(await facts()) == ()
    reader.want(map(ip_address, (*THERE, *NOBODY, *FAR)))
    assert reader.wanted

    found = await known(reader, 4)

    assert {name for name, one in found.items() if one.failed} == set(NOBODY)
    for name in THERE:
        assert 0 <= time.time() - found[name].answered < 2 * SOON
        assert not found[name].failed
    assert reader.get(None) == ()


async def test_one_that_vanishes(
    other: str, namespace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again, and does not answer; one that takes its address does."""
    monkeypatch.setattr("ipsec_agent.host.neighbours.ASK_EACH", 0.0)
    reader = Neighbours()
    reader.want([ip_address(THERE[0])])
    assert not (await known(reader, 1))[THERE[0]].failed
    ips(f"addr del {THERE[0]}/24 dev v1", netns=other)
    # What was confirmed a moment ago counts for up to a minute.
    namespace("ip", "neigh", "flush", "dev", "v0")
    assert (await known(reader, 1))[THERE[0]].failed
    ips(f"addr add {THERE[0]}/24 dev v1", netns=other)
    namespace("ip", "neigh", "flush", "dev", "v0")
    assert not (await known(reader, 1))[THERE[0]].failed
