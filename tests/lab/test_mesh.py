"""Real ESP: the capture on the wire is the judge."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_ca, make_leaf
from tests.charon.nodes import DEADLINE, SCALE, Node, network, until
from tests.lab.traffic import first_answer, ping, transfer
from tests.lab.wire import Capture, Kind, assert_only_esp, plant
from tests.manifests import manifest

pytestmark = pytest.mark.timeout(400)

A, B, C = "10.9.0.1", "10.9.0.2", "10.9.0.3"


def hub_of(nodes: list[Node]) -> str:
    """The namespace of the bridge."""
    return nodes[0].name.rpartition("-")[0] + "-0"


def configure(nodes: list[Node], exempt: list[str]) -> None:
    """Give every node the same manifest."""
    ca = make_ca()
    leaf = make_leaf(ca)
    for node in nodes:
        node.config.write_text(
            manifest(
                ["10.9.0.0/24"],
                exempt,
                leaf=leaf,
                cas=[ca],
                agent=node.agent_section(),
                prestart_timeout=100,
            )
        )


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Node]]:
    """Three VMs that run: two encrypt, the third is in no_ipsec_subnets."""
    with network(tmp_path, 3, "es") as nodes:
        configure(nodes, [f"{C}/32"])
        for node in nodes:
            node.start()
        for node in nodes:
            node.settled()
        yield nodes


def peer_of(node: Node, address: str) -> dict[str, object]:
    """The entry of a peer in a node's status."""
    found = [peer for peer in node.status()["peers"] if peer["address"] == address]
    return found[0] if found else {}


@pytest.mark.esp
def test_only_esp(three: list[Node], capsys: pytest.CaptureFixture[str]) -> None:
    """Ping, TCP and 50 MB between encrypting VMs are ESP; with the exempt VM all is clear."""
    a, b, _ = three
    with Capture(hub_of(three)) as capture:
        first_answer(a, B)
        answered = ping(a, B, 50)
        speed = transfer(a.name, b.name, B, 50_000_000)
        clear_answers = ping(a, C, 20)
        assert_only_esp(capture, a.name, A, B)

    assert answered == 50
    assert clear_answers == 20
    # 50 MB in segments of 1,430 bytes at the most, and 100 echoes.
    assert capture.between(A, B, Kind.ESP) > 10_000
    assert capture.between(A, C, Kind.CLEAR) >= 40
    assert capture.between(A, C, Kind.ESP) == 0
    peer = peer_of(a, B)
    assert peer["state"] == "installed"
    assert int(str(peer["packets_out"])) > 1000
    assert a.status()["healthy"]
    with capsys.disabled():
        print(f"\n50 MB over ESP at {speed:.1f} MB/s")  # noqa: T201 - the throughput is shown


@pytest.mark.esp
def test_the_judge_can_convict(three: list[Node]) -> None:
    """A clear packet between the encrypting VMs is found, and the judge says so."""
    a, b, _ = three
    first_answer(a, B)
    with Capture(hub_of(three)) as capture:
        ping(a, B, 5)
        # Without its policies VM A speaks clear until the agent has mended it.
        b.agent.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        a.agent.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            for node in (a, b):
                subprocess.run(["ip", "-n", node.name, "xfrm", "policy", "flush"], check=True)
            ping(a, B, 5)
            with pytest.raises(AssertionError, match="clear packets"):
                assert_only_esp(capture, a.name, A, B)
        finally:
            for node in (a, b):
                node.agent.send_signal(signal.SIGCONT)  # type: ignore[union-attr]


@pytest.mark.esp
def test_a_lossy_capture_is_no_judge(three: list[Node]) -> None:
    """A capture that lost frames, or missed the planted one, refuses to judge."""
    with Capture(hub_of(three)) as capture:
        capture.stop()
        capture.dropped = 3
        capture.stop = lambda: None  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match="it is no judge"):
            assert_only_esp(capture, three[0].name, A, B)
        capture.dropped = 0
        with pytest.raises(AssertionError, match="missed the planted packet"):
            assert_only_esp(capture, three[0].name, A, B)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_agent_restart_costs_no_packet(three: list[Node], number: signal.Signals) -> None:
    """While the agent ends and another adopts charon, no echo is lost and nothing changes."""
    a, _, _ = three
    first_answer(a, B)
    monitor = subprocess.Popen(
        a.command("ip", "xfrm", "monitor", "policy", "SA"), stdout=subprocess.PIPE, text=True
    )
    seconds = 4 * SCALE
    count = int(seconds / 0.1)
    echoes = subprocess.Popen(
        a.command("ping", "-n", "-q", "-i", "0.1", "-c", str(count), B),
        stdout=subprocess.PIPE,
        text=True,
    )
    a.end_agent(number)
    a.up()
    shown, _ = echoes.communicate(timeout=DEADLINE + seconds)
    monitor.terminate()
    seen, _ = monitor.communicate(timeout=20)

    assert f"{count} packets transmitted, {count} received" in shown
    assert seen == ""


@pytest.mark.esp
def test_stop_says_farewell(three: list[Node]) -> None:
    """`stop` ends charon with DELETE: the peer drops its SAs at once."""
    a, b, _ = three
    first_answer(a, B)
    until(lambda: peer_of(b, A).get("state") == "installed", "b has the SA")

    assert a.ask("stop").returncode == 0

    until(lambda: not peer_of(b, A), "b dropped the SA", 5 * SCALE)


@pytest.mark.long
def test_mesh_of_eight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One packet a pair makes a full mesh of SAs, no pair left out; duplicates are named."""
    with network(tmp_path, 8, "em") as nodes:
        configure(nodes, [])
        for node in nodes:
            node.start()
        for node in nodes:
            node.settled()
        addresses = {node.name: f"10.9.0.{number}" for number, node in enumerate(nodes, 1)}
        with Capture(hub_of(nodes)) as capture:
            for one in range(8):
                for other in range(one + 1, 8):
                    first_answer(nodes[one], f"10.9.0.{other + 1}")
            time.sleep(1)
            capture.stop()
        seen = {node.name: {p["address"]: p for p in node.status()["peers"]} for node in nodes}
    assert capture.dropped == 0
    clear = {key: count for key, count in capture.counts.items() if key[2] is Kind.CLEAR}
    assert clear == {}
    for name, peers in seen.items():
        expected = set(addresses.values()) - {addresses[name]}
        assert {at for at, peer in peers.items() if peer["state"] == "installed"} == expected
    twice = sum(peer["duplicates"] for peers in seen.values() for peer in peers.values())
    with capsys.disabled():
        print(f"\n8 VMs: 28 pairs, {twice} duplicate SAs")  # noqa: T201 - they are to be named


@pytest.mark.esp
def test_planted_packet_is_seen(three: list[Node]) -> None:
    """The planted packet goes past IPsec and onto the wire, as a leak would."""
    assert os.getuid() == 0
    with Capture(hub_of(three)) as capture:
        plant(three[0].name, A, B)
        time.sleep(0.3)
        capture.stop()

    assert capture.planted == {(A, B): 1}
