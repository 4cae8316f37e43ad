"""`verify` against real ESP: what it says of a good peer, and of each link that is broken."""

import functools
import subprocess
from pathlib import Path

import pytest

from tests import incidents
from tests.certificates import ec_key, make_ca, make_leaf
from tests.charon.nodes import AGENT, Node, network, until
from tests.lab.bed import enforces
from tests.lab.deployment import A, B, C, configure, start
from tests.lab.firewall import rules
from tests.lab.traffic import first_answer
from tests.lab.verbs import in_status, verify
from tests.manifests import manifest

pytestmark = [pytest.mark.timeout(400)]

D, NOBODY = "10.9.0.4", "10.9.0.77"


def probe(node: Node, peer: str) -> list[str]:
    """The lines of `doctor --firewall aws --probe`."""
    words = ("doctor", "--config", str(node.config), "--socket", str(node.run_dir / "control.sock"))
    done = subprocess.run(
        node.command(*AGENT, *words, "--firewall", "aws", "--probe", peer),
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout.splitlines()


@pytest.mark.long
def test_proven(three: list[Node]) -> None:
    """ESP both ways by counters and capture; who is exempt gets nothing."""
    one, exempt = verify(three[0], B, C)

    assert one["verdict"] == "proven", one
    assert one["esp_out"] >= 5 <= one["esp_in"]
    assert one["counted_out"] >= 5 <= one["counted_in"]
    assert (one["clear_out"], one["clear_in"]) == (0, 0)
    assert one["answers"] == 5
    assert one["links"] == ["eth0"]
    # AES-GCM on a link of 1,500 bytes.
    assert one["max_packet"] == one["max_sent"] == 1466
    assert exempt["verdict"] == "clear-by-config"


@pytest.mark.long
def test_no_esp(three: list[Node]) -> None:
    """IKE passes and protocol 50 does not."""
    first_answer(three[0], B)
    with rules(three[1].name, f"before ip saddr {A} ip protocol esp drop"):
        (one,) = verify(three[0], B)
        tried = probe(three[0], B)

    assert one["verdict"] == "no-esp", one
    assert "none came back" in one["message"]
    assert "protocol 50" in one["hint"]
    assert tried[-2].startswith("# UDP 500: passes:")
    assert tried[-1].startswith("# ESP (protocol 50): held back: ")


@pytest.mark.long
def test_black_hole(three: list[Node]) -> None:
    """Large packets are lost on the way, and nobody tells: the largest that pass are named."""
    first_answer(three[0], B)
    # An IP packet of 1,200 bytes as ESP has 1,236.
    with rules(three[1].name, f"before ip saddr {A} ip protocol esp ip length > 1236 drop"):
        (one,) = verify(three[0], B)

    assert one["verdict"] == "black-hole", one
    assert (one["max_packet"], one["max_sent"]) == (1202, 1466)
    assert "more than 1202 bytes are lost" in one["message"]


def other_ca(node: Node) -> None:
    """Give a VM the certificate of another CA, and its trust in that only."""
    ca = make_ca("Other CA", key=ec_key(1))
    node.config.write_text(
        manifest(
            ["10.9.0.0/24"],
            [],
            # With the key of all others, VM A would trust it for its own certificate's sake.
            leaf=make_leaf(ca, key=ec_key(2)),
            cas=[ca],
            agent=node.agent_section(),
            prestart_timeout=100,
        )
    )


@pytest.mark.long
def test_negotiation(tmp_path: Path) -> None:
    """What the two configs disagree about is named, as charon told it; status and log have it."""
    with network(tmp_path, 4, "vn") as nodes:
        a, b, c, d = nodes
        configure([a], [])
        other_ca(b)
        configure([c], [], extra={"esp_proposals": "aes256gcm16!"})
        configure([d], [], ["10.9.0.4/32", "10.9.0.128/25"])
        start(nodes)

        found = verify(a, B, C, D, seconds=15)
        in_status(a, incidents.REFUSED.of(peer=B))
        in_status(b, incidents.CA_MISSING.of(peer=A, subject="CN=VM"))
        in_status(a, incidents.PROPOSALS_DIFFER.of(peer=C))
        in_status(a, incidents.SUBNETS_DIFFER.of(peer=D))

    verdicts = [one["verdict"] for one in found]
    assert verdicts == ["certificate-refused", "proposals-differ", "selectors-differ"], found
    assert all(one["esp_out"] == one["clear_out"] == one["clear_in"] == 0 for one in found)


@pytest.mark.long
def test_without_ipsec(tmp_path: Path) -> None:
    """A peer that has no IPsec, one that is not there, one that sends clear; a blocked IKE."""
    with network(tmp_path, 3, "vw") as nodes:
        a, b, c = nodes
        configure(nodes, [])
        start(nodes[:2])

        closed, nobody = verify(a, C, NOBODY, seconds=12)
        assert closed["verdict"] == "no-ike-answer", closed
        assert "nobody listens on UDP 500" in closed["message"]
        assert nobody["verdict"] == "no-peer", nobody

        words = ("ping", "-q", "-i", "0.2", "-c", "400", A)
        with subprocess.Popen(c.command(*words), stdout=subprocess.DEVNULL) as ping:
            (clear,) = verify(a, C, seconds=5)
            ping.kill()
        assert clear["verdict"] == "sends-clear", clear
        assert clear["message"].startswith(f"{C} sends clear: ")
        assert clear["message"].endswith("(ICMP) on the wire")

        with rules(b.name, "before udp dport { 500, 4500 } drop"):
            (filtered,) = verify(a, B, seconds=8)
        assert filtered["verdict"] == "no-ike-answer", filtered
        assert "UDP 500 and UDP 4500" in filtered["hint"]


@pytest.mark.long
def test_optional(tmp_path: Path) -> None:
    """In optional mode a peer without IPsec answers in clear, which is said and no leak."""
    with network(tmp_path, 3, "vo") as nodes:
        configure(nodes, [], extra={"optional": True})
        for node in nodes[:2]:
            node.start()
        for node in nodes[:2]:
            until(functools.partial(enforces, node), "the traps are there")

        peers = verify(nodes[0], B, C, seconds=25)

    assert [one["verdict"] for one in peers] == ["proven", "peer-without-ipsec"], peers
    assert peers[0]["notes"] == [
        "`optional: true` is on: without an SA, packets would pass in clear"
    ]
    assert (peers[1]["clear_out"], peers[1]["clear_in"]) == (0, 0)
