"""Reads the certificates and the key before charon sees them, which would load almost anything."""

from collections import deque
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from msgspec import Struct

from ipsec_agent.core.config import CertificateFacts
from ipsec_agent.core.manifest import pem, readable
from ipsec_agent.core.manifest.loadable import obstacles
from ipsec_agent.core.model import Authority, Credentials, Secret
from ipsec_agent.core.words import printable

RSA_WANTED, RSA_LEAST = 3072, 2048
"""Bits of an RSA key: below the first a warning (the guide's 3072), below the second refused."""

CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""Those that IKEv2 has for ECDSA (RFC 4754)."""

_SOUND: deque[bytes] = deque(maxlen=4)
"""Digests of the keys that this process read last and found sound."""

CERTIFICATE, KEY_PART = "CERTIFICATE", "instance_private_key"
Key = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


class Finding(Struct, frozen=True):
    """What is wrong with a certificate or the key.

    Attributes:
        part: instance_certificate, instance_private_key or ca_certificates[N].
        severity: "error" refuses the config, "warning" does not.
        dated: at another time nothing would be wrong.
    """

    part: str
    message: str
    remedy: str
    severity: str = "error"
    dated: bool = False


def load_certificates(
    text: str, part: str
) -> tuple[tuple[x509.Certificate, ...], tuple[Finding, ...]]:
    """The certificates of a text, each by itself: charon loads only the first of several."""
    found = pem.blocks(text)
    if not found:
        return (), (_no_pem(text, part),)
    certificates: list[x509.Certificate] = []
    findings: list[Finding] = []
    for block in found:
        certificate, damaged = _certificate(block, part)
        if certificate is None:
            findings.append(damaged or _refused(block, part))
            continue
        certificates.append(certificate)
        subject = name(certificate.subject)
        findings += (
            Finding(part, f"{subject} {what}", remedy) for what, remedy in obstacles(certificate)
        )
    return tuple(certificates), tuple(findings)


def _certificate(block: pem.Block, part: str) -> tuple[x509.Certificate | None, Finding | None]:
    encoded = block.der() if block.label == CERTIFICATE and block.ended else None
    if encoded is None or block.placeholder:
        return None, None
    certificate, unreadable = readable.read(encoded)
    if not unreadable:
        return certificate, None
    if certificate is None:
        return None, _unclear(
            "the certificate",
            part,
            f"has {unreadable} that is not as RFC 5280 asks",
            "where `openssl x509 -text` cannot read it either, paste all of it again; else reissue"
            " it",
        )
    try:
        with readable.quietly():
            subject = name(certificate.subject)
    except readable.REFUSED:
        subject = "the certificate"
    return None, _unclear(subject, part, f"has {unreadable}", "reissue the certificate")


def _unclear(subject: str, part: str, what: str, remedy: str) -> Finding:
    return Finding(
        part,
        f"{subject} {what}; charon may take it, ipsec-agent takes none that it cannot judge",
        remedy,
    )


def _no_pem(text: str, part: str) -> Finding:
    if not text.strip():
        return Finding(part, "is empty", "paste the certificate, from BEGIN to END")
    return Finding(
        part, "is not PEM", "start it with -----BEGIN CERTIFICATE----- on a line of its own"
    )


def _refused(block: pem.Block, part: str) -> Finding:
    """Why a block gives no certificate."""
    if "PRIVATE KEY" in block.label:
        return Finding(
            part,
            "contains a private key",
            f"remove it: a VM's key belongs in {KEY_PART} only, a CA's key on no VM",
        )
    if block.label != CERTIFICATE:
        return Finding(
            part, f"contains a {block.label}", "paste only -----BEGIN CERTIFICATE----- blocks here"
        )
    return _damaged(block, part, "certificate")


def _damaged(block: pem.Block, part: str, what: str) -> Finding:
    again = "paste all of it again"
    if block.placeholder:
        return Finding(part, "is still the guide's placeholder", f"replace it with the real {what}")
    if not block.ended:
        return Finding(
            part, f"the -----END {block.label}----- line is missing", f"{again}, from BEGIN to END"
        )
    if block.der() is None:
        foreign = block.foreign()
        if foreign == "colon":
            again = "delete the lines with a colon below its BEGIN line"
        elif foreign:
            again = f"delete what base64 does not have in it ({foreign}), or paste all of it again"
        return Finding(part, f"the {what} is damaged", again)
    return Finding(part, f"the {what} cannot be read", again)


def load_key(text: str) -> tuple[Key | None, tuple[Finding, ...]]:
    """The private key; nothing of it is ever part of a finding."""
    found = pem.blocks(text)
    keys = [block for block in found if "PRIVATE KEY" in block.label]
    if len(keys) == 1:
        return _key(keys[0])
    if keys:
        return None, (
            Finding(
                KEY_PART, f"contains {len(keys)} keys", "keep only that of instance_certificate"
            ),
        )
    if found:
        return None, (
            Finding(
                KEY_PART,
                f"contains a {found[0].label}, not a private key",
                "paste the key, which begins with -----BEGIN PRIVATE KEY-----",
            ),
        )
    return None, (
        Finding(
            KEY_PART,
            "is not PEM" if text.strip() else "is empty",
            "paste the key, from BEGIN to END",
        ),
    )


def _key(block: pem.Block) -> tuple[Key | None, tuple[Finding, ...]]:
    if block.placeholder:
        return None, (_damaged(block, KEY_PART, "key"),)
    if "ENCRYPTED" in block.label or block.says(b"ENCRYPTED"):
        return None, (
            Finding(
                KEY_PART,
                "the key has a passphrase",
                "remove it: openssl pkey -in KEY -out KEY-WITHOUT-PASSPHRASE",
            ),
        )
    if "OPENSSH" in block.label:
        return None, (
            Finding(
                KEY_PART,
                "the key is in OpenSSH format",
                "use the key that openssl made for the certificate",
            ),
        )
    encoded = block.der() if block.ended else None
    key = _read(encoded) if encoded else None
    if key is None:
        return None, (_damaged(block, KEY_PART, "key"),)
    return _fit_for_ike(key)


def _read(encoded: bytes) -> object | None:
    digest = sha256(encoded).digest()
    try:
        # To check an RSA key takes 0.2 s, since its factors must be primes: once per key.
        key = serialization.load_der_private_key(
            encoded, password=None, unsafe_skip_rsa_key_validation=digest in _SOUND
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if digest not in _SOUND:
        _SOUND.append(digest)
    return key


def _fit_for_ike(key: object) -> tuple[Key | None, tuple[Finding, ...]]:
    if not isinstance(key, Key):
        return None, (Finding(KEY_PART, "IKE cannot use this kind of key", "use RSA or ECDSA"),)
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, CURVES):
        return None, (
            Finding(
                KEY_PART,
                f"ipsec-agent takes no key on the curve {key.curve.name}, though charon does",
                "use secp256r1, secp384r1 or secp521r1",
            ),
        )
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size >= RSA_WANTED:
        return key, ()
    weak = key.key_size < RSA_LEAST
    small = Finding(
        KEY_PART,
        f"an RSA key of {key.key_size} bits is too small"
        + (f": charon takes it, ipsec-agent takes none below {RSA_LEAST}" if weak else ""),
        f"create one of {RSA_WANTED} or 4096 bits",
        "error" if weak else "warning",
    )
    return key, (small,)


def name(subject: x509.Name) -> str:
    """A name as strongSwan and operators write it, such as CN=VM; one line, printable."""
    text = subject.rfc4514_string() or "without a name"
    return printable(text, "?")


def facts(certificate: x509.Certificate, role: str) -> CertificateFacts:
    """What is shown of a certificate."""
    return CertificateFacts(
        subject=name(certificate.subject),
        issuer=name(certificate.issuer),
        role=role,
        serial=f"{readable.serial_number(certificate):x}",
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
