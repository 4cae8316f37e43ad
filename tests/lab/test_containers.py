"""Containers behind encrypting VMs: their traffic works, and is ESP on the wire."""

from pathlib import Path

import pytest

from tests.charon.nodes import network
from tests.lab.container import container
from tests.lab.deployment import A, B, configure, hub_of, start
from tests.lab.judge import assert_only_esp
from tests.lab.traffic import first_answer, ping, transfer
from tests.lab.wire import Capture

pytestmark = [pytest.mark.esp, pytest.mark.timeout(400)]


def test_both_translations(tmp_path: Path) -> None:
    """Container to VM, container to container, and a VM with its own container."""
    with network(tmp_path, 2, "co") as nodes:
        configure(nodes, [])
        start(nodes)
        a, b = nodes
        with (
            container(a, 1) as (near, near_at),
            container(b, 2) as (far, far_at),
            Capture(hub_of(nodes)) as capture,
        ):
            first_answer(a, B)
            # Out of a container, translated on the way; into a container at the other end.
            flows = (
                transfer(near, far, B, 2_000_000, listen=far_at),
                transfer(a.name, far, B, 1_000_000, listen=far_at),
                ping(near, B, 10),
            )
            own = ping(a.name, near_at, 10)
            assert_only_esp(capture, a.name, A, B, *flows, at_least=2000, esp=2000)

    assert flows[2].arrived == 10
    assert own.arrived == 10
