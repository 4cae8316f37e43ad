"""Health under real traffic: what is usual alarms nobody, and one-way traffic is seen."""

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from ipsec_agent.core.words import duration, instant
from tests.charon.nodes import AGENT, Node, until
from tests.lab.deployment import A, B, peer_of
from tests.lab.floods import flood
from tests.lab.traffic import first_answer, ping
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


def outage(node: Node) -> tuple[str, str, str]:
    """When the newest outage that the status knows began and ended, "" while it lasts; how long."""
    newest = node.status()["outages"][-1]
    begin, end = newest["begin"], newest["end"]
    return instant(begin), instant(end) if end else "", duration((end or begin) - begin, "h")


def cut_off(node: Node) -> list[dict[str, str]]:
    """What `doctor` says of outages."""
    words = ("doctor", "--json", "--config", str(node.config))
    done = subprocess.run(
        node.command(*AGENT, *words), check=False, capture_output=True, text=True, timeout=120
    )
    checks = {one["name"]: one["findings"] for one in json.loads(done.stdout)["checks"]}
    return list(checks["outages"])


NO_ESP_COMES = f"""
add table ip firewall
add chain ip firewall before {{ type filter hook prerouting priority -450; }}
add rule ip firewall before ip saddr {A} ip protocol esp drop
"""
"""What passes IKE and drops ESP on its way to B, as a security group does."""


@pytest.mark.esp
def test_esp_dropped_one_way(three: list[Node]) -> None:
    """IKE works and the SAs are there, and no ping is answered: status and log of the sender name
    the peer and the protocol; once ESP passes, nothing is said any more."""
    a, b, _ = three
    first_answer(a, B)
    until(lambda: peer_of(a, B).get("state") == "installed", "a's status has the SA")
    subprocess.run(
        ["ip", "netns", "exec", b.name, "nft", "-f", "-"],
        input=NO_ESP_COMES,
        text=True,
        check=True,
        timeout=30,
    )

    def told() -> list[dict[str, Any]]:
        return [one for one in a.status()["problems"] if one["code"] == "peer-esp-lost"]

    lost = 0
    for _ in range(30):
        flow = ping(a.name, B, 10, 0.3)
        lost += flow.sent - flow.arrived
        if told():
            break
    (problem,) = told()
    assert lost >= 40
    assert problem["severity"] == "error"
    assert problem["message"].startswith(f"{B} answers IKE, but no ESP has come back from it")
    assert "have protocol 50" in problem["hint"]
    assert (peer_of(a, B)["state"], peer_of(a, B)["one_way"]) == ("installed", "out")
    (line, *_) = [json.loads(one) for one in a.log.splitlines() if '"peer-esp-lost"' in one]
    assert (line["message"], line["hint"]) == (problem["message"], problem["hint"])
    begin, *_ = outage(a)
    why = f"{B} answers IKE, but no ESP comes back from it"
    (lasts,) = cut_off(a)
    assert lasts["message"] == f"{B} has been cut off since {begin}: {why}"
    assert lasts["command"].startswith(f"ipsec-agent verify {B}")
    a.end_agent(signal.SIGKILL)
    (left,) = cut_off(a)
    assert left["message"] == f"{B} was cut off from {begin} until the agent ended: {why}"
    assert left["command"].startswith(f"grep {B} ")
    a.start()
    until(lambda: a.status().get("outages"), "the next agent remembers it")

    subprocess.run(
        ["ip", "netns", "exec", b.name, "nft", "delete table ip firewall"], check=True, timeout=30
    )
    first_answer(a, B)
    until(lambda: not told(), "it is over", 90)
    until(lambda: outage(a)[1], "the outage is over", 30)
    begin, end, lasted = outage(a)
    (over,) = cut_off(a)
    assert over["message"] == f"{B} was cut off from {begin} until {end} ({lasted}): {why}"
    assert over["command"].startswith(f"grep {B} ")


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
