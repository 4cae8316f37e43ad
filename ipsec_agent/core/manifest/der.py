"""The names of a certificate byte by byte, as charon compares them and the library shows none."""

from cryptography import x509

from ipsec_agent.core.der import Attribute, attributes, elements, signed_fields


def issuer_and_subject(
    certificate: x509.Certificate,
) -> tuple[tuple[Attribute, ...], tuple[Attribute, ...]]:
    """The two names of a certificate (RFC 5280, 4.1)."""
    (signed,) = elements(certificate.tbs_certificate_bytes)
    _serial, _algorithm, issuer, _validity, subject, *_ = signed_fields(signed)
    return attributes(issuer.content), attributes(subject.content)
