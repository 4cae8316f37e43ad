"""Health of a real agent: a peer that speaks clear is named."""

from pathlib import Path

import pytest

from tests.charon.nodes import Node, network, until
from tests.lab.deployment import B, configure

pytestmark = [pytest.mark.charon, pytest.mark.timeout(120)]


def codes(node: Node) -> dict[str, str]:
    """The problems of a node's status, each with its message."""
    return {it["code"]: it["message"] for it in node.status().get("problems", ())}


def test_a_peer_that_sends_clear(tmp_path: Path) -> None:
    """A VM without an agent sends clear to one that has it: it is named and counted, and the VM is
    not healthy, as the exit code says."""
    with network(tmp_path, 2, "ch") as (bare, guarded):
        configure([bare, guarded], [])
        guarded.up()
        bare.send(B, 5)

        said = until(lambda: codes(guarded).get("clear-received"), "the peer is named", 30)

        assert said == "10.9.0.1 (5 packets) sends clear packets to this VM; the guard dropped them"
        guard = guarded.status()["guard"]
        assert (guard["state"], guard["dropped_in"]) == ("up", 5)
        assert [(it["address"], it["packets"]) for it in guard["clear_in"]] == [("10.9.0.1", 5)]
        shown = guarded.ask("status")
        assert shown.returncode == 1
        assert "clear packets from 10.9.0.1: 5 packets" in shown.stdout
