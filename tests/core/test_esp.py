"""Which SAs a config needs tried: families and algorithms."""

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, Outside
from ipsec_agent.core.esp import Algorithm, DummySa, Use, dummy_sas
from ipsec_agent.core.manifest import proposals
from ipsec_agent.core.problems.esp import PARTS
from tests.configs import config

BOTH = config(("10.0.0.0/16", "fd00::/64"), ("10.0.9.0/24",))
GCM = Algorithm(Use.AEAD, "rfc4106(gcm(aes))", 160, 128)


@pytest.mark.parametrize(
    ("own", "versions"),
    [
        ((), [4, 6]),
        (("10.0.0.5",), [4]),
        (("fd00::5",), [6]),
        (("127.0.0.1", "10.0.0.5", "fd00::5", "fe80::1"), [4, 6]),
        (("10.0.9.5",), []),
        (("10.0.9.5", "fd00::5"), [6]),
        (("192.0.2.1",), [4, 6]),
    ],
    ids=["none yet", "v4", "v6", "both", "exempt", "v4 exempt", "in neither list"],
)
def test_families(own: tuple[str, ...], versions: list[int]) -> None:
    """Those in which this VM encrypts; all of the config's where that is not known yet."""
    found = dummy_sas(BOTH, map(ip_address, own))

    assert [sa.version for sa in found] == versions


def test_clear_outside() -> None:
    """A VM that is allowed to stand outside the lists needs no ESP there."""
    settings = config(agent=AgentConfig(outside=Outside.CLEAR))

    assert dummy_sas(settings, [ip_address("192.0.2.1")]) == ()
    assert len(dummy_sas(settings, [ip_address("10.0.0.1")])) == 1


def tried(*esp: str, udp: bool = False) -> tuple[DummySa, ...]:
    """What is tried for a VM with IPv4 and these proposals."""
    settings = replace(config(force_udp_encapsulation=udp), esp_proposals=esp)
    return dummy_sas(settings, [ip_address("10.0.0.5")])


def test_the_default() -> None:
    """Without a proposal in the config it is the default one."""
    assert tried() == (DummySa(4, "aes128gcm16", (GCM,)),)
    assert tried(udp=True) == (DummySa(4, "aes128gcm16", (GCM,), encapsulated=True),)


@pytest.mark.parametrize(
    ("proposal", "words", "algorithms"),
    [
        ("aes256gcm8", "aes256gcm8", [("rfc4106(gcm(aes))", 288, 64)]),
        ("aes192gcm96-modp2048", "aes192gcm96", [("rfc4106(gcm(aes))", 224, 96)]),
        ("aes128gcm", "aes128gcm", [("rfc4106(gcm(aes))", 160, 128)]),
        ("aes128ccm12", "aes128ccm12", [("rfc4309(ccm(aes))", 152, 96)]),
        ("chacha20poly1305", "chacha20poly1305", [("rfc7539esp(chacha20,poly1305)", 288, 128)]),
        ("aes-sha1", "aes-sha1", [("cbc(aes)", 128, 0), ("hmac(sha1)", 160, 96)]),
        (
            "aes256-sha2_384",
            "aes256-sha2_384",
            [("cbc(aes)", 256, 0), ("hmac(sha384)", 384, 192)],
        ),
        (
            "aes192ctr-sha256_96",
            "aes192ctr-sha256_96",
            [("rfc3686(ctr(aes))", 224, 0), ("hmac(sha256)", 256, 96)],
        ),
        ("3des-md5_128", "3des-md5_128", [("cbc(des3_ede)", 192, 0), ("hmac(md5)", 128, 128)]),
        (
            "camellia192-aesxcbc-ecp256",
            "camellia192-aesxcbc",
            [("cbc(camellia)", 192, 0), ("xcbc(aes)", 128, 96)],
        ),
    ],
)
def test_algorithms(proposal: str, words: str, algorithms: list[tuple[str, int, int]]) -> None:
    """Name, key with salt and ICV in bits, as charon gives them to the kernel."""
    (found,) = tried(proposal)

    assert found.words == words
    assert [(one.name, one.key, one.icv) for one in found.algorithms] == algorithms


def test_several_in_one_proposal() -> None:
    """A peer may choose any of them, so each is tried; and none twice."""
    found = tried("aes128-aes256-sha256-sha512", "aes128-sha256-ecp256")

    assert [sa.words for sa in found] == [
        "aes128-sha256",
        "aes128-sha512",
        "aes256-sha256",
        "aes256-sha512",
    ]


def test_extended_sequence_numbers() -> None:
    """They need another part of the kernel's, and so are tried as such."""
    assert [sa.extended for sa in tried("aes128-sha256-esn", "aes128-sha256-noesn")] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    "proposal", ["camellia128ccm16", "camellia128ctr-sha256", "aes-camelliaxcbc"]
)
def test_unknown_to_charon(proposal: str) -> None:
    """What charon negotiates and has no name for in the kernel cannot be tried: it always fails."""
    (found,) = tried(proposal)

    assert found.algorithms == ()


def test_every_word_is_known() -> None:
    """Each encryption and integrity word that a config may have leads to something to try, and
    each algorithm to an option and a module that are named where it is missing."""
    aead = [
        f"aes{bits}{mode}{icv}"
        for bits in (128, 192, 256)
        for mode in ("gcm", "ccm")
        for icv in ("", 8, 12, 16, 64, 96, 128)
    ]
    ciphers = [f"aes{bits}" for bits in ("", 128, 192, 256)] + ["aes256ctr", "camellia256", "3des"]
    integrity = "sha sha1 sha1_160 sha256 sha2_256 sha256_96 sha384 sha2_512 aesxcbc aescmac md5"
    words = [*aead, "chacha20poly1305", "chacha20poly1305compat"]
    words += [f"{cipher}-{other}" for cipher in ciphers for other in integrity.split()]
    assert [word for word in words if proposals.fault(word, ike=False)] == []

    found = tried(*words)

    assert {sa.words for sa in found} == set(words)
    assert {one.name for sa in found for one in sa.algorithms} <= set(PARTS)
    assert all(sa.algorithms for sa in found)
