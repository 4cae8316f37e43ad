"""Lines of charon's log that explain a problem; each was seen in the log of 5.9.8."""

import pytest

from ipsec_agent.core.charon_log import (
    HINTS,
    Said,
    Sign,
    counterpart,
    doubts_kernel,
    explain,
    sign,
)
from ipsec_agent.core.problems.charon import MEANINGS, OWN


@pytest.mark.parametrize(
    ("group", "line", "code"),
    [
        ("IKE", "received AUTHENTICATION_FAILED notify error", "peer-refuses-us"),
        ("CFG", 'no issuer certificate found for "CN=stranger"', "peer-not-trusted"),
        ("IKE", "no trusted RSA public key found for 'CN=stranger'", "peer-not-trusted"),
        ("IKE", "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built", "proposals-differ"),
        ("IKE", "received proposals unacceptable", "proposals-differ"),
        ("IKE", "no acceptable proposal found", "proposals-differ"),
        ("IKE", "received TS_UNACCEPTABLE notify, no CHILD_SA built", "selectors-differ"),
        ("IKE", "no private key found for 'CN=VM'", "own-key-missing"),
        (
            "CFG",
            "subject certificate invalid (valid from Nov 04 03:10:45 2026 to Nov 09 03:10:45 2026)",
            "peer-certificate-invalid",
        ),
        ("IKE", "giving up after 3 retransmits", "peer-silent"),
        ("KNL", "unable to add SAD entry with SPI cb117de0 (FAILED)", "kernel-refuses"),
    ],
)
def test_explained(group: str, line: str, code: str) -> None:
    """The line is kept as charon wrote it."""
    found = explain(Said(group, 1, line))

    assert found is not None
    assert (found.code, found.message) == (code, line)
    assert found.hint


@pytest.mark.parametrize(
    ("group", "line", "peer"),
    [
        ("CFG", "no matching peer config found for 10.9.0.1[VM]...10.9.0.2[VM]", "10.9.0.2"),
        (
            "IKE",
            "traffic selectors 10.7.0.2/32[udp/1025] 10.7.0.2/32 === 10.7.0.1/32[udp/33430]"
            " 10.7.0.1/32 unacceptable",
            "10.7.0.1",
        ),
        ("IKE", "traffic selectors fd07::2/128 === fd07::1/128 unacceptable", "fd07::1"),
        (
            "CFG",
            "subject certificate invalid (valid from Nov 04 03:10:45 2026 to Nov 09 03:10:45 2026)",
            "",
        ),
        ("KNL", "unable to install policy 10.7.0.1/32 === 10.7.0.2/32 in", ""),
        ("IKE", "giving up after 2 retransmits", ""),
    ],
)
def test_peer_is_named(group: str, line: str, peer: str) -> None:
    """The peer is the far side of a pair, never our own address and never a time of day."""
    found = explain(Said(group, 1, line))

    assert found is not None
    assert found.peer == peer


@pytest.mark.parametrize(
    ("group", "level", "line"),
    [
        ("IKE", 1, "IKE_SA ipsec-10.9.0.0/24[1] established between 10.9.0.1[x]...10.9.0.2[x]"),
        ("ENC", 1, "parsed IKE_AUTH response 1 [ N(NO_PROP) ]"),
        ("IKE", 2, "received NO_PROPOSAL_CHOSEN"),
    ],
)
def test_others(group: str, level: int, line: str) -> None:
    """What is no problem, or for developers, explains nothing."""
    assert explain(Said(group, level, line)) is None


@pytest.mark.parametrize(
    ("line", "peer"),
    [
        ("initiating IKE_SA ipsec-10.9.0.0/24[5] to 10.9.0.7", "10.9.0.7"),
        ("fd09::7 is initiating an IKE_SA", "fd09::7"),
        (
            "IKE_SA ipsec-10.9.0.0/24[5] established between 10.9.0.1[CN=VM]...10.9.0.7[CN=VM]",
            "10.9.0.7",
        ),
        ("IKE_SA a[6] rekeyed between 10.9.0.1[CN=VM]...10.9.0.7[CN=VM]", "10.9.0.7"),
        ("giving up after 3 retransmits", ""),
        ("deleting IKE_SA a[6] between 10.9.0.1[CN=VM]...10.9.0.7[CN=VM]", ""),
    ],
)
def test_counterpart(line: str, peer: str) -> None:
    """The lines with which an IKE_SA begins tell its peer; each is about a numbered one."""
    assert counterpart(Said("IKE", 0, line, 5)) == peer
    assert counterpart(Said("IKE", 0, line)) == ""


@pytest.mark.parametrize(
    ("group", "line", "doubted"),
    [
        ("KNL", "unable to add SAD entry with SPI cb117de0 (FAILED)", True),
        ("IKE", "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built", True),
        ("KNL", "creating acquire job for policy", False),
        ("IKE", "received TS_UNACCEPTABLE notify, no CHILD_SA built", False),
    ],
)
def test_doubts_of_the_kernel(group: str, line: str, *, doubted: bool) -> None:
    """An SA that was not installed, here or at a peer, has ESP tried again."""
    assert doubts_kernel(Said(group, 1, line)) is doubted


def test_the_responders_line_since_strongswan_6_0_6() -> None:
    """It names the connection and the number, where 5.9.8 says "an IKE_SA"."""
    for words in ("an IKE_SA", "IKE_SA subnets-v4[5]", "IKE_SA (unnamed)[5]"):
        assert counterpart(Said("IKE", 0, f"10.7.0.2 is initiating {words}", 5)) == "10.7.0.2"


@pytest.mark.parametrize(
    ("group", "line", "tells"),
    [
        (
            "NET",
            "received packet: from 10.9.0.2[4500] to 10.9.0.1[4500] (80 bytes)",
            (Sign.ANSWERED, "10.9.0.2"),
        ),
        (
            "NET",
            "received packet: from fd00::2[500] to fd00::1[500] (464 bytes)",
            (Sign.ANSWERED, "fd00::2"),
        ),
        ("NET", "sending packet: from 10.9.0.1[500] to 10.9.0.2[500] (464 bytes)", None),
        ("IKE", "received DELETE for IKE_SA ipsec-10.9.0.0/24[3]", (Sign.FAREWELL, "")),
        ("IKE", "sending DELETE for IKE_SA ipsec-10.9.0.0/24[3]", None),
        ("IKE", "received DELETE for ESP CHILD_SA with SPI c5a5e0a1", None),
        (
            "IKE",
            "CHILD_SA ipsec-10.9.0.0/24{2} established with SPIs c1_i c2_o and TS a === b",
            (Sign.SUCCEEDED, ""),
        ),
        (
            "IKE",
            "inbound CHILD_SA ipsec-10.9.0.0/24{4} established with SPIs c1_i c2_o and TS a === b",
            (Sign.SUCCEEDED, ""),
        ),
        ("IKE", "initiating IKE_SA a[3] to 10.9.0.2", (Sign.TRIED, "10.9.0.2")),
        ("IKE", "10.9.0.2 is initiating an IKE_SA", (Sign.TRIED, "10.9.0.2")),
        (
            "IKE",
            "IKE_SA a[3] established between 10.9.0.1[CN=vm]...10.9.0.2[CN=vm]",
            (Sign.PROVED, "10.9.0.2"),
        ),
        (
            "IKE",
            "IKE_SA a[3] rekeyed between 10.9.0.1[CN=vm]...10.9.0.2[CN=vm]",
            (Sign.TRIED, "10.9.0.2"),
        ),
        ("IKE", "establishing CHILD_SA a{5} reqid 1", (Sign.TRIED, "")),
        ("CFG", "received DELETE for IKE_SA x[3]", None),
    ],
)
def test_signs(group: str, line: str, tells: tuple[Sign, str] | None) -> None:
    """What tells of a peer without a complaint; a packet names it itself."""
    assert sign(Said(group, 1, line, 3)) == tells


@pytest.mark.parametrize(
    ("group", "line"),
    [
        (
            "CFG",
            "looking for peer configs matching 10.7.0.1[%any]...10.7.0.2[unable to install SA]",
        ),
        ("IKE", 'received end entity cert "CN=giving up after 3 retransmits, O=10.7.0.9"'),
        ("IKE", 'received end entity cert "CN=no private key found for"'),
        ("IKE", "authentication of 'received NO_PROPOSAL_CHOSEN notify error' with RSA successful"),
    ],
)
def test_a_peer_names_itself_after_a_fault(group: str, line: str) -> None:
    """Who has proved nothing yet chooses what he is called; that explains nothing."""
    assert explain(Said(group, 1, line, 3)) is None
    assert not doubts_kernel(Said(group, 1, line, 3))


@pytest.mark.parametrize(
    "line",
    [
        "no trusted RSA public key found for 'CN=10.7.0.9'",
        "no trusted RSA public key found for '10.7.0.9'",
        'no issuer certificate found for "CN=x...10.7.0.9[y], O=\'=== 10.7.0.9"',
    ],
)
def test_a_peer_names_itself_after_another_one(line: str) -> None:
    """No other peer is to blame."""
    found = explain(Said("CFG", 1, line, 3))

    assert found is not None
    assert found.peer == ""


def test_a_peer_that_proved_an_odd_name() -> None:
    """The IKE_SA is that of its address."""
    line = "IKE_SA ipsec[3] established between 10.7.0.1[CN=a]...10.7.0.2[CN=x...10.7.0.9[y]"

    assert counterpart(Said("IKE", 1, line, 3)) == "10.7.0.2"


def test_each_code_has_a_meaning() -> None:
    """What no peer is to blame for is said of this VM."""
    assert MEANINGS.keys() == HINTS.keys()
    assert OWN == {"own-key-missing", "kernel-refuses", "trap-not-installed"}
