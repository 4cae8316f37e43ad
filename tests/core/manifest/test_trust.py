"""Chains as charon judges them; each outcome was seen with strongSwan 5.9.8 (`pki --verify`)."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ipsec_agent.core.manifest import trust
from ipsec_agent.core.manifest.bundle import Bundle
from ipsec_agent.core.manifest.certificates import Finding
from tests.certificates import Issued, ec_key, make_ca, make_leaf, rsa_key

NOW = datetime.now(UTC)
ROOT = make_ca("Root", key=ec_key(1))
MIDDLE = make_ca("Middle", key=ec_key(2), issuer=ROOT)
OLD = {"days": 5, "not_before": NOW - timedelta(days=10)}


def leaf(ca: Issued | None, **more: object) -> Issued:
    """An instance certificate."""
    return make_leaf(ca, key=ec_key(9), **more)  # type: ignore[arg-type]


def judged(
    instance: Issued, cas: list[Issued], *, behind: list[Issued] | None = None
) -> tuple[Finding, ...]:
    """What is found about a certificate, with these CAs and these certificates behind it."""
    bundle = Bundle(
        instance.certificate,
        tuple(item.certificate for item in behind or []),
        tuple((f"ca_certificates[{at}]", ca.certificate) for at, ca in enumerate(cas)),
    )
    return trust.judge(bundle, instance.key, NOW)


def said(findings: tuple[Finding, ...]) -> list[str]:
    """The findings as `severity part: message`."""
    return [f"{item.severity} {item.part}: {item.message}" for item in findings]


def usage(**allowed: bool) -> x509.KeyUsage:
    """A key usage that allows only these."""
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names})


@pytest.mark.parametrize("chained", [False, True])
def test_a_root_that_signed(chained: bool) -> None:
    """Signed by a root, or by an intermediate whose root is listed beside it."""
    if chained:
        assert judged(leaf(MIDDLE), [MIDDLE, ROOT]) == ()
        assert judged(leaf(MIDDLE), [ROOT], behind=[MIDDLE]) == ()
    else:
        assert judged(leaf(ROOT), [ROOT]) == ()


def test_an_intermediate_alone_is_no_anchor() -> None:
    """charon trusts only a chain that ends at a self-signed CA."""
    assert said(judged(leaf(MIDDLE), [MIDDLE])) == [
        "error instance_certificate: its chain ends at CN=Middle: the CA above it, CN=Root, is not"
        " in ca_certificates"
    ]


def test_a_stranger() -> None:
    """A CA that signed nothing of the chain is not enough."""
    assert said(judged(leaf(ROOT), [make_ca("Other", key=ec_key(3))])) == [
        "error instance_certificate: no CA in ca_certificates signed it (its issuer is CN=Root)"
    ]


def test_another_ca_of_that_name() -> None:
    """A CA with the right name and another key did not sign it."""
    assert said(judged(leaf(ROOT), [make_ca("Root", key=ec_key(3))])) == [
        "error instance_certificate: CN=Root in ca_certificates has another key than the CA that"
        " signed it"
    ]


def test_root_only_behind_the_leaf() -> None:
    """A root that is not listed is not trusted, though it came along."""
    other = make_ca("Other", key=ec_key(3))

    assert said(judged(leaf(ROOT), [other], behind=[ROOT])) == [
        "error instance_certificate: its chain ends at CN=Root, which is not a CA of"
        " ca_certificates"
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_expired_ca_on_the_way(number: int) -> None:
    """An expired CA of the chain is an error, also where a valid one of the same key is listed."""
    old = make_ca("Root", key=ec_key(1), **OLD)  # type: ignore[arg-type]
    cas = [old] if number == 0 else [ROOT, old]

    assert said(judged(leaf(ROOT), cas)) == [
        f"error ca_certificates[{number}]: the certificate CN=Root expired on"
        f" {NOW - timedelta(days=5):%Y-%m-%d}"
    ]


def test_expired_ca_beside() -> None:
    """An expired CA that signed nothing of ours is a warning: it has had its rotation."""
    old = make_ca("Old", key=ec_key(3), **OLD)  # type: ignore[arg-type]

    findings = judged(leaf(ROOT), [ROOT, old])

    assert [(item.severity, item.part, item.remedy) for item in findings] == [
        ("warning", "ca_certificates[1]", "remove it")
    ]


def test_expired_intermediate() -> None:
    """An intermediate is judged like the leaf, at the place where it stands."""
    old = make_ca("Middle", key=ec_key(2), issuer=ROOT, **OLD)  # type: ignore[arg-type]

    found = judged(leaf(MIDDLE), [ROOT], behind=[old])
    assert said(found)[0].startswith(
        "error instance_certificate: the certificate CN=Middle expired on"
    )
    assert found[0].remedy.startswith("have CN=Root, which signed it, sign it again")
    assert found[0].remedy.endswith("in its place in instance_certificate")


def test_an_issuer_that_is_no_ca() -> None:
    """charon ignores an issuer without CA:TRUE."""
    fake = make_ca("Fake", key=ec_key(3), is_ca=False)
    findings = judged(leaf(fake), [fake])

    assert said(findings)[0] == "error ca_certificates[0]: CN=Fake is not a CA certificate"
    assert all(item.severity == "error" for item in findings)


def test_a_ca_that_may_not_sign() -> None:
    """A key usage without keyCertSign is a warning: charon does not look."""
    mute = make_ca("Mute", key=ec_key(3), extensions=[(usage(crl_sign=True), True)])

    assert said(judged(leaf(mute), [mute])) == [
        "warning ca_certificates[0]: the key usage of CN=Mute does not allow it to sign"
        " certificates; charon does not look at that, other programs do"
    ]


@pytest.mark.parametrize(("pathlen", "good"), [(0, False), (1, True)])
def test_path_length(pathlen: int, good: bool) -> None:
    """A root with path length 0 allows no intermediate."""
    root = make_ca("Root", key=ec_key(1), pathlen=pathlen)

    assert (judged(leaf(MIDDLE), [root, MIDDLE]) == ()) == good
    assert judged(leaf(root), [root]) == ()


def test_self_signed() -> None:
    """A certificate that signed itself has no CA behind it, whether it is listed or not."""
    alone = leaf(None)

    assert said(judged(alone, [ROOT])) == [
        "error instance_certificate: it is self-signed, so no CA vouches for it"
    ]
    assert said(judged(alone, [alone]))[:2] == [
        "error ca_certificates[0]: CN=VM is not a CA certificate",
        "error instance_certificate: it is self-signed, so no CA vouches for it",
    ]


def test_its_own_ca() -> None:
    """A CA that is used as instance certificate works, until it is replaced."""
    findings = judged(ROOT, [ROOT])

    assert [item.severity for item in findings] == ["warning", "warning"]
    assert "CN=Root is a CA, and each VM has its key" in findings[0].message
    assert "it is also in ca_certificates" in findings[1].message


def test_key_of_another_certificate() -> None:
    """A key that fits nothing, and one that fits a certificate further down: all else is good."""
    bundle = Bundle(
        MIDDLE.certificate, (leaf(MIDDLE).certificate,), (("ca_certificates[0]", ROOT.certificate),)
    )

    assert said(trust.judge(bundle, ec_key(9), NOW)) == [
        "error instance_certificate: the key belongs to certificate 2 here, not to the first"
    ]
    assert said(trust.judge(bundle, ec_key(8), NOW))[0] == (
        "error instance_private_key: the key does not match instance_certificate"
    )


def test_an_unneeded_certificate() -> None:
    """What stands behind the leaf and is not part of the chain is a warning."""
    other = make_ca("Other", key=ec_key(3))

    assert said(judged(leaf(ROOT), [ROOT], behind=[other])) == [
        "warning instance_certificate: CN=Other, after the first certificate, is not part of its"
        " chain"
    ]


def test_twice_and_same_name() -> None:
    """The same CA twice, and two CAs of one name, are warnings."""
    namesake = make_ca("Root", key=ec_key(3))
    other = make_ca("Other", key=ec_key(4))

    assert said(judged(leaf(ROOT), [ROOT, other, ROOT, namesake])) == [
        "warning ca_certificates[2]: CN=Root is listed twice, here and in ca_certificates[0]",
        "warning ca_certificates[3]: CN=Root has the same name as the CA in ca_certificates[0],"
        " but another key",
    ]


def test_usages_of_the_leaf() -> None:
    """A leaf that may not sign is refused; one that is for something else is a warning."""
    limited = leaf(
        ROOT,
        extensions=[
            (usage(key_encipherment=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
        ],
    )
    fitting = leaf(
        ROOT,
        extensions=[
            (usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        ],
    )

    assert said(judged(limited, [ROOT])) == [
        "error instance_certificate: its key usage does not allow signatures, so every peer would"
        " refuse it",
        "warning instance_certificate: its extended key usage does not allow IKE",
    ]
    assert judged(fitting, [ROOT]) == ()


def test_small_ca() -> None:
    """A CA with a small RSA key is a warning: only a rotation mends it."""
    small = make_ca("Small", key=rsa_key(1024, 1))

    assert said(judged(leaf(small), [small])) == [
        "warning ca_certificates[0]: the key of CN=Small has only 1024 bits"
    ]


def test_cross_signed_cas_end() -> None:
    """The search ends where certificates sign each other in every direction."""
    key = ec_key(5)
    peers = [make_ca("Peer", key=key) for _ in range(20)]

    assert said(judged(make_leaf(peers[0], key=ec_key(9)), [ROOT], behind=peers))[0].startswith(
        "error instance_certificate: its chain ends at CN=Peer, which is not a CA of"
    )
