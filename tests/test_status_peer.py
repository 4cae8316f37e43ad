"""`status PEER`: all that is known of one peer, and what is said of an address that is none."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.answers import STARTING
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.outages import Outage
from ipsec_agent.core.proof import Verdict
from ipsec_agent.core.proving import Proof, Proofs
from ipsec_agent.core.sa_details import ChildDetails, IkeDetails, Sequence, post_quantum
from ipsec_agent.core.status import document
from ipsec_agent.core.words import mentions, moment
from ipsec_agent.errors import ControlError
from ipsec_agent.verbs.status_peer import as_json, text, the_peer
from tests.configs import config
from tests.core.test_status import snapshot, states
from tests.vm import NOW, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()


def detailed(vm: Vm) -> Vm:
    """The VM with an SA with PEER of which everything is known."""
    vm = with_sa(vm)
    assert vm.observed.charon is not None
    (sa,) = vm.observed.charon.sas
    child = replace(
        sa.children[0],
        algorithms="AES_GCM_16-256",
        details=ChildDetails(2800, 3900, encapsulated=True),
    )
    sa = replace(
        sa,
        age=4000,
        children=(child,),
        algorithms="AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/ML_KEM_768",
        remote_id="CN=vm",
        details=IkeDetails("CN=here", 9000),
    )
    out, into = states(20, 30, used=int(NOW) - 40)
    kernel = (
        replace(out, sequence=Sequence(900_000_000)),
        replace(into, sequence=Sequence(30)),
        # Of an SA that is about to end.
        SecurityAssociation(PEER, out.source, 9, 1, sequence=Sequence(5_000)),
    )
    return vm.but(charon=replace(vm.observed.charon, sas=(sa,)), states=kernel)


def status(vm: Vm) -> dict[str, Any]:
    """The document, as the verb gets it."""
    return dict(json.loads(json.dumps(document(snapshot(vm)))))


def said(vm: Vm, peer: str = str(PEER)) -> str:
    """What a person reads of a peer."""
    shown = status(vm)
    return text(shown, the_peer(shown, peer))


def test_all_of_a_peer() -> None:
    """What protects it, who both are, how long that lasts, and what has passed."""
    assert said(detailed(VM)).splitlines() == [
        "10.0.0.9  up, by ESP",
        "ESP            AES_GCM_16-256, in UDP",
        "key exchange   ECP_384 + ML_KEM_768 (post-quantum); IKE by AES_GCM_16-256",
        "this VM is     CN=here",
        "the peer is    CN=vm, its certificate: 26283 days left",
        "SAs            1 of IKE, 1 of ESP, SPI 00000008 in, 00000007 out",
        "negotiated     last 20 s ago, the ESP SA is 20 s old, next ESP SA in 46 min,"
        " next IKE_SA in 2 hours",
        "sequence       30 in, 900000000 out of 2^32 numbers used (21.0%)",
        "received       2.9 KiB in 30 packets, last 40 s ago",
        "sent           2.0 KiB in 20 packets, last 40 s ago",
        "policy         encrypt, ipsec-10.0.0.0/16, enforced",
    ]


def test_fields() -> None:
    """The same for programs; of a peer whose SAs only the kernel has, what the kernel tells."""
    names: tuple[str, ...] = (
        *("post_quantum", "own_identity", "handshake", "rekey_in", "ike_rekey_in", "spi_in"),
        *("spi_out", "encapsulated", "sequence_in", "sequence_out", "extended"),
    )
    (peer,) = status(detailed(VM))["peers"]
    assert [peer[name] for name in names] == [
        *(True, "CN=here", 20, 2800, 9000, "00000008", "00000007", True, 30, 900_000_000, False),
    ]
    (alone,) = status(detailed(VM).but(charon=None))["peers"]
    assert [alone[name] for name in names] == [
        *(None, "", None, None, None, "00000008", "00000007", False, 5000, 900_000_000, False),
    ]
    assert set(alone) == set(peer)


def test_problems_of_the_peer() -> None:
    """Those that name it, and no others; who is not reached by ESP is said to be so."""
    clear = (ClearPeer(PEER + 1, 5, 500, 12),)
    vm = VM.but(charon=None).table(clear_in=clear)
    found = said(vm, "10.0.0.10")

    assert found.startswith("10.0.0.10  clear, sends clear (12 s ago)\n  WARNING clear-received: ")
    assert "charon-down" in json.dumps(status(vm))
    assert "charon-down" not in found
    shown = as_json(status(vm), the_peer(status(vm), "10.0.0.10"))
    assert shown["peer"] == {"address": "10.0.0.10", "condition": "clear"}
    assert [one["code"] for one in shown["problems"]] == ["clear-received"]
    assert [one["name"] for one in shown["connections"]] == ["ipsec-10.0.0.0/16"]


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("10.0.1.9 refuses", True),
        ("from 10.0.1.9.", True),
        ("from 10.0.1.9, 10.0.1.3", True),
        ("10.0.1.9: it", True),
        ("10.0.1.99 refuses", False),
        ("110.0.1.9 refuses", False),
        ("10.0.1.9.7", False),
    ],
)
def test_mentions(sentence: str, *, named: bool) -> None:
    """An address is not named by one that begins or ends as it does."""
    assert mentions(sentence, "10.0.1.9") is named


def test_ipv6() -> None:
    """The address may be written in another way than the agent writes it."""
    shown = status(VM)
    shown["peers"] = [{"address": "fd00::1", "state": "silent", "problem": "peer-silent"}]

    assert the_peer(shown, "FD00:0::0001").address == "fd00::1"


@pytest.mark.parametrize(
    ("address", "message", "hint"),
    [
        ("10.0.0.5", "10.0.0.5 is not a peer: it is this VM's own address", "plan --to 10.0.0.5`"),
        (
            "10.0.0.66",
            "there is no SA with 10.0.0.66",
            "`ipsec-agent verify 10.0.0.66`",
        ),
        ("10.0.0.1", "10.0.0.1 is not a peer: 10.0.0.1 is in", "plan --to 10.0.0.1`"),
        ("fd00::1", "fd00::1 is not a peer: fd00::1 is not encrypted", "plan --to fd00::1`"),
    ],
)
def test_no_peer(address: str, message: str, hint: str) -> None:
    """It says why, and what to type."""
    shown = status(healthy_vm(config(no_ipsec=("10.0.0.1/32",))))

    with pytest.raises(ControlError) as refused:
        the_peer(shown, address)
    assert refused.value.message.startswith(message)
    assert hint in refused.value.hint


def test_before_the_first_look() -> None:
    """Nothing is known yet, and nothing else is said."""
    with pytest.raises(ControlError) as refused:
        the_peer(STARTING, str(PEER))
    assert "not looked" in refused.value.message


def test_post_quantum() -> None:
    """By the key exchanges only, of whichever position."""
    assert post_quantum("AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519/ML_KEM_768")
    assert not post_quantum("AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048")
    assert not post_quantum("")


def test_proof_and_outages() -> None:
    """What the last proof saw, and when this peer was cut off; not what concerns another."""
    failed = Proof(PEER, Verdict.NO_ESP, "none came back", "", NOW - 70, 2, NOW - 130)
    over = Outage(PEER, NOW - 7200, NOW - 3600, "peer-silent", f"{PEER} does not answer IKE")
    lasts = Outage(PEER, NOW - 130, 0.0, "proof-failed", "none came back")
    other = replace(over, peer=PEER + 1, reason="another one")
    seen = replace(
        snapshot(detailed(VM)), proofs=Proofs(60, (failed,)), outages=(over, other, lasts)
    )
    shown = json.loads(json.dumps(document(seen)))
    view = the_peer(shown, str(PEER))

    said = text(shown, view)

    assert "proof          70 s ago, no-esp: none came back" in said
    assert f"cut off        from {moment(NOW - 7200)} until {moment(NOW - 3600)}: " in said
    assert f"cut off        since {moment(NOW - 130)}: none came back" in said
    assert "another one" not in said
    assert [one["end"] for one in as_json(shown, view)["outages"]] == [NOW - 3600, None]
