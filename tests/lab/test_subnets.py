"""Several ipsec subnets: each pair of VMs has its SA, whichever of them begins."""

from pathlib import Path

import pytest

from tests.charon.nodes import SCALE, Node, ip, network
from tests.lab import judge
from tests.lab.deployment import A, B, configure, hub_of, start
from tests.lab.traffic import first_answer
from tests.lab.truth import charon_of
from tests.lab.wire import Capture

pytestmark = [pytest.mark.esp, pytest.mark.timeout(400)]

A6, B6, SUBNET6 = "fd09::1", "fd09::2", "fd09::/64"

LISTS = (
    # Both VMs are in the second subnet, and in the third with their IPv6 addresses.
    ["10.8.0.0/16", "10.9.0.0/24", SUBNET6],
    # Each is in one of its own.
    ["10.9.0.0/31", "10.9.0.2/31", SUBNET6],
    # One is within the other.
    ["10.0.0.0/8", "10.9.0.0/24", SUBNET6],
)


def end_sas(node: Node) -> None:
    """End the SAs of a VM, and with them its peer's."""
    with charon_of(node) as session:
        for found in list(session.list_sas()):
            for sa in found.values():
                list(session.terminate({"ike-id": sa["uniqueid"]}))


@pytest.mark.parametrize("lists", [2, pytest.param(3, marks=pytest.mark.long)])
def test_several_subnets(tmp_path: Path, lists: int) -> None:
    """Whoever begins, the peer answers with the connection of the subnet that the other is in."""
    with network(tmp_path, 2, "su") as nodes:
        a, b = nodes
        for node, address in ((a, A6), (b, B6)):
            ip("addr", "add", f"{address}/64", "dev", "eth0", "nodad", netns=node.name)
        configure(nodes, [], LISTS[0])
        start(nodes)
        with Capture(hub_of(nodes)) as capture:
            for number, subnets in enumerate(LISTS[:lists]):
                configure(nodes, [], subnets)
                for node in nodes:
                    assert node.ask("reload").returncode == 0
                    node.settled()
                pairs = [(a, B), (b, A6 if number == 0 else A)]
                # The agents would ask a peer that is gone for an SA at once.
                with a.held(), b.held():
                    for node, address in pairs:
                        end_sas(node)
                        assert first_answer(node, address) < 5 * SCALE
            judge.end(capture, a.name, A, B)
        assert capture.clear() == {}
