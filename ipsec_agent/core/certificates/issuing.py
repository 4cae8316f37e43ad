"""Makes certificates as the guide's scripts do: a CA for one level, and instance certificates.

Who calls it brings the keys, the serials and the time.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from ipsec_agent.core.manifest.certificates import Key
from ipsec_agent.core.terse import Terse

CA_BITS = 4096
"""Of its RSA key: it has to last longer than the 3,072 of a VM."""

CA_DAYS = 1095
"""Of the guide's scripts."""

EARLIER = timedelta(hours=1)
"""By which a certificate is valid before it is made: the clocks of VMs differ."""

LONGEST_NAME = 64
"""Characters of a common name (RFC 5280, ub-common-name)."""

SMALL_CURVE = 256
"""Bits; a signature is as strong as the weaker of its curve and its hash."""


class Issuer(Terse, frozen=True):
    """A CA that signs.

    Attributes:
        above: the certificates between it and its root, and the root; empty where it is one.
    """

    unshown = ("key",)

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()


class Subject(Struct, frozen=True):
    """Whom an instance certificate is for.

    Attributes:
        name: its common name.
        alternatives: its subject alternative names: DNS names and IP addresses.
        file: what its files' names begin with.
    """

    name: str
    alternatives: tuple[str, ...]
    file: str


def authority(key: Key, *, name: str, serial: int, now: datetime, days: int) -> Issuer:
    """A self-signed CA that may sign instance certificates, and no further CA (path length 0)."""
    subject = _named(name)
    certificate = (
        _begun(subject, subject, key, serial)
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, _hash(key))
    )
    return Issuer(certificate, key)


def instance(
    key: Key, issuer: Issuer, subject: Subject, *, serial: int, now: datetime, days: int
) -> x509.Certificate:
    """A certificate for IKE, for so many days, or until the issuer's own ends."""
    end = min(now + timedelta(days=days), issuer.certificate.not_valid_after_utc)
    ski = _key_id(issuer.certificate)
    return (
        _begun(_named(subject.name), issuer.certificate.subject, key, serial)
        # A CA that begins later is refused by who judges the chain.
        .not_valid_before(min(now - EARLIER, end))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False
        )
        .add_extension(_alternatives(subject.alternatives), critical=False)
        .sign(issuer.key, _hash(issuer.key))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(subject: x509.Name, issuer: x509.Name, key: Key, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_id(issuer: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """As the issuer itself says it: charon compares the two."""
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_alternative(name) for name in names])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _hash(key: Key) -> hashes.SHA256 | hashes.SHA384 | None:
    """SHA-384, which CNSA asks for; SHA-256 for a small curve; Edwards' curves have their own."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size <= SMALL_CURVE:
        return hashes.SHA256()
    return hashes.SHA384()
