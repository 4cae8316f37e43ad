"""Which proposals are taken; what charon does with each was seen with 5.9.8 (load-conn)."""

import pytest

from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE
from ipsec_agent.core.manifest.proposals import additional, classical, cleaned, fault, weakness


def test_defaults() -> None:
    """The defaults are good and strong."""
    assert [fault(item, ike=False) for item in DEFAULT_ESP] == [""]
    assert [fault(item, ike=True) for item in DEFAULT_IKE] == ["", "", ""]
    assert not any(weakness(item) for item in (*DEFAULT_ESP, *DEFAULT_IKE))


@pytest.mark.parametrize(
    "proposal",
    ["null", "null-sha256", "aes128gmac", "aes128-null-sha256", "aes128gcm16-aes256gmac"],
)
@pytest.mark.parametrize("ike", [False, True])
def test_clear(proposal: str, ike: bool) -> None:
    """charon loads ESP that encrypts nothing; we refuse it wherever it stands."""
    assert fault(proposal, ike=ike) == "it does not encrypt"


@pytest.mark.parametrize(
    "proposal",
    [
        "aes128gcm16", "aes128gcm", "aes256gcm16-ecp384", "chacha20poly1305", "aes128-sha256",
        "aes-sha2_256", "aes128ctr-sha256", "aes128gcm16-esn", "aes128gcm16-aes256gcm16",
        "camellia128-sha256", "aes128gcm16-sha256",
    ],
)  # fmt: skip
def test_good_esp(proposal: str) -> None:
    """What charon loads for ESP and encrypts with."""
    assert fault(proposal, ike=False) == ""


@pytest.mark.parametrize(
    "proposal",
    [
        "aes128-sha256-modp2048", "aes256-sha256-modp2048", "aes128gcm16-sha256-ecp256",
        "chacha20poly1305-prfsha256-x25519", "aes128-sha256-prfsha384-curve448",
        "aes128-aescmac-modp2048", "aes128gcm16-prfsha256-ecp256bp",
    ],
)  # fmt: skip
def test_good_ike(proposal: str) -> None:
    """What charon loads for IKE; the first two are the add-on's."""
    assert fault(proposal, ike=True) == ""


@pytest.mark.parametrize(
    ("proposal", "ike", "wrong"),
    [
        ("", False, "'' is not a known algorithm"),
        ("aes128gcm17", False, "'aes128gcm17' is not a known algorithm"),
        ("aes128gcm16-modpnone", False, "'modpnone' is not a known algorithm"),
        ("aes128gcm16-aes128-sha256", False, "it mixes AEAD with other encryption: write two"),
        ("sha256", False, "it has no encryption"),
        ("aes128", False, "it has no integrity algorithm"),
        ("aes128gcm16-prfsha256", False, "a PRF belongs to ike_proposals"),
        ("aes128-sha256", True, "it has no key exchange"),
        ("aes128gcm16-ecp256", True, "it has no PRF"),
        ("aes128-prfsha256-ecp256", True, "it has no integrity algorithm"),
    ],
)
def test_faults(proposal: str, ike: bool, wrong: str) -> None:
    """What is missing, too much or unknown is named."""
    assert fault(proposal, ike=ike).startswith(wrong)


@pytest.mark.parametrize("word", ["3des", "md5", "modp1024", "sha1", "prfsha1"])
def test_weak(word: str) -> None:
    """What is broken or nearly so is named."""
    assert weakness(f"aes128-{word}") == word


def test_exclamation_mark() -> None:
    """The add-on's `!` and letter case mean nothing to VICI."""
    assert cleaned(" AES128GCM16! ") == "aes128gcm16"


HYBRID = "aes256gcm16-prfsha384-ecp384-ke1_mlkem768"


@pytest.mark.parametrize(
    ("proposal", "wrong"),
    [
        (HYBRID, ""),
        ("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp521", ""),
        ("aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none", ""),
        ("aes128gcm16-prfsha256-ke1_mlkem768", "an additional key exchange needs one before it"),
        ("aes128gcm16-prfsha256-x25519-ke8_mlkem768", "'ke8_mlkem768' is not a known algorithm"),
        ("aes128gcm16-prfsha256-x25519-ke1_mlkem700", "'ke1_mlkem700' is not a known algorithm"),
        ("aes128gcm16-prfsha256-mlkem768", "'mlkem768' is not a known algorithm"),
    ],
)
def test_additional(proposal: str, wrong: str) -> None:
    """A second key exchange comes on top of a first one (RFC 9370)."""
    assert fault(proposal, ike=True).startswith(wrong)
    assert bool(fault(proposal, ike=True)) is bool(wrong)


def test_classical() -> None:
    """What is left for a peer that has no additional key exchange."""
    assert additional(HYBRID) == ("ke1_mlkem768",)
    assert classical(HYBRID) == "aes256gcm16-prfsha384-ecp384"
    assert additional(classical(HYBRID)) == ()


def test_weak_beside() -> None:
    """A weak exchange is weak as an additional one, too."""
    assert weakness(f"{HYBRID}-ke2_modp1024") == "ke2_modp1024"
    assert weakness(HYBRID) == ""
