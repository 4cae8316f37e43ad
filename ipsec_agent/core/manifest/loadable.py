"""Whether charon can load a certificate at all; what it cannot load keeps its VM from starting.

charon has two readers of certificates: OpenSSL's first, then its own where OpenSSL's does not know
a critical extension (strongSwan 5.9.8 to 6.0: openssl_x509.c, x509_cert.c). OpenSSL's knows no name
constraints before 5.9.12, and no policies at all.
"""

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from ipsec_agent.core.der import dotted, elements, signed_fields

OPENSSL = frozenset(
    {
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.7"),  # address blocks, RFC 3779
    }
)
"""Extensions that its first reader knows."""

OWN = OPENSSL - {ExtensionOID.ISSUER_ALTERNATIVE_NAME} | {
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.POLICY_MAPPINGS,
    ExtensionOID.POLICY_CONSTRAINTS,
    ExtensionOID.INHIBIT_ANY_POLICY,
    *(x509.ObjectIdentifier(f"2.16.840.1.113730.1.{last}") for last in (3, 4, 8, 13)),  # Netscape's
}
"""Those that its own reader knows."""

SIGNED_WITH = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_MD5,
        SignatureAlgorithmOID.RSA_WITH_SHA1,
        SignatureAlgorithmOID.RSA_WITH_SHA224,
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.RSA_WITH_SHA3_224,
        SignatureAlgorithmOID.RSA_WITH_SHA3_256,
        SignatureAlgorithmOID.RSA_WITH_SHA3_384,
        SignatureAlgorithmOID.RSA_WITH_SHA3_512,
        SignatureAlgorithmOID.RSASSA_PSS,
        SignatureAlgorithmOID.ECDSA_WITH_SHA1,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
        SignatureAlgorithmOID.ED448,
    }
)
"""Signatures that charon knows (public_key.c: signature_scheme_from_oid)."""

NAMES = (
    x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier, x509.DirectoryName,
    x509.IPAddress,
)  # fmt: skip
"""Kinds of names that its own reader knows; any other makes it refuse the certificate."""


TRAILER, COMMON_TRAILER = 0xA3, bytes((2, 1, 1))
"""Of RSASSA-PSS's parameters (RFC 4055, 3.1): the tag, and the only one that there is."""

KEYS = (
    rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey,
)  # fmt: skip
"""Kinds of keys that charon knows."""


def own_reader(certificate: x509.Certificate) -> bool:
    """Whether charon reads it with its own reader: only then its policies count, and before 5.9.12
    its name constraints."""
    return any(item.critical and item.oid not in OPENSSL for item in certificate.extensions)


def obstacles(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    """Why charon cannot load it: what it has, and what to do."""
    oid = certificate.signature_algorithm_oid
    if oid not in SIGNED_WITH:
        yield f"is signed with {called(oid)}, which charon does not know", "reissue it with SHA-256"
    else:
        yield from _odd_signature(certificate)
    if not isinstance(certificate.public_key(), KEYS):
        yield "has a key of a kind that charon does not support", "use RSA or ECDSA"
    critical = [item.oid for item in certificate.extensions if item.critical]
    unknown = [oid for oid in critical if oid not in OWN | OPENSSL]
    for oid in unknown:
        yield (
            f"has the critical extension {called(oid)}, which charon does not support",
            "issue the certificate without it, or with it as not critical",
        )
    if not unknown and own_reader(certificate):
        yield from _obstacles_of_own_reader(certificate, critical)


def _odd_signature(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    """What charon reads of the signature's algorithm, and the library does not."""
    (signed,) = elements(certificate.tbs_certificate_bytes)
    (whole,) = elements(certificate.public_bytes(serialization.Encoding.DER))
    inner, outer = signed_fields(signed)[1], tuple(elements(whole.content))[1]
    if inner != outer:
        yield "names two different algorithms of its signature", "reissue it"
    kind, *parameters = elements(inner.content)
    if dotted(kind.content) == SignatureAlgorithmOID.RSASSA_PSS.dotted_string and any(
        item.tag == TRAILER and item.content != COMMON_TRAILER
        for given in parameters
        for item in elements(given.content)
    ):
        yield "is signed with RSASSA-PSS and a trailer that charon does not know", "reissue it"


def _obstacles_of_own_reader(
    certificate: x509.Certificate, critical: list[x509.ObjectIdentifier]
) -> Iterator[tuple[str, str]]:
    if ExtensionOID.ISSUER_ALTERNATIVE_NAME in critical:
        yield (
            (
                "has critical extensions that charon does not support together, issuerAltName and"
                f" {called(next(oid for oid in critical if oid not in OPENSSL))}"
            ),
            "issue the certificate with issuerAltName as not critical",
        )
    for item in certificate.extensions:
        value = item.value
        if isinstance(value, x509.SubjectAlternativeName):
            for general in value:
                if not isinstance(general, NAMES):
                    yield (
                        (
                            f"has a subject alternative name of the kind {kind(general)} beside a"
                            " critical extension, which charon does not support"
                        ),
                        "issue the certificate without that name",
                    )
        if isinstance(value, x509.NameConstraints):
            for general in (*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ())):
                if not isinstance(general, NAMES) or isinstance(general, x509.IPAddress):
                    yield (
                        (
                            f"has a name constraint of the kind {kind(general)}, which charon"
                            " before 5.9.12 does not support"
                        ),
                        "create a CA without it, or with constraints of DNS names",
                    )


def kind(general: x509.GeneralName) -> str:
    """The kind of a name, as RFC 5280 calls it."""
    words = {
        x509.RFC822Name: "rfc822Name",
        x509.DNSName: "dNSName",
        x509.UniformResourceIdentifier: "uniformResourceIdentifier",
        x509.DirectoryName: "directoryName",
        x509.IPAddress: "iPAddress",
        x509.RegisteredID: "registeredID",
    }
    return words.get(type(general), "otherName")


def called(oid: x509.ObjectIdentifier) -> str:
    """An object identifier with its name, where one is known."""
    known = KNOWN_AS.get(oid.dotted_string)
    return f"{oid.dotted_string} ({known})" if known else oid.dotted_string


KNOWN_AS = {
    "1.2.840.10045.4.3.1": "ECDSA with SHA-224",
    "2.16.840.1.101.3.4.3.9": "ECDSA with SHA3-224",
    "2.16.840.1.101.3.4.3.10": "ECDSA with SHA3-256",
    "2.16.840.1.101.3.4.3.11": "ECDSA with SHA3-384",
    "2.16.840.1.101.3.4.3.12": "ECDSA with SHA3-512",
    "1.3.36.8.3.3": "admissions",
    "1.3.6.1.4.1.11129.2.4.2": "certificate transparency",
    "1.3.6.1.4.1.11129.2.4.3": "precertificate poison",
    "1.3.6.1.4.1.311.21.7": "Microsoft's certificate template",
    "1.3.6.1.5.5.7.1.3": "qcStatements",
    "1.3.6.1.5.5.7.1.11": "subjectInfoAccess",
    "1.3.6.1.5.5.7.1.24": "TLS feature",
    "1.3.6.1.5.5.7.48.1.5": "OCSP no check",
    "2.16.840.1.113730.1.1": "Netscape's certificate type",
    "1.3.6.1.5.5.7.1.1": "authorityInfoAccess",
    "1.3.6.1.5.5.7.1.7": "address blocks",
    "2.5.29.9": "subjectDirectoryAttributes",
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.15": "keyUsage",
    "2.5.29.16": "privateKeyUsagePeriod",
    "2.5.29.17": "subjectAltName",
    "2.5.29.18": "issuerAltName",
    "2.5.29.19": "basicConstraints",
    "2.5.29.30": "nameConstraints",
    "2.5.29.31": "cRLDistributionPoints",
    "2.5.29.32": "certificatePolicies",
    "2.5.29.33": "policyMappings",
    "2.5.29.35": "authorityKeyIdentifier",
    "2.5.29.36": "policyConstraints",
    "2.5.29.37": "extKeyUsage",
    "2.5.29.46": "freshestCRL",
    "2.5.29.54": "inhibitAnyPolicy",
}
"""The names that certificate tools print for what stands in our messages."""
