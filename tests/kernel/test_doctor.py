"""`doctor` on this machine, without an agent: what is provoked is found, with its command."""

import json
import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ipsec_agent.cli import main
from tests.certificates import ec_key, make_ca, make_leaf
from tests.charon.nodes import Node, ip, network
from tests.lab.deployment import configure
from tests.lab.namespaces import inside
from tests.manifests import manifest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

STOPS_ESP = "table ip other { chain before { type filter hook prerouting priority 0;"


Told = dict[str, tuple[str, str, str]]


def findings(node: Node, capsys: pytest.CaptureFixture[str]) -> Told:
    """The message, the command and the hint of each finding, by its code."""
    capsys.readouterr()
    with inside(node.name):
        assert main(["doctor", "--config", str(node.config), "--json", "--socket", "/none"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["well"] is False
    return {
        one["code"]: (one["message"], one["command"], one["hint"])
        for check in found["checks"]
        for one in check["findings"]
    }


def test_what_is_provoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A VM in clear is told so; and each thing that is broken now, which was not before."""
    with network(tmp_path, 1, "dr") as (node,):
        configure([node], [], uplinks=["eth0"])
        before = findings(node, capsys)
        about = f" --config {node.config} --socket /none"
        assert before["agent"] == (
            "no agent runs and no guard is loaded: packets to other VMs leave in clear",
            f"ipsec-agent guard up{about}",
            "then start the agent: `monit start ipsec`",
        )

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
    assert found["policy-default-blocks"] == (
        "the kernel blocks packets that match no policy (out), even those with addresses outside"
        " the ipsec subnets",
        "ip xfrm policy setdefault in accept fwd accept out accept",
        "run `ip xfrm policy setdefault in accept fwd accept out accept`, and find out who set it",
    )
    assert found["ipsec-disabled"] == (
        "IPsec is disabled on eth0: IPv4 packets do not become ESP there, and they leave in clear",
        "sysctl -w net/ipv4/conf/eth0/disable_xfrm=0",
        "run `sysctl -w net/ipv4/conf/eth0/disable_xfrm=0`, and remove it from /etc/sysctl.d",
    )
    message, command, _ = found["ike-port-taken"]
    assert message.startswith(f"UDP 4500 is in use by pid {os.getpid()} (")
    assert message.endswith("), so charon cannot negotiate")
    assert command == "ss -lunp sport = :4500"
    assert found["firewall"] == (
        "a rule that is not the agent's stops ESP or IKE: ip protocol esp drop",
        "nft -a list ruleset",
        "remove it, or let UDP 500, UDP 4500 and protocol 50 pass before it",
    )


@pytest.mark.parametrize(
    ("since", "code", "told"),
    [
        (-2, "certificate-expired", ("expired on ", "ipsec-agent certs show {config}")),
        (1, "certificate-not-valid-yet", ("is not valid before ", "date -u")),
    ],
)
def test_a_certificate_out_of_its_time(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    since: int,
    code: str,
    told: tuple[str, str],
) -> None:
    """It is told where no agent runs, too, with what shows it."""
    with network(tmp_path, 1, "dx") as (node,):
        ca = make_ca()
        begin = datetime.now(UTC) + timedelta(days=since)
        leaf = make_leaf(ca, key=ec_key(), days=1, not_before=begin)
        agent = node.agent_section(uplinks=["eth0"])
        node.config.write_text(manifest(["10.9.0.0/24"], leaf=leaf, cas=[ca], agent=agent))
        message, typed, _ = findings(node, capsys)[code]

    assert message.startswith(f"the instance certificate CN=VM {told[0]}"), message
    assert typed == told[1].format(config=node.config)
