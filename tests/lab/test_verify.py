"""`verify` against real ESP: what it says of a good peer, and of each link that is broken."""

import functools
import re
import subprocess
from pathlib import Path

import pytest

from tests import incidents
from tests.certificates import ec_key, make_ca, make_leaf
from tests.charon.nodes import AGENT, Node, ip, network, until
from tests.lab.bed import enforces
from tests.lab.deployment import A, B, C, configure, hub_of, start
from tests.lab.firewall import replaced, rules
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
    one, exempt, own = verify(three[0], B, C, A)

    assert one["verdict"] == "proven", one
    out, back = one["esp_out"], one["esp_in"]
    assert one["message"].startswith(
        f"packets to {B} are ESP both ways: {out} out, {back} in, none in clear; "
    )
    assert one["message"].endswith(" ms; packets of 1466 bytes fit")
    assert one["esp_out"] >= 5 <= one["esp_in"]
    assert one["counted_out"] >= 5 <= one["counted_in"]
    assert (one["clear_out"], one["clear_in"]) == (0, 0)
    assert one["answers"] == 5
    assert one["links"] == ["eth0"]
    # AES-GCM on a link of 1,500 bytes.
    assert one["max_packet"] == one["max_sent"] == 1466
    assert exempt["verdict"] == own["verdict"] == "clear-by-config"
    assert exempt["message"] == (
        f"{C} is not encrypted by the config, so nothing was sent: {C} is in"
        f" no_ipsec_subnets ({C}/32)"
    )
    assert own["message"] == (
        f"{A} is not encrypted by the config, so nothing was sent: it is this VM's own address"
    )


@pytest.mark.long
def test_no_esp(three: list[Node]) -> None:
    """IKE passes and protocol 50 does not: it is told where it is lost, here, there or between."""
    a, b, _ = three
    first_answer(a, B)
    with rules(b.name, f"before ip saddr {A} ip protocol esp drop"):
        (one,) = verify(a, B)
        tried = probe(a, B)
        with subprocess.Popen(
            b.command("ping", "-q", "-i", "0.2", A), stdout=subprocess.DEVNULL
        ) as ping:
            (away,) = verify(a, B)
            ping.kill()
    with rules(a.name, f"after ip daddr {B} ip protocol esp drop"):
        (out,) = verify(a, B)
    with rules(a.name, f"before ip saddr {B} ip protocol esp drop"):
        (back,) = verify(a, B)

    assert {it["verdict"] for it in (one, away, out, back)} == {"no-esp"}, (one, away, out, back)
    assert one["message"] == (
        f"IKE works with {B}, and {one['esp_out']} packets of ESP went there, but none came back"
    )
    assert "protocol 50" in one["hint"]
    assert away["message"] == (
        f"IKE works with {B}, and {away['esp_out']} packets of ESP went there; ESP comes from it,"
        " but nothing answers what was sent: ESP is lost on its way there"
    )
    assert out["message"] == (
        f"the SA with {B} counts {out['counted_out']} packets, but no ESP leaves this VM"
    )
    assert "`nft list ruleset`" in out["hint"]
    assert back["message"] == (
        f"{back['esp_in']} packets of ESP came from {B}, but no SA of this VM counts them"
    )
    assert "a rule of this VM's own firewall may drop protocol 50" in back["hint"]
    assert tried[-2].startswith("# UDP 500: passes:")
    assert tried[-1].startswith("# ESP (protocol 50): held back: ")


@pytest.mark.long
def test_this_vm_does_not_send(three: list[Node]) -> None:
    """A rule of its own firewall, a policy that blocks, or no policy, and the guard drops; and a
    peer that was there and is gone is no matter of ESP."""
    a, *_ = three
    first_answer(a, B)
    with rules(a.name, "after meta l4proto { icmp, tcp } drop", "after udp dport 9 drop"):
        (ruled,) = verify(a, B, seconds=2)
    # charon has one of the two addresses by themselves.
    block = ("src", f"{A}/32", "dst", f"{B}/31", "dir", "out")
    ip("xfrm", "policy", "add", *block, "priority", "1", "action", "block", netns=a.name)
    (blocked,) = verify(a, B, seconds=2)
    ip("xfrm", "policy", "delete", *block, netns=a.name)
    flush = "while :; do ip xfrm policy flush; sleep 0.1; done"
    with subprocess.Popen(a.command("sh", "-c", flush)) as flushing:
        try:
            (flushed,) = verify(a, NOBODY, seconds=4)
        finally:
            flushing.kill()
    first_answer(a, B)
    hub = hub_of(three)
    ip("link", "set", "p2", "down", netns=hub)
    ip("neigh", "flush", "dev", "eth0", netns=a.name)
    try:
        (gone,) = verify(a, B, seconds=2)
    finally:
        ip("link", "set", "p2", "up", netns=hub)

    assert ruled["verdict"] == blocked["verdict"] == "this-vm", (ruled, blocked)
    assert ruled["message"] == (
        f"this VM cannot encrypt with {B}: a rule of its own firewall, or a policy that blocks,"
        " drops the packets before they are encrypted"
    )
    assert blocked["message"] == ruled["message"]
    assert "`nft list ruleset`" in ruled["hint"]
    assert flushed["verdict"] == "no-policy", flushed
    assert flushed["message"] == (
        f"no policy of this VM takes the packets to {NOBODY}; the guard drops them"
    )
    assert "policies-missing" in flushed["hint"]
    assert gone["verdict"] == "no-peer", gone
    assert gone["message"] == (
        f"there is no VM at {B}: nobody answers for this address on the link"
    )


@pytest.mark.long
def test_black_hole(three: list[Node]) -> None:
    """Large packets are lost on the way, and nobody tells: the largest that pass are named."""
    first_answer(three[0], B)
    # An IP packet of 1,200 bytes as ESP has 1,236.
    with rules(three[1].name, f"before ip saddr {A} ip protocol esp ip length > 1236 drop"):
        (one,) = verify(three[0], B)

    assert one["verdict"] == "black-hole", one
    assert (one["max_packet"], one["max_sent"]) == (1202, 1466)
    assert one["message"] == (
        f"packets to {B} are ESP both ways, but those of more than 1202 bytes are lost on the way,"
        " though this VM sends up to 1466"
    )
    assert "lower the MTU of eth0 on both VMs by at least 264 bytes" in one["hint"]


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
    begins = (
        f"no SA is made with {B}: {B} refuses this VM's certificate or signature",
        f"no SA is made with {C}: {C} and this VM have no proposal in common",
        f"no SA is made with {D}: {D} and this VM do not agree on what to encrypt",
    )
    for one, begin in zip(found, begins, strict=True):
        assert one["message"].startswith(begin), one
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
        assert closed["message"] == f"{C} refuses IKE: nobody listens on UDP 500 there"
        assert nobody["verdict"] == "no-peer", nobody

        words = ("ping", "-q", "-i", "0.2", "-c", "400", A)
        with subprocess.Popen(c.command(*words), stdout=subprocess.DEVNULL) as ping:
            (clear,) = verify(a, C, seconds=5)
            ping.kill()
        assert clear["verdict"] == "sends-clear", clear
        assert clear["message"] == (
            f"{C} sends clear: {clear['clear_in']} packets (ICMP) on the wire"
        )

        with rules(b.name, "before udp dport { 500, 4500 } drop"):
            (filtered,) = verify(a, B, seconds=8)
            # The first two messages of IKE are small. At once: between two rules one may pass.
            replaced(b.name, f"before ip saddr {A} udp length > 600 drop")
            (half,) = verify(a, B, seconds=8)
        assert filtered["verdict"] == "no-ike-answer", filtered
        assert filtered["message"] == (
            f"{B} does not answer IKE: {filtered['ike_out']} packets went there"
        )
        assert "UDP 500 and UDP 4500" in filtered["hint"]

        assert half["verdict"] == "timed-out", half
        assert re.fullmatch(
            rf"nothing could be proven about {B} within \d+ s: it answers IKE, but no SA was made",
            half["message"],
        )
        assert half["hint"].startswith("let UDP 500 and UDP 4500 pass both ways, and large packets")

        with rules(a.name, "after udp dport { 500, 4500 } drop"):
            (kept,) = verify(a, C, seconds=3)
        assert kept["verdict"] == "timed-out", kept
        assert kept["message"] == (
            f"nothing could be proven about {C} within 3 s: no IKE of this VM's charon leaves"
            " this VM"
        )
        assert kept["hint"].startswith("a rule of this VM's own firewall may drop UDP 500 and UDP")


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
    assert peers[1]["message"] == (
        f"{C} answers in clear and not by IKE: it has no IPsec, and this VM's `optional: true` lets"
        " that pass"
    )
    assert (peers[1]["clear_out"], peers[1]["clear_in"]) == (0, 0)
