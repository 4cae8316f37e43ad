"""The VMs that many tests share: to start them takes longer than most tests."""

from collections.abc import Iterator

import pytest

from tests.charon.nodes import Node, network
from tests.lab.deployment import C, configure, start


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three VMs: two encrypt, the third is in no_ipsec_subnets."""
    with network(tmp_path_factory.mktemp("vms"), 3, "es") as nodes:
        configure(nodes, [f"{C}/32"])
        start(nodes)
        yield nodes


@pytest.fixture
def three(running: list[Node]) -> list[Node]:
    """The same three VMs, healthy again after what the test before did to them."""
    for node in running:
        if node.agent is None or node.agent.poll() is not None:
            node.start()
    for node in running:
        node.settled()
    return running
