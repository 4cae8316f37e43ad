"""Health of a real agent: it is that of now, and a peer that speaks clear is named."""

import socket
import time
from pathlib import Path

import pytest

from tests.charon.nodes import Node, network, until
from tests.charon.wedge import wedge
from tests.lab.deployment import A, B, configure

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


def test_the_status_is_of_now(tmp_path: Path) -> None:
    """Each packet is in the very next answer, though no event tells of it."""
    with network(tmp_path, 2, "cn") as (bare, guarded):
        configure([bare, guarded], [], interval=60)
        guarded.up()
        for count in range(1, 6):
            bare.send(B)
            status = guarded.status()
            assert (status["guard"]["dropped_in"], status["age"]) == (count, 0)


def test_a_charon_that_hangs_does_not_hold_up_the_status(tmp_path: Path) -> None:
    """After a second it is the last look, which says how old it is."""
    held: list[socket.socket] = []
    with network(tmp_path, 1, "cw") as (node,):
        configure([node], [])
        node.up()
        try:
            with node.held():
                wedge(node, A, "10.9.0.250", held)
            began = time.monotonic()
            status = node.status()
            took = time.monotonic() - began
            shown = node.ask("status").stdout
        finally:
            for channel in held:
                channel.close()

    assert took < 1.5
    assert status["age"] > 0
    assert " ago\n" in shown.partition("\n")[0] + "\n"
