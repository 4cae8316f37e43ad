"""Containers whose packets do not fit into ESP: what is lost before the remedy, and not after."""

import asyncio
import socket
from pathlib import Path

import pytest

from ipsec_agent.core.mtu import Carriage, judge_links, suites, wanted
from ipsec_agent.host.links import open_links
from ipsec_agent.host.veth import lower_inner_end
from tests.charon.nodes import SCALE, Node, ip, network
from tests.lab.container import PORT, container
from tests.lab.deployment import A, B, configure, hub_of, start
from tests.lab.judge import assert_only_esp
from tests.lab.namespaces import inside
from tests.lab.traffic import first_answer, transfer
from tests.lab.wire import Capture

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

BULK = 10_000


def arrives(sender: str, receiver: str, listen: str) -> bool:
    """Whether a few full segments arrive over TCP within some seconds, or none of them."""
    with inside(receiver):
        listener = socket.create_server((listen, PORT))
    with inside(sender):
        out = socket.create_connection((B, PORT), 5 * SCALE)
    with listener, out, listener.accept()[0] as channel:
        channel.settimeout(SCALE)
        sent = out.send(bytes(BULK))
        received = 0
        try:
            while received < sent:
                received += len(channel.recv(BULK))
        except TimeoutError:
            assert received == 0
            return False
        return True


def set_mtu(node: Node, name: str, mtu: int) -> None:
    """Set both ends of a container's veth."""
    ip("link", "set", "c0", "mtu", str(mtu), netns=node.name)
    ip("link", "set", "eth0", "mtu", str(mtu), netns=name)


async def fix() -> dict[str, int]:
    """Do in this namespace what `agent.mtu: fix` means; gives what was lowered."""
    async with open_links() as links:
        facts = await links.facts()
        uplinks = tuple(link for link in facts.links if link.name == "eth0")
        found = judge_links(uplinks, facts, Carriage(suites(())))
        for index, mtu in wanted(found, may_enter=True):
            await lower_inner_end(index, mtu)
            await links.set_mtu(index, mtu)
    return {misfit.link.name: misfit.fits for misfit in found}


def test_the_remedy_is_exact(tmp_path: Path) -> None:
    """Container to container: a byte too much and nothing large arrives; with the remedy all."""
    with network(tmp_path, 2, "mt") as nodes:
        configure(nodes, [])
        start(nodes)
        a, b = nodes
        with container(a, 1) as (near, _), container(b, 2) as (far, far_at):
            first_answer(a, B)
            for mtu in (1500, 1467):
                set_mtu(a, near, mtu)
                set_mtu(b, far, mtu)
                assert not arrives(near, far, far_at)

                lowered = []
                for node in nodes:
                    with inside(node.name):
                        lowered.append(asyncio.run(fix()))
                assert lowered == [{"c0": 1466}] * 2

                assert arrives(near, far, far_at)
                with Capture(hub_of(nodes)) as capture:
                    bulk = transfer(near, far, B, 1_000_000, listen=far_at)
                    assert_only_esp(capture, a.name, A, B, bulk, at_least=600, esp=600)
