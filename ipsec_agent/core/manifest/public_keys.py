"""Public keys and signatures: how they are named and compared."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def described(key: object) -> str:
    """The kind and size of a public key, such as RSA 3072, or ECDSA P-256."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {CURVE_NAMES.get(key.curve.name, key.curve.name)}"
    return type(key).__name__.removesuffix("PublicKey")


def encoded(key: object) -> bytes:
    """A public key as bytes: the same for the same key (RFC 5280, SubjectPublicKeyInfo)."""
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return] # every public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def hash_of(certificate: x509.Certificate) -> str:
    """The hash of a certificate's own signature, such as sha256; the kind of key that has its own,
    such as Ed25519, and the OID of what is not known."""
    try:
        found = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return certificate.signature_algorithm_oid.dotted_string
    return found.name if found is not None else described(certificate.public_key())
