"""`verify` against real ESP: what it says of a good peer, and of each link that is broken."""

import functools
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import incidents
from tests.certificates import ec_key, make_ca, make_leaf
from tests.charon.nodes import AGENT, Node, complaints, ip, network, until
from tests.lab.bed import enforces
from tests.lab.deployment import A, B, C, authority, configure, hub_of, start
from tests.lab.firewall import replaced, rules
from tests.lab.traffic import first_answer
from tests.lab.verbs import in_status, verify
from tests.manifests import manifest

pytestmark = [pytest.mark.timeout(400)]

D, E, NOBODY = "10.9.0.4", "10.9.0.5", "10.9.0.77"
WHERE = "security groups, firewalls of both VMs, routers between them"
LONGER = (
    "try again with a longer --timeout; charon's log tells what it waits for: `journalctl -u"
    " ipsec-agent-charon`"
)


def doctor(node: Node, *more: str) -> tuple[int, list[str]]:
    """What `doctor` ends with, and the lines that it says."""
    words = ("doctor", "--config", str(node.config), "--socket", str(node.run_dir / "control.sock"))
    done = subprocess.run(
        node.command(*AGENT, *words, *more),
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout, done.stderr
    return done.returncode, done.stdout.splitlines()


def probe(node: Node, peer: str) -> tuple[int, list[str]]:
    """What `doctor --probe` says of the two rules of a firewall."""
    code, told = doctor(node, "--firewall", "aws", "--probe", peer)
    return code, told[-2:]


@pytest.mark.long
def test_proven(three: list[Node]) -> None:
    """ESP both ways by counters and capture; who is exempt gets nothing. `doctor` finds nothing
    in what it asks the agent, and each rule of a firewall lets packets pass."""
    three[0].settled()
    _, told = doctor(three[0])
    one, exempt, own = verify(three[0], B, C, A)
    code, passes = probe(three[0], B)
    _, nobody = probe(three[0], NOBODY)

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
    assert exempt["hint"] == (
        "to have it encrypted, list it in ipsec_subnets of every VM, and take it out of"
        " no_ipsec_subnets"
    )
    assert own["hint"] == "name the address of another VM"
    for line in (
        "ok       agent: an agent runs",
        "ok       problems: no problem is known",
        "ok       machine: this VM can do what the config asks for",
    ):
        assert line in told
    assert code == 0
    assert passes[0] == (
        f"# UDP 500: passes: {B} answered; UDP 4500 was not tried: force_udp_encapsulation is not"
        " set"
    )
    assert nobody == [
        f"# UDP 500 and UDP 4500: not tried: there is no VM at {NOBODY}: nobody answers for this"
        " address on the link",
        "# ESP (protocol 50): not tried: no SA with it was made",
    ]
    went, came = re.findall(r"\d+(?= went)|\d+(?= came)", passes[1])
    assert passes[1] == f"# ESP (protocol 50): passes: {went} went to {B}, {came} came back"


@pytest.mark.long
def test_echoes_that_a_firewall_drops(three: list[Node]) -> None:
    """A peer's own firewall drops echo requests: its kernel answers something else, by ESP."""
    a, b, _ = three
    first_answer(a, B)
    with rules(b.name, "before icmp type echo-request drop"):
        (one,) = verify(a, B)

    assert (one["verdict"], one["answers"], one["max_packet"]) == ("proven", 0, None), one
    assert one["message"] == (
        f"packets to {B} are ESP both ways: {one['esp_out']} out, {one['esp_in']} in, none in clear"
    )
    assert one["notes"] == ["no echo was answered (a firewall there?), so no path MTU is known"]


@pytest.mark.long
def test_no_esp(three: list[Node]) -> None:
    """IKE passes and protocol 50 does not: it is told where it is lost, here, there or between."""
    a, b, _ = three
    first_answer(a, B)
    with rules(b.name, f"before ip saddr {A} ip protocol esp drop"):
        (one,) = verify(a, B)
        code, tried = probe(a, B)
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
    assert one["hint"] == (
        f"let protocol 50 (UDP 4500, where encapsulated) pass both ways: {WHERE}; or set"
        " force_udp_encapsulation on every VM. Run `ipsec-agent verify --all` on that VM, too"
    )
    assert away["message"] == (
        f"IKE works with {B}, and {away['esp_out']} packets of ESP went there; ESP comes from it,"
        " but nothing answers what was sent: ESP is lost on its way there"
    )
    assert away["hint"] == (
        f"let protocol 50 (UDP 4500, where encapsulated) pass to {B}: {WHERE}. It looks the same"
        " where a firewall of that VM drops echo requests and all to port 9: let echo requests"
        " pass there"
    )
    assert out["message"] == (
        f"the SA with {B} counts {out['counted_out']} packets, but no ESP leaves this VM"
    )
    assert out["hint"] == (
        "a rule of this VM's own firewall drops protocol 50: `nft list ruleset`, `iptables-save`"
    )
    assert back["message"] == (
        f"{back['esp_in']} packets of ESP came from {B}, but no SA of this VM counts them"
    )
    assert back["hint"] == (
        "see the kernel's counters in `ipsec-agent status`, such as XfrmInNoStates; a rule of this"
        " VM's own firewall may drop protocol 50, too: `nft list ruleset`"
    )
    assert code == 1
    assert tried[0].startswith(f"# UDP 500: passes: {B} answered; ")
    went = "".join(re.findall(r"held back: (\d+) went", tried[1]))
    assert tried[1] == (
        f"# ESP (protocol 50): held back: {went} went to {B}, none came back: the rule is missing"
        " here or there. Run the same on that VM: what comes in there tells which"
    )


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
    try:
        (blocked,) = verify(a, B, seconds=2)
    finally:
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
    assert ruled["hint"] == (
        f"let packets to {B} pass in the rule (`nft list ruleset`), or delete the policy (`ip xfrm"
        " policy`, `action block`)"
    )
    assert flushed["verdict"] == "no-policy", flushed
    assert flushed["message"] == (
        f"no policy of this VM takes the packets to {NOBODY}; the guard drops them"
    )
    assert flushed["hint"] == ("see policies-missing and policies-bypassed in `ipsec-agent status`")
    assert gone["verdict"] == "no-peer", gone
    assert gone["message"] == (
        f"there is no VM at {B}: nobody answers for this address on the link"
    )
    assert gone["hint"] == "do nothing where the VM was stopped or deleted; otherwise start it"


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
    assert one["hint"] == (
        "the network has a smaller MTU and does not tell it: let ICMP `fragmentation needed` pass,"
        " or lower the MTU of eth0 on both VMs by at least 264 bytes"
    )


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


def expired(node: Node) -> None:
    """Give a VM a certificate of the CA of all that has expired."""
    begin = datetime.now(UTC) - timedelta(days=30)
    leaf = make_leaf(authority(), "expired", key=ec_key(3), days=20, not_before=begin)
    agent = node.agent_section()
    text = manifest(["10.9.0.0/24"], leaf=leaf, cas=[authority()], agent=agent)
    node.config.write_text(text)


@pytest.mark.long
def test_negotiation(tmp_path: Path) -> None:
    """What the two configs disagree about is named, as charon told it, at both ends; status and log
    have it. An expired certificate, too."""
    with network(tmp_path, 5, "vn") as nodes:
        a, b, c, d, e = nodes
        configure([a], [])
        other_ca(b)
        configure([c], [], extra={"esp_proposals": "aes256gcm16!"})
        configure([d], [], ["10.9.0.4/32", "10.9.0.128/25"])
        expired(e)
        start(nodes[:4])
        e.start()
        until(functools.partial(enforces, e), "its policies are there")

        found = verify(a, B, C, D, E, seconds=15)
        found += verify(b, A, seconds=15)
        in_status(a, incidents.REFUSED.of(peer=B))
        in_status(b, incidents.CA_MISSING.of(peer=A, subject="CN=VM"))
        in_status(a, incidents.PROPOSALS_DIFFER.of(peer=C))
        in_status(a, incidents.SUBNETS_DIFFER.of(peer=D))

    verdicts = [one["verdict"] for one in found]
    refused = "certificate-refused"
    assert verdicts == [
        refused, "proposals-differ", "selectors-differ", refused, refused
    ], found  # fmt: skip
    begins = (
        f"no SA is made with {B}: {B} refuses this VM's certificate or signature",
        f"no SA is made with {C}: {C} and this VM have no proposal in common",
        f"no SA is made with {D}: {D} and this VM do not agree on what to encrypt",
        f"no SA is made with {E}: the certificate of {E} has expired or is not valid yet",
        f"no SA is made with {A}: this VM does not trust the certificate of {A}",
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
        assert closed["hint"] == ("charon does not run on that VM: see `ipsec-agent status` there")
        assert nobody["verdict"] == "no-peer", nobody

        words = ("ping", "-q", "-i", "0.2", "-c", "400", A)
        with subprocess.Popen(c.command(*words), stdout=subprocess.DEVNULL) as ping:
            (clear,) = verify(a, C, seconds=5)
            ping.kill()
        assert clear["verdict"] == "sends-clear", clear
        assert clear["message"] == (
            f"{C} sends clear: {clear['clear_in']} packets (ICMP) on the wire"
        )
        assert clear["hint"] == (
            "there IPsec does not run, its config lists other subnets, or it has `optional: true`:"
            " see `ipsec-agent status` on that VM"
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
        assert filtered["hint"] == (
            "is that VM up, and does its agent run? Let UDP 500 and UDP 4500 pass both ways:"
            f" {WHERE}"
        )

        assert half["verdict"] == "timed-out", half
        assert re.fullmatch(
            rf"nothing could be proven about {B} within \d+ s: it answers IKE, but no SA was made",
            half["message"],
        )
        assert half["hint"] == (
            f"let UDP 500 and UDP 4500 pass both ways, and large packets, too: {WHERE}; or {LONGER}"
        )

        with rules(a.name, "after udp dport { 500, 4500 } drop"):
            (kept,) = verify(a, C, seconds=3)
        assert kept["verdict"] == "timed-out", kept
        assert kept["message"] == (
            f"nothing could be proven about {C} within 3 s: no IKE of this VM's charon leaves"
            " this VM"
        )
        assert kept["hint"] == (
            "a rule of this VM's own firewall may drop UDP 500 and UDP 4500: `nft list ruleset`; or"
            f" {LONGER}"
        )


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
        flush = "while :; do ip xfrm policy flush; sleep 0.1; done"
        with subprocess.Popen(nodes[0].command("sh", "-c", flush)) as flushing:
            try:
                until(lambda: "repair-paused" in complaints(nodes[0].status()), "it is slower")
                (flushed,) = verify(nodes[0], NOBODY, seconds=4)
            finally:
                flushing.kill()

    assert [one["verdict"] for one in peers] == ["proven", "peer-without-ipsec"], peers
    assert peers[0]["notes"] == [
        "`optional: true` is on: without an SA, packets would pass in clear"
    ]
    assert peers[1]["message"] == (
        f"{C} answers in clear and not by IKE: it has no IPsec, and this VM's `optional: true` lets"
        " that pass"
    )
    assert peers[1]["hint"] == "install IPsec there, or list it in no_ipsec_subnets on every VM"
    assert (peers[1]["clear_out"], peers[1]["clear_in"]) == (0, 0)
    assert flushed["verdict"] == "no-policy", flushed
    assert flushed["message"] == (
        f"no policy of this VM takes the packets to {NOBODY}; they leave in clear, since"
        " `optional: true` is on"
    )
