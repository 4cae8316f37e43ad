"""Containers behind encrypting VMs: their traffic works, and is ESP on the wire."""

import subprocess
from pathlib import Path

import pytest

from tests.charon.nodes import network
from tests.lab.container import container
from tests.lab.test_mesh import A, B, configure, hub_of
from tests.lab.traffic import first_answer, ping, transfer
from tests.lab.wire import Capture, assert_only_esp

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def test_both_translations(tmp_path: Path) -> None:
    """Container to VM, container to container, and a VM with its own container."""
    with network(tmp_path, 2, "co") as nodes:
        configure(nodes, [])
        for node in nodes:
            node.start()
        for node in nodes:
            node.settled()
        a, b = nodes
        with (
            container(a, 1) as (near, near_at),
            container(b, 2) as (far, far_at),
            Capture(hub_of(nodes)) as capture,
        ):
            first_answer(a, B)
            # Out of a container, translated on the way; into a container at the other end.
            transfer(near, far, B, 2_000_000, listen=far_at)
            transfer(a.name, far, B, 1_000_000, listen=far_at)
            echoes = subprocess.run(
                ["ip", "netns", "exec", near, "ping", "-n", "-q", "-c", "10", "-i", "0.1", B],
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            ).stdout
            own = ping(a, near_at, 10)
            assert_only_esp(capture, a.name, A, B)

    assert "10 packets transmitted, 10 received" in echoes
    assert own == 10
