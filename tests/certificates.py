"""Certificates and keys for tests.

RSA keys take seconds, in the lab's guest many: they are made once, and kept beside the results.
"""

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

KEYS = Path(__file__).parents[1] / ".cache" / "keys"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def cert_pem(self) -> str:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key as PEM, PKCS#8, without a passphrase."""
        return key_pem(self.key)


def key_pem(key: Key, passphrase: bytes | None = None) -> str:
    """A key as PEM, encrypted where a passphrase is given."""
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode()


@functools.cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """The number-th key on P-256; quick to make."""
    _ = number
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def rsa_key(bits: int = 3072, number: int = 0) -> rsa.RSAPrivateKey:
    """The number-th RSA key of that size."""
    file = KEYS / f"rsa-{bits}-{number}.pem"
    if not file.exists():
        made = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        KEYS.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, as sessions run beside each other.
        with tempfile.NamedTemporaryFile("w", dir=KEYS, delete=False) as new:
            new.write(key_pem(made))
        Path(new.name).chmod(0o644)
        Path(new.name).replace(file)
    key = serialization.load_pem_private_key(
        file.read_bytes(), None, unsafe_skip_rsa_key_validation=True
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def make_ca(
    name: str = "Test CA",
    *,
    key: Key | None = None,
    issuer: Issued | None = None,
    days: int = 1095,
    not_before: datetime | None = None,
    is_ca: bool = True,
    pathlen: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """A CA, self-signed or below an issuer; extensions are pairs of extension and critical."""
    basic = x509.BasicConstraints(ca=is_ca, path_length=pathlen)
    return _issue(
        name,
        key or rsa_key(3072, 100),
        issuer,
        days,
        not_before,
        extensions=((basic, True), *extensions),
    )


def make_leaf(
    ca: Issued | None,
    name: str = "VM",
    *,
    key: Key | None = None,
    days: int = 365,
    not_before: datetime | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """An instance certificate, self-signed where no CA is given."""
    basic = x509.BasicConstraints(ca=False, path_length=None)
    return _issue(
        name,
        key or rsa_key(3072, 200),
        ca,
        days,
        not_before,
        extensions=((basic, True), *extensions),
    )


def _issue(
    name: str,
    key: Key,
    issuer: Issued | None,
    days: int,
    not_before: datetime | None,
    *,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> Issued:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = not_before or datetime.now(UTC) - timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Issued(certificate, key)
