"""The verdict of `verify`, on records; tests/lab/test_verify.py has it of real packets."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.core.charon_log import PATTERNS
from ipsec_agent.core.path_mtu import PathMtu
from ipsec_agent.core.proof import Echoes, Observation, Pair, Told, Verdict, Window
from ipsec_agent.core.status import document as status_document
from ipsec_agent.core.verify import PEER_VERDICTS, judge
from ipsec_agent.core.verify_status import (
    OWN_CODES,
    Lists,
    document,
    entry,
    faults,
    known_peers,
)
from tests.configs import config
from tests.core.test_optional import loose_vm, with_clear
from tests.core.test_status import shown, snapshot
from tests.test_docs import page
from tests.vm import OTHER, OWN, PEER, healthy_vm, with_sa

PAIR = Pair(PEER, OWN, True, "both are encrypted")
PROVEN = Observation(
    PAIR,
    before=Window(ike_out=2, ike_in=2),
    proof=Window(esp_out=5, esp_in=5, links=("eth0",)),
    sas=True,
    counted_out=5,
    counted_in=5,
    echoes=Echoes(5, (), (0.001,) * 5),
    path=PathMtu(1466, 1466),
)
FAILED = Observation(PAIR, before=Window(ike_out=4), echoes=Echoes(5), waited=10.0)
TOLD = Told("peer-not-trusted", "charon says of 10.0.0.9: no issuer", "compare the CAs")
KERNEL = Told("esp-unavailable", "this kernel has no ESP", "install one that has")
LOOSE = replace(PAIR, optional=True)


def but(seen: Observation, **changes: Any) -> Observation:
    """The same, with something else seen."""
    return replace(seen, **changes)


def proof(seen: Observation, **changes: Any) -> Observation:
    """The same, with another window of the proof."""
    return replace(seen, proof=replace(seen.proof, **changes))


CASES = {
    "proven": (PROVEN, Verdict.PROVEN, "5 out, 5 in, none in clear; 1.0 ms; packets of 1466 bytes"),
    "no echo answered, but a datagram was": (
        but(PROVEN, echoes=Echoes(5), path=None, knocked=True),
        Verdict.PROVEN,
        "none in clear",
    ),
    "ESP of jobs comes, and no answer": (
        but(PROVEN, echoes=Echoes(5), path=None),
        Verdict.NO_ESP,
        "5 packets of ESP went there; ESP comes from it, but nothing answers what was sent: ESP is"
        " lost on its way there",
    ),
    "a black hole": (
        but(PROVEN, path=PathMtu(1200, 1466)),
        Verdict.BLACK_HOLE,
        "more than 1200 bytes are lost",
    ),
    "exempt": (
        Observation(replace(PAIR, encrypted=False, because="it is in no_ipsec_subnets")),
        Verdict.CLEAR_BY_CONFIG,
        "nothing was sent: it is in no_ipsec_subnets",
    ),
    "no route": (
        Observation(replace(PAIR, own=None)),
        Verdict.NO_ROUTE,
        "no route leads to 10.0.0.9",
    ),
    "a clear packet out": (
        proof(PROVEN, clear_out=1, protocols=("TCP",)),
        Verdict.SENDS_CLEAR,
        "this VM sends clear to 10.0.0.9: 1 packet (TCP) from 10.0.0.5",
    ),
    "a clear packet in, before the SA": (
        but(PROVEN, before=Window(clear_in=2, protocols=("ICMP",))),
        Verdict.SENDS_CLEAR,
        "10.0.0.9 sends clear: 2 packets (ICMP)",
    ),
    "the counters do not count": (
        but(PROVEN, counted_in=0),
        Verdict.NO_ESP,
        "5 packets of ESP came from 10.0.0.9, but no SA of this VM counts them",
    ),
    "an SA, and nothing else": (
        but(FAILED, sas=True, before=Window(ike_in=4)),
        Verdict.TIMED_OUT,
        "nothing was sent through it",
    ),
    "this kernel": (but(FAILED, own_fault=KERNEL), Verdict.THIS_VM, "this kernel has no ESP"),
    "no ESP back": (
        but(PROVEN, proof=Window(esp_out=6), counted_in=0, echoes=Echoes(5), path=None),
        Verdict.NO_ESP,
        "6 packets of ESP went there, but none came back",
    ),
    "no ESP out": (
        but(PROVEN, proof=Window(), counted_in=0, echoes=Echoes(5), path=None),
        Verdict.NO_ESP,
        "no ESP leaves this VM",
    ),
    "a certificate": (
        but(FAILED, before=Window(ike_out=4, ike_in=4), fault=TOLD),
        Verdict.CERTIFICATE_REFUSED,
        "no SA is made with 10.0.0.9: charon says of 10.0.0.9: no issuer",
    ),
    "a fault of before, and silence now": (
        but(FAILED, fault=TOLD),
        Verdict.NO_IKE_ANSWER,
        "10.0.0.9 does not answer IKE: 4 packets went there",
    ),
    "no charon there": (
        but(FAILED, before=Window(ike_out=4, closed=4)),
        Verdict.NO_IKE_ANSWER,
        "nobody listens on UDP 500 there",
    ),
    "no policy": (
        but(FAILED, before=Window(), echoes=Echoes(0, ("EPERM",)), dropped=True),
        Verdict.NO_POLICY,
        "the guard drops them",
    ),
    "no policy, though an SA is there": (
        but(FAILED, sas=True, echoes=Echoes(0, ("EPERM",)), dropped=True),
        Verdict.NO_POLICY,
        "the guard drops them",
    ),
    "a firewall of this VM's": (
        but(FAILED, echoes=Echoes(0, ("EPERM",))),
        Verdict.THIS_VM,
        "a rule of its own firewall, or a policy that blocks, drops the packets before they are",
    ),
    "a firewall of this VM's, and an SA": (
        but(FAILED, sas=True, echoes=Echoes(0, ("EPERM",))),
        Verdict.THIS_VM,
        "a rule of its own firewall, or a policy that blocks, drops the packets before they are",
    ),
    "policies missing": (
        but(FAILED, pair=replace(PAIR, enforced=False)),
        Verdict.NO_POLICY,
        "no policy of this VM",
    ),
    "no policy while IPsec is optional": (
        but(FAILED, pair=replace(LOOSE, enforced=False), before=Window(clear_in=3, ike_out=1)),
        Verdict.NO_POLICY,
        "they leave in clear, since `optional: true` is on",
    ),
    "nobody there any more": (
        but(FAILED, before=Window(), sas=True, counted_out=5, absent=True),
        Verdict.NO_PEER,
        "there is no VM at 10.0.0.9",
    ),
    "nobody there": (but(FAILED, absent=True), Verdict.NO_PEER, "there is no VM at 10.0.0.9"),
    "charon is idle": (
        but(FAILED, before=Window()),
        Verdict.TIMED_OUT,
        "within 10 s: no IKE of this VM's charon leaves this VM",
    ),
    "IKE takes its time": (
        but(FAILED, before=Window(ike_out=4, ike_in=4)),
        Verdict.TIMED_OUT,
        "it answers IKE, but no SA was made",
    ),
    "optional, and no IPsec there": (
        but(FAILED, pair=LOOSE, before=Window(ike_out=4, clear_out=9, clear_in=9)),
        Verdict.PEER_WITHOUT_IPSEC,
        "it has no IPsec",
    ),
    "optional, clear until the SA": (
        but(PROVEN, pair=LOOSE, before=Window(clear_out=9, clear_in=9)),
        Verdict.PROVEN,
        "none in clear",
    ),
    "optional, clear though there is an SA": (
        proof(but(PROVEN, pair=LOOSE), clear_in=1),
        Verdict.SENDS_CLEAR,
        "10.0.0.9 sends clear",
    ),
    "decrypted before the capture": (
        proof(but(PROVEN, decrypted=True), esp_in=0, clear_in=5, protocols=("ICMP",)),
        Verdict.PROVEN,
        "none in clear",
    ),
    "more in clear than the SA has counted": (
        proof(but(PROVEN, decrypted=True), clear_in=6, protocols=("ICMP",)),
        Verdict.SENDS_CLEAR,
        "10.0.0.9 sends clear",
    ),
    "in clear without an SA that could have decrypted it": (
        but(FAILED, decrypted=True, before=Window(ike_out=4, clear_in=2, protocols=("UDP",))),
        Verdict.SENDS_CLEAR,
        "10.0.0.9 sends clear: 2 packets (UDP)",
    ),
    "decrypted by the only SA": (
        but(FAILED, decrypted=True, counted_in=2, before=Window(ike_in=2, clear_in=2)),
        Verdict.TIMED_OUT,
        "it answers IKE, but no SA was made",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name: str) -> None:
    """Each names what is at fault, and what to do unless all is well."""
    seen, verdict, words = CASES[name]

    found = judge(seen)

    assert (found.verdict, words in found.message) == (verdict, True), found
    assert bool(found.hint) == (verdict is not Verdict.PROVEN)


def test_an_own_address_is_no_peer() -> None:
    """Nobody is told to encrypt it."""
    clear = Observation(replace(PAIR, encrypted=False, own=PAIR.peer))

    assert judge(clear).hint == "name the address of another VM"
    assert (
        "ipsec_subnets of every VM"
        in judge(replace(clear, pair=replace(clear.pair, own=None))).hint
    )


def test_every_verdict_is_made() -> None:
    """No word of the interface is left untried here, but those of the log of charon."""
    made = {verdict for _, verdict, _ in CASES.values()}

    assert made | set(PEER_VERDICTS.values()) == set(Verdict)
    assert set(PEER_VERDICTS) <= {code for _, code, _ in PATTERNS}


def test_every_verdict_is_documented() -> None:
    """docs/verify.md has each, and each key of the document."""
    told = page("verify.md")

    assert all(f"| `{verdict}` |" in told for verdict in Verdict)
    assert all(f"`{key}`" in told for key in entry(PROVEN, judge(PROVEN)))
    assert all(f"### `{code}`" in page("problems.md") for code in OWN_CODES)


def test_pairs() -> None:
    """What is encrypted is told from the status of the agent alone."""
    lists = Lists.of(shown(healthy_vm(config(no_ipsec=("10.0.0.66/32",)))))

    assert lists.pair(PEER, OWN).encrypted
    assert lists.pair(PEER, OWN).enforced
    exempt = lists.pair(OTHER, OWN)
    assert (exempt.encrypted, "no_ipsec_subnets" in exempt.because) == (False, True)
    assert not lists.pair(ip_address("192.0.2.1"), OWN).encrypted
    assert lists.pair(OWN, OWN).because == "it is this VM's own address"
    assert not lists.pair(PEER, ip_address("172.17.0.1")).encrypted
    # Without a route nothing is sent; that is told only of what is to be encrypted.
    assert lists.pair(PEER, None).encrypted
    assert not lists.pair(OTHER, None).encrypted
    clear = Lists.of(shown(healthy_vm(config(no_ipsec=("10.0.0.5/32",)))))
    assert clear.pair(PEER, OWN).because == "this VM speaks clear with everyone"


def test_policies_that_are_missing() -> None:
    """The connection of the peer counts."""
    lists = Lists.of(shown(healthy_vm().but(policies=())))

    assert not lists.pair(PEER, OWN).enforced


def test_peers_of_all() -> None:
    """Those with SAs, and those that enforcing would cut off."""
    assert known_peers(shown(with_sa(healthy_vm()))) == (PEER,)
    cut = known_peers(json.loads(json.dumps(status_document(snapshot(with_clear(loose_vm()))))))
    assert cut


def test_faults() -> None:
    """Of the peer that is meant, and not of one whose address begins alike."""
    status = {
        "peers": [{"address": "10.0.0.9", "problem": "peer-not-trusted"}],
        "problems": [
            {"code": "peer-not-trusted", "message": "charon says of 10.0.0.99: x", "hint": "h"},
            {"code": "peer-not-trusted", "message": "charon says of 110.0.0.9: z", "hint": "h"},
            {"code": "peer-not-trusted", "message": "y comes from 10.0.0.9.", "hint": "h"},
            {"code": "charon-down", "message": "charon is not running", "hint": "h"},
            {"code": "esp-unavailable", "message": "no ESP", "hint": "h"},
        ],
    }

    of_peer, own = faults(status, PEER)

    assert of_peer is not None
    assert of_peer.message == "y comes from 10.0.0.9."
    assert own is not None
    assert own.code == "esp-unavailable"


def test_document() -> None:
    """Proven is only what is proven of every peer, and of at least one."""
    good, bad = (entry(seen, judge(seen)) for seen in (PROVEN, FAILED))

    assert document([good])["proven"] is True
    assert document([good, bad])["proven"] is False
    assert document([])["proven"] is False
    assert json.loads(json.dumps(good))["latency"] == 0.001
