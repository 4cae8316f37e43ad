"""Lines of charon's log that explain a problem; each was seen in the log of 5.9.8."""

import pytest

from ipsec_agent.core.charon_log import explain


@pytest.mark.parametrize(
    ("group", "line", "code"),
    [
        ("IKE", "received AUTHENTICATION_FAILED notify error", "peer-refuses-us"),
        ("CFG", 'no issuer certificate found for "CN=stranger"', "peer-not-trusted"),
        ("IKE", "no trusted RSA public key found for 'CN=stranger'", "peer-not-trusted"),
        ("IKE", "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built", "proposals-differ"),
        ("IKE", "giving up after 3 retransmits", "peer-silent"),
        ("KNL", "unable to add SAD entry with SPI cb117de0 (FAILED)", "kernel-refuses"),
    ],
)
def test_explained(group: str, line: str, code: str) -> None:
    """The line is kept as charon wrote it."""
    found = explain(group, 1, line)

    assert found is not None
    assert (found.code, found.message) == (code, line)
    assert found.hint


def test_peer_is_named() -> None:
    """The address in a line is the peer's."""
    found = explain("CFG", 1, "no matching peer config found for 10.9.0.1[CN=VM]...10.9.0.1[CN=VM]")

    assert found is not None
    assert found.peer == "10.9.0.1"


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
    assert explain(group, level, line) is None
