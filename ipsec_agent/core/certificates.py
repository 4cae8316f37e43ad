"""Judges the certificates and the key before charon sees them, which would load anything."""

import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ipsec_agent.core.config import CertificateFacts
from ipsec_agent.core.model import Authority, Credentials, Secret

RSA_WANTED, RSA_LEAST = 3072, 2048
"""Bits of an RSA key: below the first a warning (the guide's 3072), below the second refused."""

PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s*(.*?)-----END \1-----", re.DOTALL)
Key = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a certificate or the key.

    Attributes:
        part: instance_certificate, instance_private_key or ca_certificates[N].
    """

    part: str
    message: str
    remedy: str
    severity: str = "error"


def split_pem(text: str, part: str) -> tuple[tuple[x509.Certificate, ...], tuple[Finding, ...]]:
    """The certificates of a text, each by itself: charon loads only the first of several."""
    blocks = PEM.findall(text.replace("\r\n", "\n"))
    if not blocks:
        return (), (_no_pem(text, part),)
    certificates, findings = [], []
    for label, body in blocks:
        if "PRIVATE KEY" in label:
            findings.append(
                Finding(part, "this holds a private key", "remove it; write only certificates here")
            )
        elif label != "CERTIFICATE":
            findings.append(
                Finding(
                    part, f"this holds a {label}", "write only -----BEGIN CERTIFICATE----- here"
                )
            )
        else:
            certificate = _certificate(body)
            if certificate is None:
                findings.append(_broken(body, part))
            else:
                certificates.append(certificate)
    return tuple(certificates), tuple(findings)


def _certificate(body: str) -> x509.Certificate | None:
    pem = f"-----BEGIN CERTIFICATE-----\n{body.strip()}\n-----END CERTIFICATE-----\n"
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        # What cannot be read of it now could not be judged later.
        _ = (certificate.extensions, certificate.subject, certificate.public_key())
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        return None
    return certificate


def _no_pem(text: str, part: str) -> Finding:
    if not text.strip():
        return Finding(part, "this is empty", "paste the certificate, from BEGIN to END")
    if "-----BEGIN" in text:
        return Finding(part, "the -----END line is missing", "paste the whole of it again")
    return Finding(
        part, "this is no PEM", "begin it with -----BEGIN CERTIFICATE----- on a line of its own"
    )


def _broken(body: str, part: str) -> Finding:
    if "..." in body or "EXAMPLE" in body:
        return Finding(
            part, "this is the guide's placeholder", "paste the real certificate in its place"
        )
    return Finding(part, "this certificate cannot be read", "paste the whole of it again")


def load_key(text: str) -> tuple[Key | None, tuple[Finding, ...]]:
    """The private key; nothing of it is ever part of a finding."""
    part = "instance_private_key"
    if "-----BEGIN" not in text:
        return None, (Finding(part, "this is no PEM", "paste the key, from BEGIN to END"),)
    if "EXAMPLE" in text or "\n..." in text:
        return None, (
            Finding(part, "this is the guide's placeholder", "paste the real key in its place"),
        )
    try:
        key = serialization.load_pem_private_key(text.strip().encode(), password=None)
    except TypeError:
        return None, (
            Finding(
                part,
                "the key has a passphrase",
                "remove it: openssl pkey -in KEY -out KEY-WITHOUT-PASSPHRASE",
            ),
        )
    except (ValueError, UnsupportedAlgorithm):
        return None, (Finding(part, "this key cannot be read", "paste the whole of it again"),)
    return _fit_for_ike(key, part)


def _fit_for_ike(key: object, part: str) -> tuple[Key | None, tuple[Finding, ...]]:
    if not isinstance(key, Key):
        return None, (Finding(part, "this kind of key is not for IKE", "use RSA or ECDSA"),)
    return key, _key_size(key, part)


def _key_size(key: Key, part: str) -> tuple[Finding, ...]:
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size >= RSA_WANTED:
        return ()
    severity = "warning" if key.key_size >= RSA_LEAST else "error"
    return (
        Finding(
            part,
            f"an RSA key of {key.key_size} bits is too small",
            f"make one of {RSA_WANTED} or 4096 bits",
            severity,
        ),
    )


def judge_chain(
    leaf: x509.Certificate,
    key: Key | None,
    intermediates: tuple[x509.Certificate, ...],
    authorities: tuple[tuple[str, x509.Certificate], ...],
    now: datetime,
) -> tuple[Finding, ...]:
    """Whether the key fits, the chain ends at a listed CA, and all of it holds now."""
    part = "instance_certificate"
    findings = list(_validity(leaf, part, now))
    if key is not None and _public(key.public_key()) != _public(leaf.public_key()):
        findings.append(
            Finding(
                "instance_private_key",
                "the key does not belong to instance_certificate",
                "paste the key that the certificate was made for",
            )
        )
    for where, authority in authorities:
        findings += _authority(where, authority, now)
    chain = _chain(leaf, intermediates, tuple(ca for _, ca in authorities))
    if chain is None:
        findings.append(
            Finding(
                part,
                f"none of ca_certificates has signed it (its issuer is {name(leaf.issuer)})",
                "add that CA to ca_certificates, or use a certificate that one of them signed",
            )
        )
        return tuple(findings)
    for link in chain:
        if link in intermediates:
            findings += _validity(link, part, now)
    return tuple(findings)


def _chain(
    leaf: x509.Certificate,
    intermediates: tuple[x509.Certificate, ...],
    authorities: tuple[x509.Certificate, ...],
) -> tuple[x509.Certificate, ...] | None:
    """From the leaf to a listed CA, None where there is no way."""
    chain: tuple[x509.Certificate, ...] = (leaf,)
    for _ in range(len(intermediates) + 1):
        top = chain[-1]
        if any(_issued(top, ca) for ca in authorities):
            return chain
        above = next(
            (item for item in intermediates if item not in chain and _issued(top, item)), None
        )
        if above is None:
            return None
        chain = (*chain, above)
    return None


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _validity(
    certificate: x509.Certificate, part: str, now: datetime, *, severity: str = "error"
) -> tuple[Finding, ...]:
    if now > certificate.not_valid_after_utc:
        return (
            Finding(
                part,
                f"the certificate {name(certificate.subject)} expired on"
                f" {certificate.not_valid_after_utc:%Y-%m-%d}",
                "renew it",
                severity,
            ),
        )
    if now < certificate.not_valid_before_utc:
        return (
            Finding(
                part,
                f"the certificate {name(certificate.subject)} is not valid before"
                f" {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                "wait, or look whether this VM's clock is right",
                severity,
            ),
        )
    return ()


def _authority(where: str, ca: x509.Certificate, now: datetime) -> tuple[Finding, ...]:
    # An expired CA that signs nothing of ours harms nobody yet; one that does fails with its leaf.
    findings = list(_validity(ca, where, now, severity="warning"))
    try:
        is_ca = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    try:
        signs = ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    if not is_ca or not signs:
        findings.append(
            Finding(
                where,
                f"{name(ca.subject)} is no CA certificate",
                "paste the certificate of the CA, which says CA:TRUE in `openssl x509 -text`",
            )
        )
    return tuple(findings)


def _public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return] # every public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def name(subject: x509.Name) -> str:
    """A name as strongSwan and operators write it, such as CN=VM."""
    return subject.rfc4514_string() or "without a name"


def facts(certificate: x509.Certificate, role: str) -> CertificateFacts:
    """What is shown of a certificate."""
    return CertificateFacts(
        subject=name(certificate.subject),
        issuer=name(certificate.issuer),
        role=role,
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def der(certificate: x509.Certificate) -> bytes:
    """A certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def credentials(
    key: Key,
    intermediates: tuple[x509.Certificate, ...],
    authorities: tuple[x509.Certificate, ...],
) -> Credentials:
    """The record that charon's adapter takes."""
    secret = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # SHA-1 of the public key's bits is how charon names keys; it protects nothing.
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    named = tuple(
        Authority(f"ca-{ca.fingerprint(hashes.SHA256()).hex()[:16]}", der(ca)) for ca in authorities
    )
    return Credentials(key_id, Secret(secret), named, tuple(der(item) for item in intermediates))
