"""Health under real traffic: what is usual alarms nobody, and one-way traffic is seen."""

import subprocess
import time
from typing import Any

import pytest

from tests.charon.nodes import Node, until
from tests.lab.deployment import A, B, peer_of
from tests.lab.floods import flood
from tests.lab.traffic import first_answer
from tests.lab.truth import charon_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

REKEYINGS = 5


def rekey(node: Node) -> None:
    """Have a node's charon rekey its CHILD_SAs with B."""
    connection = next(
        it["name"] for it in node.status()["connections"] if it["action"] == "encrypt"
    )
    child = f"{connection}-{node.status()['address']}"
    with charon_of(node) as session:
        answer = session.rekey({"child": child})
    assert int(answer["matches"]) >= 1, answer


def said(node: Node) -> list[tuple[str, str]]:
    """Code and severity of what a node's status says, without what one-way traffic alone causes."""
    return [
        (problem["code"], problem["severity"])
        for problem in node.status()["problems"]
        if problem["code"] != "peer-one-way"
    ]


def counters(nodes: list[Node]) -> list[dict[str, Any]]:
    """What the kernels counted."""
    return [node.status()["counters"] for node in nodes]


def test_one_way_across_rekeyings(three: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    """A flood that only goes out is no problem on either side, though its SA is rekeyed: what the
    agent sends beside it is answered. Neither the rekeyings nor the first packets are one."""
    a, b, _ = three
    first_answer(a, B)
    until(lambda: peer_of(a, B).get("state") == "installed", "a's status has the SA")
    before = peer_of(a, B)["packets_out"]
    began = time.monotonic()
    with flood(a.name, b.name, B, seconds=40) as running:
        for _ in range(REKEYINGS):
            time.sleep(5)
            rekey(a)
        time.sleep(15)
        away, back = peer_of(a, B), peer_of(b, A)
        problems = said(a), said(b)
        healthy = a.status()["healthy"], b.status()["healthy"]
        flow = running.end()
        took = time.monotonic() - began

    assert max(away["idle_out"], back["idle_in"]) < 15
    # Nothing but an answer to the agent's probes came since the flood began.
    assert away["idle_in"] < took - 5
    assert away["age"] < 20
    assert away["packets_out"] < before + flow.sent
    assert problems == ([], [])
    assert healthy == (True, True)
    with capsys.disabled():
        print(f"\n{REKEYINGS} rekeyings, {flow.sent} packets: {counters([a, b])}")  # noqa: T201


def test_lost_sas_are_counted(three: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    """A VM that lost its SAs counts what its peer still sends; mended in time, it is no problem."""
    a, b, _ = three
    first_answer(a, B)
    before = b.status()["counters"].get("XfrmInNoStates", 0)
    with flood(a.name, b.name, B, seconds=30) as running:
        time.sleep(1)
        subprocess.run(["ip", "-n", b.name, "xfrm", "state", "deleteall"], check=True)
        time.sleep(10)
        rise = b.status()["counters"]["XfrmInNoStates"] - before
        problems = said(b)
        flow = running.end()

    assert rise > 0
    assert problems == []
    assert flow.arrived > 0
    with capsys.disabled():
        print(f"\nSAs lost: {rise} packets without a state, {flow.sent - flow.arrived} lost")  # noqa: T201
