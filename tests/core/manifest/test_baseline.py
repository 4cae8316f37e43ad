"""`check --baseline`: what CNSA 2.0 refuses, what it still allows, and what the default adds."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ipsec_agent.cli import BASELINES, main
from ipsec_agent.core.certificates import order
from ipsec_agent.core.certificates.issuing import Issuer, authority, instance
from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE, Baseline
from ipsec_agent.core.manifest.baseline import (
    ESP_WANTED,
    IKE_BEST,
    IKE_WANTED,
    judge_certificates,
    judge_proposals,
)
from ipsec_agent.core.manifest.bundle import Bundle
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.manifest.proposals import fault
from tests.certificates import Issued, Key, make_ca, make_leaf, rsa_key
from tests.manifests import manifest

NOW = datetime.now(UTC)
P384 = ec.generate_private_key(ec.SECP384R1())
CA = authority(P384, name="CA", serial=1, now=NOW, days=9)


def judged(ike: str = IKE_WANTED, esp: str = ESP_WANTED) -> list[str]:
    """The messages about one proposal each, without the severity of a warning's remedy."""
    found = judge_proposals(Baseline.CNSA2, (ike,), (esp,))
    return [f"{one.severity} {one.part}: {one.message}" for one in found]


def errors(said: list[str]) -> list[str]:
    """Those that refuse the config."""
    return [one for one in said if one.startswith("error")]


@pytest.mark.parametrize(
    "ike",
    [
        "aes256gcm16-prfsha384-ecp384",
        "aes256gcm-prfsha512-modp4096",
        "aes256gcm128-sha384-modp3072",
        "aes256gcm16-sha2_512-ecp384",
    ],
)
def test_ike_of_cnsa1(ike: str) -> None:
    """Until 2030 a classical exchange is enough, and is warned of; charon would load it."""
    assert fault(ike, ike=True) == ""
    (said,) = judged(ike)
    assert said.startswith(f"warning ike_proposals: cnsa2: {ike} is without ML-KEM-1024")


def test_ike_of_cnsa2() -> None:
    """With ML-KEM-1024 on top there is nothing to say; ML-KEM-768 is not enough."""
    assert judged(f"{IKE_WANTED}-ke1_mlkem1024") == []
    (said,) = errors(judged(f"{IKE_WANTED}-ke1_mlkem768"))
    assert said.endswith("has what CNSA 2.0 does not have: ke1_mlkem768")


def test_what_to_write_is_of_cnsa() -> None:
    """The proposal that the remedy names is one that nothing else is said of."""
    weak = "aes128gcm16-prfsha256-x25519-ke1_mlkem1024"
    strong = f"{IKE_WANTED}-ke2_mlkem1024"
    for given, best in (
        ((weak, IKE_WANTED), IKE_BEST),
        ((weak, strong, IKE_WANTED), f"{strong}!"),
        ((f"{IKE_WANTED}-ke1_mlkem1024-ke1_none", IKE_WANTED), IKE_BEST),
    ):
        found = judge_proposals(Baseline.CNSA2, given, (ESP_WANTED,))
        (remedy,) = (one.remedy for one in found if one.severity == "warning")
        assert remedy.endswith(f"write only {best}")


@pytest.mark.parametrize(
    ("ike", "words"),
    [
        ("aes128gcm16-prfsha384-ecp384", "aes128gcm16"),
        ("aes256gcm8-prfsha384-ecp384", "aes256gcm8"),
        ("aes256-sha384-ecp384", "aes256"),
        ("aes256gcm16-prfsha256-ecp256", "prfsha256, ecp256"),
        ("chacha20poly1305-prfsha384-x25519", "chacha20poly1305, x25519"),
        ("aes256gcm16-prfsha384-modp2048", "modp2048"),
        ("aes256gcm16-prfsha384-ecp521", "ecp521"),
    ],
)
def test_ike_of_neither(ike: str, words: str) -> None:
    """Each word that is too weak, or another one's, is named."""
    (said,) = errors(judged(ike))
    assert said == (f"error ike_proposals: cnsa2: {ike} has what CNSA 2.0 does not have: {words}")


@pytest.mark.parametrize("esp", ["aes256gcm16", "aes256gcm16-esn-noesn", "aes256gcm-ecp384"])
def test_esp(esp: str) -> None:
    """AES-GCM with 256 bits, with or without a key exchange of its own."""
    assert errors(judged(esp=esp)) == []


@pytest.mark.parametrize("esp", ["aes128gcm16", "aes256-sha384", "aes256gcm12", "aes256ccm16"])
def test_esp_of_neither(esp: str) -> None:
    """Everything else."""
    assert len(errors(judged(esp=esp))) == 1


def test_no_secret() -> None:
    """What is no proposal is complained of elsewhere, without its words."""
    secret = "miievqibadanbgkqhkig9w0baqefaascbk-aes128gcm16"
    leaf = make_leaf(make_ca())

    assert errors(judged(secret, secret)) == []
    more = f"{secret}-ke1_mlkem1024"
    for given in (secret, more, [secret, more], [more, "aes128gcm16-prfsha256-x25519-ke1_none"]):
        text = manifest(leaf=leaf, cas=[make_ca()], ike_proposals=given, esp_proposals=given)
        for baseline in Baseline:
            found = parse(text, file="a", now=NOW, baseline=baseline)
            assert found.config is None
            assert "miie" not in str(found.complaints)


def test_the_defaults() -> None:
    """The agent's own defaults are the guide's, and not of CNSA; its default baseline is silent."""
    assert len(judge_proposals(Baseline.CNSA2, DEFAULT_IKE, DEFAULT_ESP)) == len(DEFAULT_IKE) + 2
    assert judge_proposals(Baseline.DEFAULT, DEFAULT_IKE, DEFAULT_ESP) == ()


def about(key: Key, issuer: Issuer = CA) -> list[str]:
    """What is said of an instance certificate of a CA."""
    leaf = instance(key, issuer, order.shared("VM", ()), serial=2, now=NOW, days=9)
    found = judge_certificates(
        Baseline.CNSA2, Bundle(leaf, (), (("ca_certificates[0]", issuer.certificate),))
    )
    return [f"{one.severity} {one.part}: {one.message}" for one in found]


@pytest.mark.parametrize("key", [P384, rsa_key(3584, 50)])
def test_keys_of_cnsa1(key: Key) -> None:
    """P-384, and RSA of which charon makes SHA-384 signatures, are warned of once."""
    (said,) = about(key)
    assert said.startswith("warning instance_certificate: cnsa2: RSA and P-384 are of CNSA 1.0")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (rsa_key(3072, 200), "RSA 3072"),
        (rsa_key(2048, 9), "RSA 2048"),
        (ec.generate_private_key(ec.SECP256R1()), "ECDSA P-256"),
        (ec.generate_private_key(ec.SECP521R1()), "ECDSA P-521"),
    ],
)
def test_keys_of_neither(key: Key, kind: str) -> None:
    """With an RSA key of 3,072 bits charon signs with SHA-256."""
    assert errors(about(key)) == [
        f"error instance_certificate: cnsa2: the key of CN=VM is {kind}",
    ]


def test_authorities() -> None:
    """A CA signs no IKE exchange, so that RSA 3072 is enough; signatures need SHA-384."""
    good = authority(rsa_key(3072, 100), name="CA", serial=1, now=NOW, days=9)
    assert errors(about(P384, good)) == []

    old = make_ca("Old", key=rsa_key(2048, 9))
    assert isinstance(old.key, rsa.RSAPrivateKey)
    assert errors(about(P384, Issuer(old.certificate, old.key))) == [
        "error ca_certificates[0]: cnsa2: the key of CN=Old is RSA 2048",
        "error ca_certificates[0]: cnsa2: CN=Old is signed with sha256",
    ]


def test_check_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` has file, line and key of each, and accepts the same config without a baseline."""
    ca = make_ca()
    path = tmp_path / "ipsec.yml"
    path.write_text(manifest(leaf=make_leaf(ca), cas=[ca], esp_proposals="aes128gcm16"))
    path.chmod(0o600)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "esp_p" in text)

    assert main(["check", str(path)]) == 0
    assert main(["check", "--baseline", "default", str(path)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", "--baseline", "cnsa2", str(path)]) == 1
    said = capsys.readouterr().err
    where = "addons[0].properties.ipsec.esp_proposals"
    assert f"{path}:{line}: {where}: cnsa2: aes128gcm16 has what CNSA 2.0 does not have" in said
    assert "is refused: 7 errors" in said


def test_check_of_a_config_that_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, with the baseline named; the warnings say what is left."""
    leaf = instance(P384, CA, order.shared("VM", ()), serial=2, now=NOW, days=9)
    path = tmp_path / "ipsec.yml"
    path.write_text(
        manifest(
            leaf=Issued(leaf, P384),
            cas=[Issued(CA.certificate, P384)],
            ike_proposals=IKE_WANTED,
            esp_proposals=ESP_WANTED,
        )
    )
    path.chmod(0o600)

    assert main(["check", "--baseline", "cnsa2", str(path)]) == 0
    told = capsys.readouterr()
    assert "baseline: cnsa2;" in told.out
    assert told.err.count(" cnsa2: ") == 2


@pytest.mark.parametrize(
    "ike",
    [
        None,
        "aes128gcm16-prfsha256-ecp256",
        IKE_WANTED,
        f"{IKE_WANTED}-ke1_mlkem768",
        f"{IKE_WANTED}-ke1_mlkem1024",
        [f"{IKE_WANTED}-ke1_mlkem1024", IKE_WANTED],
        ["aes256gcm16-prfsha512-modp4096-ke1_mlkem1024", IKE_WANTED],
    ],
)
def test_a_remedy_is_good_by_the_baseline(ike: str | list[str] | None) -> None:
    """What is said to be written is not complained of, and is not what is written already."""
    leaf, ca = make_leaf(make_ca()), make_ca()

    def said(proposals: str | list[str] | None) -> list[str]:
        given: dict[str, Any] = {} if proposals is None else {"ike_proposals": proposals}
        text = manifest(leaf=leaf, cas=[ca], esp_proposals=ESP_WANTED, **given)
        found = parse(text, file="a", now=NOW, baseline=Baseline.CNSA2).complaints
        return [one.remedy for one in found if one.key.endswith("ike_proposals")]

    remedies = said(ike)
    assert remedies
    for remedy in remedies:
        better = re.search(r"aes256gcm16-\S+!", remedy)
        assert better, remedy
        assert better[0] != ike
        assert said(better[0]) == []


def test_words_are_known() -> None:
    """The command line offers the baselines that there are; what it asks for is accepted."""
    assert set(BASELINES) == set(Baseline)
    assert fault(IKE_WANTED, ike=True) == fault(ESP_WANTED, ike=False) == ""
    text = manifest(leaf=make_leaf(make_ca()), cas=[make_ca()], ike_proposals=IKE_WANTED)
    assert parse(text, file="a", now=NOW).complaints == ()
