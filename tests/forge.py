"""Certificates that no library makes: each part of one is given as DER, and signed as it is."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa

AnyKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)

BOOLEAN, INTEGER, BITS, OCTETS, NULL, UTF8, PRINTABLE, IA5, BMP = 1, 2, 3, 4, 5, 12, 19, 22, 30
TELETEX = 20
SEQUENCE, SET = 0x30, 0x31
"""Tags of ASN.1."""

COMMON_NAME, EMAIL, ORGANIZATION = "2.5.4.3", "1.2.840.113549.1.9.1", "2.5.4.10"

RSA_SIGNED = {
    "md5": "1.2.840.113549.1.1.4",
    "sha1": "1.2.840.113549.1.1.5",
    "sha224": "1.2.840.113549.1.1.14",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
    "sha3-256": "2.16.840.1.101.3.4.3.14",
}
EC_SIGNED = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
    "sha3-256": "2.16.840.1.101.3.4.3.10",
}
DIGESTS = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1"}
DSA_SIGNED = {"sha256": "2.16.840.1.101.3.4.3.2"}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3-256": hashes.SHA3_256(),
}


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element of DER."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def oid(dotted: str) -> bytes:
    """An object identifier."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    encoded = bytearray()
    for arc in (first * 40 + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 0x7F)
        encoded += bytes(reversed(digits))
    return tlv(6, bytes(encoded))


def dn(common_name: str, *more: tuple[str, int, str], tag: int = UTF8) -> bytes:
    """A name; more are attributes before the common name, each with its tag."""
    parts = (*more, (COMMON_NAME, tag, common_name))
    return tlv(
        SEQUENCE,
        *(
            tlv(SET, tlv(SEQUENCE, oid(kind), tlv(tag, _text(tag, text))))
            for kind, tag, text in parts
        ),
    )


def _text(tag: int, text: str) -> bytes:
    return text.encode("utf-16-be" if tag == BMP else "utf-8")


Extension = tuple[str, bool, bytes]
"""Its object identifier, whether it is critical, its value as DER."""


def extension(value: x509.ExtensionType, *, critical: bool = False) -> Extension:
    """One that the library can encode."""
    return value.oid.dotted_string, critical, value.public_bytes()


@dataclass(frozen=True, slots=True)
class Forged:
    """A certificate, its key and its name."""

    der: bytes
    key: AnyKey
    subject: bytes

    @property
    def cert_pem(self) -> str:
        """The certificate as PEM."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def key_pem(self) -> str:
        """The key as PEM, PKCS#8."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()


def issue(
    subject: bytes,
    key: AnyKey,
    issuer: Forged | None,
    *,
    extensions: Sequence[Extension] = (),
    basic: bytes | None = None,
    issuer_name: bytes | None = None,
    hashed: str = "sha256",
    pss: bool = False,
    serial: bytes = b"\x51",
    start: timedelta = timedelta(days=-1),
    days: float = 300,
    version: int = 2,
    broken: bool = False,
    algorithm: bytes | None = None,
    outer: bytes | None = None,
) -> Forged:
    """A certificate, self-signed where no issuer is given.

    Args:
        basic: the content of its basic constraints; without them where this is None.
        issuer_name: other than the subject of the issuer.
        hashed: what its signature is made with, a key of HASHES.
        broken: whether one bit of the signature is wrong.
        algorithm: of its signature as it says, where that is not what it is made with.
        outer: the same, where it says it again, beside the signature.
    """
    signer = issuer.key if issuer else key
    algorithm = algorithm or _algorithm(signer, hashed, pss=pss)
    listed = [*extensions]
    if basic is not None:
        listed.insert(0, ("2.5.29.19", True, basic))
    since = datetime.now(UTC) + start
    tbs = tlv(
        SEQUENCE,
        tlv(0xA0, tlv(INTEGER, bytes((version,)))) if version else b"",
        tlv(INTEGER, serial),
        algorithm,
        issuer_name or (issuer.subject if issuer else subject),
        tlv(SEQUENCE, _time(since), _time(since + timedelta(days=days))),
        subject,
        key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        tlv(0xA3, tlv(SEQUENCE, *map(_extension, listed))) if listed else b"",
    )
    signature = bytearray(_signature(signer, hashed, tbs, pss=pss))
    signature[-1] ^= broken
    signed = tlv(SEQUENCE, tbs, outer or algorithm, tlv(BITS, b"\0", bytes(signature)))
    return Forged(signed, key, subject)


def _extension(of: Extension) -> bytes:
    kind, critical, value = of
    return tlv(
        SEQUENCE,
        oid(kind),
        tlv(BOOLEAN, b"\xff") if critical else b"",
        tlv(OCTETS, value),
    )


def _time(moment: datetime) -> bytes:
    return tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _algorithm(signer: AnyKey, hashed: str, *, pss: bool) -> bytes:
    match signer:
        case rsa.RSAPrivateKey() if pss:
            digest = tlv(SEQUENCE, oid(DIGESTS[hashed]), tlv(NULL))
            mask = tlv(SEQUENCE, oid("1.2.840.113549.1.1.8"), digest)
            salt = tlv(INTEGER, bytes((HASHES[hashed].digest_size,)))
            return tlv(
                SEQUENCE,
                oid("1.2.840.113549.1.1.10"),
                tlv(SEQUENCE, tlv(0xA0, digest), tlv(0xA1, mask), tlv(0xA2, salt)),
            )
        case rsa.RSAPrivateKey():
            return tlv(SEQUENCE, oid(RSA_SIGNED[hashed]), tlv(NULL))
        case ec.EllipticCurvePrivateKey():
            return tlv(SEQUENCE, oid(EC_SIGNED[hashed]))
        case dsa.DSAPrivateKey():
            return tlv(SEQUENCE, oid(DSA_SIGNED[hashed]))
        case ed25519.Ed25519PrivateKey():
            return tlv(SEQUENCE, oid("1.3.101.112"))
        case _:
            return tlv(SEQUENCE, oid("1.3.101.113"))


def _signature(signer: AnyKey, hashed: str, tbs: bytes, *, pss: bool) -> bytes:
    digest = HASHES[hashed]
    match signer:
        case rsa.RSAPrivateKey():
            scheme = (
                padding.PSS(padding.MGF1(digest), digest.digest_size) if pss else padding.PKCS1v15()
            )
            return signer.sign(tbs, scheme, digest)
        case ec.EllipticCurvePrivateKey():
            return signer.sign(tbs, ec.ECDSA(digest))
        case dsa.DSAPrivateKey():
            return signer.sign(tbs, digest)
        case _:
            return signer.sign(tbs)
