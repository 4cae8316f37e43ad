"""What each certificate must be by itself: valid, a CA, fit for IKE."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ipsec_agent.core.manifest.certificates import RSA_LEAST, Finding, name
from ipsec_agent.core.manifest.issuers import is_ca
from ipsec_agent.core.renewal import is_intermediate, sign_again
from ipsec_agent.core.words import remaining

FOR_IKE = {
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.IPSEC_IKE,
}
RENEW = "renew it with `ipsec-agent certs create --ca CA-CERTIFICATE`"
RENEW_ALL = (
    "create a new CA and certificate with `ipsec-agent certs create`, and replace both in one"
    " deployment"
)
NEXT_CA = "create the next CA now: to replace one takes three deployments"
WEAK_HASHES = {"md5", "sha1"}


def validity(
    certificate: x509.Certificate, part: str, now: datetime, *, severity: str = "error"
) -> Iterator[Finding]:
    """Whether it holds at this time."""
    subject, issuer = name(certificate.subject), name(certificate.issuer)
    end, start = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    renew = RENEW
    if is_ca(certificate):
        renew = sign_again(issuer, part) if is_intermediate(subject, issuer) else RENEW_ALL
    if now > end:
        yield Finding(
            part,
            f"the certificate {subject} expired on {end:%Y-%m-%d}",
            renew if severity == "error" else "remove it",
            severity,
            dated=True,
        )
    elif now < start:
        yield Finding(
            part,
            f"the certificate {subject} is not valid before {start:%Y-%m-%d %H:%M} UTC",
            "wait, or check this VM's clock",
            severity,
            dated=True,
        )


def ending(
    certificate: x509.Certificate, part: str, now: datetime, days: int, *, instance: bool
) -> Iterator[Finding]:
    """Whether it ends within so many days."""
    left = certificate.not_valid_after_utc - now
    if timedelta() <= left <= timedelta(days):
        subject, issuer = name(certificate.subject), name(certificate.issuer)
        remedy = RENEW
        if not instance:
            remedy = NEXT_CA
            if is_intermediate(subject, issuer):
                remedy = sign_again(issuer, part or "its file")
        yield Finding(
            part,
            f"{subject} ends on {certificate.not_valid_after_utc:%Y-%m-%d},"
            f" in {remaining(left / timedelta(days=1))}",
            remedy,
            "warning",
        )


def usage(leaf: x509.Certificate, part: str) -> Iterator[Finding]:
    """Whether its key may be used for IKE (RFC 4945, 5.1.3).

    charon refuses a peer whose key may not sign (pubkey_authenticator.c: is_compliant_cert); of
    extended usages it knows nothing, other IKE daemons do.
    """
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage) and not (
            value.digital_signature or value.content_commitment
        ):
            yield Finding(
                part,
                "its key usage does not allow signatures, so every peer would refuse it",
                "issue it with key usage digitalSignature",
            )
        if isinstance(value, x509.ExtendedKeyUsage) and not FOR_IKE.intersection(value):
            yield Finding(
                part,
                "its extended key usage does not allow IKE",
                "issue it without extended key usage, or with serverAuth and clientAuth",
                "warning",
            )
    yield from signature(leaf, part)


def authority(part: str, ca: x509.Certificate) -> Iterator[Finding]:
    """Whether it may sign others; charon asks for CA:TRUE, not for the key usage."""
    subject = name(ca.subject)
    try:
        signs = ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    if not is_ca(ca):
        yield Finding(
            part,
            f"{subject} is not a CA certificate",
            "paste the CA's own certificate; `openssl x509 -text` shows CA:TRUE for it",
        )
    elif not signs:
        yield Finding(
            part,
            f"the key usage of {subject} does not allow it to sign certificates; charon does not"
            " look at that, other programs do",
            "create a CA with key usage keyCertSign and rotate to it",
            "warning",
        )
    public = ca.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < RSA_LEAST:
        yield Finding(
            part,
            f"the key of {subject} has only {public.key_size} bits",
            "create a new CA and rotate to it",
            "warning",
        )


def signature(certificate: x509.Certificate, part: str) -> Iterator[Finding]:
    """Whether its own signature is strong."""
    try:
        used = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return
    if used is not None and used.name in WEAK_HASHES:
        yield Finding(
            part,
            f"{name(certificate.subject)} is signed with {used.name}, which can be forged",
            "reissue it with SHA-256",
            "warning",
        )
