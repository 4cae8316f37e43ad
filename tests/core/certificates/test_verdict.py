"""What `certs verify` finds beside what `check` does, each with its place and a remedy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ipsec_agent.core.certificates import material, verdict
from ipsec_agent.core.certificates.material import read_files
from ipsec_agent.core.certificates.verdict import verify
from ipsec_agent.core.manifest.public_keys import encoded
from tests.certificates import Issued, ec_key, make_ca, make_leaf, rsa_key
from tests.manifests import manifest

NOW = datetime.now(UTC)
ROOT = make_ca("Root", key=ec_key(1))
MIDDLE = make_ca("Middle", key=ec_key(2), issuer=ROOT)
LEAF = make_leaf(ROOT, "VM", key=ec_key(3))


def found(*texts: str, now: datetime = NOW) -> list[str]:
    """The complaints about files a, b, c … of these texts."""
    material = read_files(zip("abcdefgh", texts, strict=False))
    complaints = verify(material, now)
    assert all(one.remedy for one in complaints)
    return [str(one) for one in complaints]


def test_good() -> None:
    """A chain in files of any order; one with a key, one without; a CA alone; a config."""
    assert found(LEAF.cert_pem, ROOT.cert_pem, LEAF.key_pem) == []
    assert found(make_leaf(MIDDLE, key=ec_key(4)).cert_pem, MIDDLE.cert_pem, ROOT.cert_pem) == []
    assert found(ROOT.cert_pem + ROOT.key_pem) == []
    curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert found(LEAF.cert_pem + ROOT.cert_pem, curve + LEAF.key_pem) == []
    assert found(manifest(leaf=LEAF, cas=[ROOT])) == []
    of_credhub = {
        "ca": ROOT.cert_pem,
        "certificate": LEAF.cert_pem,
        "private_key": LEAF.key_pem,
    }
    nothing: dict[str, Any] = {"instance_private_key": None, "ca_certificates": None}
    whole = manifest(leaf=LEAF, cas=[], instance_certificate=of_credhub, **nothing)
    assert found(whole) == []
    assert len(read_files([("a", whole)]).keys) == 1
    behind = make_leaf(MIDDLE, "VM", key=ec_key(4))
    chained = Issued(behind.certificate, behind.key)
    text = manifest(
        leaf=chained, cas=[ROOT], instance_certificate=behind.cert_pem + MIDDLE.cert_pem
    )
    assert found(text) == []


def test_a_fleet_with_one_identity_per_vm() -> None:
    """Many certificates of one CA are good side by side, in files and in configs."""
    fleet = [make_leaf(ROOT, f"vm{number}", key=ec_key(10 + number)) for number in range(3)]

    assert found(*(one.cert_pem + one.key_pem for one in fleet), ROOT.cert_pem) == []
    assert found(*(manifest(leaf=one, cas=[ROOT]) for one in fleet)) == []


def test_what_check_finds_is_found() -> None:
    """The rules of `check`, at the place of the certificate that breaks them."""
    other = make_ca("Other", key=ec_key(5))
    old = make_leaf(ROOT, "Old", key=ec_key(6), days=2, not_before=NOW - timedelta(days=9))

    (said,) = found(LEAF.cert_pem, other.cert_pem)
    assert said.startswith("a:1: no CA in ca_certificates signed it (its issuer is CN=Root); ")
    (said,) = found(ROOT.cert_pem, LEAF.cert_pem + old.cert_pem)
    line = LEAF.cert_pem.count("\n") + 1
    assert said.startswith(f"b:{line}: the certificate CN=Old expired on ")
    (said,) = found(manifest(leaf=old, cas=[ROOT]))
    assert " addons[0].properties.ipsec.instance_certificate: the certificate CN=Old exp" in said


def test_configs_are_judged_by_their_own_cas() -> None:
    """The CA of one config does not make another's certificate good."""
    other = make_ca("Other", key=ec_key(5))

    (said,) = found(manifest(leaf=LEAF, cas=[other]), manifest(leaf=LEAF, cas=[ROOT]))

    assert said.startswith("a:")
    assert "no CA in ca_certificates signed it" in said


def test_keys() -> None:
    """A key that is no certificate's; in a config it is the certificate's or wrong."""
    stray = make_leaf(ROOT, "Stray", key=ec_key(8))

    (said,) = found(LEAF.cert_pem, ROOT.cert_pem, stray.key_pem)
    assert said.startswith("c:1: the key belongs to none of these certificates; ")
    (said,) = found(manifest(leaf=LEAF, cas=[ROOT], instance_private_key=stray.key_pem))
    assert "instance_private_key: the key does not match instance_certificate" in said


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (31, []),
        (29, ["a:1: warning: CN=VM ends on {}, in 29 days; renew it with `ipsec-agent certs"]),
        (1, ["a:1: warning: CN=VM ends on {}, in 1 day; renew it"]),
    ],
)
def test_soon(left: int, said: list[str]) -> None:
    """A certificate that ends within the 30 days of the status's first level is a warning."""
    end = LEAF.certificate.not_valid_after_utc

    told = found(LEAF.cert_pem, ROOT.cert_pem, now=end - timedelta(days=left, minutes=-1, hours=1))

    assert len(told) == len(said)
    for one, begin in zip(told, said, strict=True):
        assert one.startswith(begin.format(f"{end:%Y-%m-%d}"))


def test_a_ca_ends_soon() -> None:
    """To replace a CA takes time, and so does the warning say."""
    ends = make_ca("Ends", key=ec_key(7), days=20)

    told = found(ends.cert_pem)

    assert len(told) == 1
    assert "CN=Ends ends on" in told[0]
    assert told[0].endswith("create the next CA now: to replace one takes three deployments")


def test_weak_keys() -> None:
    """Keys without their private key, and CAs, are judged, too; each once."""
    small, least = (make_leaf(ROOT, f"RSA {n}", key=rsa_key(n, 9)) for n in (1024, 2048))
    curve = ec.generate_private_key(ec.SECP224R1())
    odd = make_leaf(ROOT, "Odd", key=curve)

    told = found(small.cert_pem, least.cert_pem, odd.cert_pem, ROOT.cert_pem)
    assert [one.partition(";")[0] for one in told] == [
        "a:1: CN=RSA 1024 has the weak key RSA 1024",
        "b:1: warning: CN=RSA 2048 has the weak key RSA 2048",
        "c:1: CN=Odd has the weak key ECDSA secp224r1",
    ]
    (told_once,) = found(least.cert_pem, least.key_pem, ROOT.cert_pem)
    assert told_once.startswith("b:1: warning: an RSA key of 2048 bits is too small; ")
    for bits in (1024, 2048):
        ca = make_ca("Weak", key=rsa_key(bits, 9))
        (told_once,) = found(ca.cert_pem, make_leaf(ca, key=ec_key(3)).cert_pem)
        assert f"{bits}" in told_once
        assert told_once.startswith("a:1: warning: ")


def numbered(name: str, serial: int, key: int) -> str:
    """A certificate of ROOT with a serial number of one's own choice."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ROOT.certificate.subject)
        .public_key(ec_key(key).public_key())
        .serial_number(serial)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=99))
        .sign(ROOT.key, hashes.SHA256())
    )
    return Issued(made, ec_key(key)).cert_pem


def test_shared_serials_and_names() -> None:
    """Two certificates of one CA with one serial, as the guide's scripts make them; one name."""
    (said,) = found(numbered("one", 1, 21), numbered("two", 1, 22), ROOT.cert_pem)
    assert said.startswith(
        "b:1: warning: CN=two has the serial number of the certificate in a:1, which the same CA"
    )
    (said,) = found(numbered("one", 1, 21), numbered("one", 2, 22), ROOT.cert_pem)
    assert said.startswith(
        "b:1: warning: CN=one has the name of the certificate in a:1, but another key; "
    )
    # The same certificate twice is one.
    assert found(numbered("one", 1, 21), ROOT.cert_pem, ROOT.cert_pem) == [
        "c:1: warning: CN=Root is listed twice, here and in b:1; remove one"
    ]


def test_what_many_share_is_told_once_of_each() -> None:
    """A fleet of which all certificates are alike gives as many complaints, not each with each."""
    alike = [numbered("one", 1, 21 + number) for number in range(5)]

    said = found(*alike, ROOT.cert_pem)

    assert len(said) == 2 * 4
    assert all("certificate in a:1" in one for one in said)


def test_a_fleet_is_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an identity for each VM there are hundreds of certificates and keys."""
    calls = 0

    def counted(key: object) -> bytes:
        nonlocal calls
        calls += 1
        return encoded(key)

    for module in (material, verdict):
        monkeypatch.setattr(module, "encoded", counted)
    fleet = [make_leaf(ROOT, f"vm{number}", key=ec_key(50 + number)) for number in range(12)]

    assert found("".join(one.cert_pem + one.key_pem for one in fleet), ROOT.cert_pem) == []

    assert calls < 8 * len(fleet)
