"""`doctor` on this machine, without an agent: what is provoked is found, with its command."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from ipsec_agent.cli import main
from tests.charon.nodes import Node, ip, network
from tests.lab.deployment import configure
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

STOPS_ESP = "table ip other { chain before { type filter hook prerouting priority 0;"


def findings(node: Node, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The command of each finding, by its code."""
    capsys.readouterr()
    with inside(node.name):
        assert main(["doctor", "--config", str(node.config), "--json", "--socket", "/none"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["well"] is False
    return {one["code"]: one["command"] for check in found["checks"] for one in check["findings"]}


def test_what_is_provoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A VM in clear is told so; and each thing that is broken now, which was not before."""
    with network(tmp_path, 1, "dr") as (node,):
        configure([node], [], uplinks=["eth0"])
        before = findings(node, capsys)
        about = f" --config {node.config} --socket /none"
        assert before["agent"] == f"ipsec-agent guard up{about}"

        ip("xfrm", "policy", "setdefault", "out", "block", netns=node.name)
        ip("link", "add", "c0", "type", "bridge", netns=node.name)
        ip("link", "add", "x0", "type", "veth", "peer", "x1", netns=node.name)
        ip("link", "set", "x0", "master", "c0", "up", netns=node.name)
        ip("link", "set", "x1", "up", netns=node.name)
        ip("link", "set", "c0", "up", netns=node.name)
        with inside(node.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            Path("/proc/sys/net/ipv4/conf/eth0/disable_xfrm").write_text("1")
            (tmp_path / "rules").write_text(f"{STOPS_ESP} ip protocol esp drop\n}}\n}}\n")
            subprocess.run(["nft", "-f", str(tmp_path / "rules")], check=True, timeout=30)
            taken.bind(("0.0.0.0", 4500))
            found = findings(node, capsys)

    new = found.keys() - before.keys()
    assert new >= {"policy-default-blocks", "ipsec-disabled", "ike-port-taken", "firewall"}, found
    assert found["policy-default-blocks"].startswith("ip xfrm policy setdefault in accept")
    assert found["ipsec-disabled"] == "sysctl -w net/ipv4/conf/eth0/disable_xfrm=0"
    assert found["ike-port-taken"] == "ss -lunp sport = :4500"
    assert found["firewall"] == "nft -a list ruleset"
