"""Who issued a certificate, as charon sees it: by names, key ids and the signature.

charon compares names byte by byte, but for the case of a PrintableString and of an e-mail address,
and takes an authority key id for the truth where there is one (strongSwan 5.9.8 to 6.0:
identification.c: rdn_equals; x509_cert.c, openssl_x509.c: issued_by).
"""

from enum import Enum, auto

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from ipsec_agent.core.der import Attribute
from ipsec_agent.core.manifest.der import issuer_and_subject

PRINTABLE_STRING, IA5_STRING = 19, 22
EMAIL = bytes.fromhex("2a864886f70d010901")
"""1.2.840.113549.1.9.1, the type of an e-mail address in a name."""


class Verdict(Enum):
    """Whether one certificate issued another, and why not."""

    ISSUED = auto()
    OTHER_NAME = auto()
    OTHER_KEY_ID = auto()
    OTHER_SIGNATURE = auto()


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether it says CA:TRUE; charon ignores all others as issuers."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def compared(certificate: x509.Certificate, issuer: x509.Certificate) -> Verdict:
    """What charon finds when it compares a certificate with one that may have issued it."""
    named = same_name(issuer_and_subject(certificate)[0], issuer_and_subject(issuer)[1])
    wanted = authority_key_id(certificate)
    # charon looks for issuers by name; of a certificate itself it asks nothing twice.
    if not named and (wanted is None or certificate is not issuer):
        return Verdict.OTHER_NAME
    if wanted is not None and key_id(issuer) not in {wanted, b""}:
        return Verdict.OTHER_KEY_ID
    return Verdict.ISSUED if signed(certificate, issuer) else Verdict.OTHER_SIGNATURE


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether charon takes one as the issuer of the other."""
    return compared(certificate, issuer) is Verdict.ISSUED


def same_name(one: tuple[Attribute, ...], other: tuple[Attribute, ...]) -> bool:
    """Whether charon takes two names for the same."""
    return len(one) == len(other) and all(map(_same, one, other))


def _same(one: Attribute, other: Attribute) -> bool:
    kind, tag, text = one
    if kind != other[0]:
        return False
    if tag == other[1] and (tag == PRINTABLE_STRING or (tag == IA5_STRING and kind == EMAIL)):
        return text.lower() == other[2].lower()
    return text == other[2]


def authority_key_id(certificate: x509.Certificate) -> bytes | None:
    """The id that it says its issuer's key has; charon takes an empty one for none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.key_identifier or None


def key_id(certificate: x509.Certificate) -> bytes:
    """The id that it says its key has, or else SHA-1 of the key, as charon computes it."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return found.value.digest


def signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key made the signature; names do not matter."""
    key, signature, content = (
        issuer.public_key(),
        certificate.signature,
        certificate.tbs_certificate_bytes,
    )
    try:
        used = certificate.signature_hash_algorithm
        match key:
            case rsa.RSAPublicKey() if used is not None:
                key.verify(signature, content, _padding(certificate), used)
            case ec.EllipticCurvePublicKey() if used is not None:
                key.verify(signature, content, ec.ECDSA(used))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, content)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _padding(certificate: x509.Certificate) -> padding.PKCS1v15 | padding.PSS:
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return padding.PKCS1v15()
    found = certificate.signature_algorithm_parameters
    if not isinstance(found, padding.PSS):
        raise UnsupportedAlgorithm("parameters of another algorithm")
    return found
