"""30 VMs as namespaces on this machine's own kernel: policies, processes and memory of each."""

from pathlib import Path

import psutil
import pytest

from tests.certificates import make_ca, make_leaf
from tests.charon.nodes import Node, network, until
from tests.manifests import manifest

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(400)]

VMS = 30
EXEMPT = 30
"""The last VM stands in no_ipsec_subnets."""


def expected(number: int) -> list[str]:
    """The policies of the VM with that number."""
    shunt = [
        f"0.0.0.0/0 10.9.0.{EXEMPT}/32 out",
        f"10.9.0.{EXEMPT}/32 0.0.0.0/0 fwd",
        f"10.9.0.{EXEMPT}/32 0.0.0.0/0 in",
    ]
    own, all_of_us = f"10.9.0.{number}/32", "10.9.0.255/32"
    trap = [
        f"10.9.0.0/24 {own} in",
        f"{own} 10.9.0.0/24 out",
        f"0.0.0.0/0 {all_of_us} out",
        f"{all_of_us} 0.0.0.0/0 fwd",
        f"{all_of_us} 0.0.0.0/0 in",
    ]
    return sorted(shunt if number == EXEMPT else shunt + trap)


def resident(node: Node) -> tuple[int, int]:
    """MiB of the agent and of charon."""
    assert node.agent is not None
    # The first process is ip(8)'s own exec; it has become the agent.
    agent = psutil.Process(node.agent.pid).memory_info().rss
    return agent >> 20, psutil.Process(node.charon_pid).memory_info().rss >> 20


def test_thirty_vms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every trap and shunt of each is in its kernel; every agent and charon lives."""
    ca = make_ca()
    leaf = make_leaf(ca)
    with network(tmp_path, VMS, "fl") as nodes:
        for node in nodes:
            node.config.write_text(
                manifest(
                    ["10.9.0.0/24"],
                    [f"10.9.0.{EXEMPT}/32"],
                    leaf=leaf,
                    cas=[ca],
                    agent=node.agent_section(),
                    prestart_timeout=120,
                )
            )
            node.start()
        for number, node in enumerate(nodes, 1):
            until(
                lambda node=node, number=number: node.policies() == expected(number),  # type: ignore[misc]
                f"policies of {node.name}: {node.policies()} {node.log}",
                120,
            )
        lines = []
        for number, node in enumerate(nodes, 1):
            status = node.settled()
            assert status["role"] == ("clear" if number == EXEMPT else "encrypt")
            assert status["policies"]["missing"] == status["policies"]["foreign"] == []
            agent, charon = resident(node)
            lines.append(f"VM {number:2}: agent {agent} MiB, charon {charon} MiB")
            assert agent < 150
            assert charon < 50
    with capsys.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201 - the issue of this test is to show it
