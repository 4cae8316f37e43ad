"""`verify` on this machine's own kernel, where IKE works and ESP does not, as on a broken VM."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.charon.nodes import AGENT, Node, ip, need_ike_sas, network, until
from tests.charon.test_health import peer_of
from tests.lab.deployment import A, B, C, configure
from tests.lab.guest import has_esp
from tests.lab.verbs import plain

pytestmark = [pytest.mark.charon, pytest.mark.timeout(120)]


def verify(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    """What the verb says of peers."""
    socket = str(node.run_dir / "control.sock")
    return subprocess.run(
        node.command(*AGENT, "verify", "--socket", socket, *words),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(has_esp(), reason="this kernel has ESP")
def test_without_esp(tmp_path: Path) -> None:
    """A VM whose kernel cannot encrypt is told so; who is exempt gets no packet."""
    with network(tmp_path, 2, "vf") as (node, peer):
        configure([node, peer], [f"{C}/32"])
        node.up()
        done = verify(node, "--timeout", "2", "--json", B, C)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)

        assert (done.returncode, found["proven"]) == (1, False)
        one, exempt = found["peers"]
        assert one["verdict"] == "this-vm"
        assert one["message"].startswith(
            f"this VM cannot encrypt with {B}: this kernel cannot do ESP over IPv4: "
        )
        assert one["clear_out"] == one["esp_out"] == 0
        assert one["ike_out"] > 0
        assert exempt["verdict"] == "clear-by-config"
        assert exempt["message"] == (
            f"{C} is not encrypted by the config, so nothing was sent: {C} is in no_ipsec_subnets"
            f" ({C}/32)"
        )
        assert exempt["echoes"] == 0

        said = verify(node, B, "--timeout", "1").stdout
        assert said.startswith(f"{B}  this-vm: ")
        assert "\n  hint: " in said
        assert verify(node, "name").returncode == 2


@pytest.mark.skipif(has_esp(), reason="this kernel has ESP")
def test_what_it_leaves(tmp_path: Path) -> None:
    """Where no CHILD_SA comes to be, charon keeps an IKE_SA of each attempt; one stays."""
    with network(tmp_path, 2, "vl") as (node, peer):
        configure([node, peer], [])
        node.up()
        peer.up()
        need_ike_sas(node)
        verify(node, B, "--timeout", "8")
        assert peer_of(node)["ike_sas"] > 1

        until(lambda: peer_of(node)["ike_sas"] == 1, "one is left", 60)
        assert peer_of(node)["state"] == "established"


def test_without_a_route(tmp_path: Path) -> None:
    """Nothing is sent, and what to look at is said."""
    with network(tmp_path, 1, "vr") as (node,):
        configure([node], [], ["10.9.0.0/24", "10.77.0.0/24"])
        node.up()
        (one,) = json.loads(verify(node, "--json", "--timeout", "1", "10.77.0.1").stdout)["peers"]

    assert (one["verdict"], one["echoes"]) == ("no-route", 0)
    assert one["message"] == "no route leads to 10.77.0.1"
    assert one["hint"] == "see `ip route get 10.77.0.1` here"


def test_this_vm_sends_clear(tmp_path: Path) -> None:
    """A program's policy lets packets pass, and there is no guard: they are captured."""
    with network(tmp_path, 2, "vc") as (node, _):
        configure([node], [], guard="none")
        node.start()
        until(lambda: node.status().get("connections"), "the agent runs")
        bypass = ("dir", "out", "priority", "1", "action", "allow")
        ip("xfrm", "policy", "add", "src", f"{A}/32", "dst", f"{B}/32", *bypass, netns=node.name)
        (one,) = json.loads(verify(node, "--json", "--timeout", "1", B).stdout)["peers"]

    assert one["verdict"] == "sends-clear", one
    assert one["message"] == (
        f"this VM sends clear to {B}: {one['clear_out']} packets (ICMP, UDP, TCP) from"
        f" {A} on the wire"
    )
    assert plain(one["hint"]) == (
        "see the problems of `ipsec-agent status`; `ipsec-agent guard up` has the guard drop them,"
        " once agent.guard is not none"
    )


def test_without_an_agent(tmp_path: Path) -> None:
    """Nobody to ask: 3, and nothing is sent."""
    with network(tmp_path, 1, "vf") as (node,):
        done = verify(node, B)

    assert done.returncode == 3
    assert "no agent is running" in done.stderr
