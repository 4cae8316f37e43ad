"""The names of a certificate byte by byte, as charon compares them and the library shows none."""

from cryptography import x509

from ipsec_agent.core.der import VERSION, Attribute, attributes, elements


def issuer_and_subject(
    certificate: x509.Certificate,
) -> tuple[tuple[Attribute, ...], tuple[Attribute, ...]]:
    """The two names of a certificate (RFC 5280, 4.1)."""
    (whole,) = elements(certificate.tbs_certificate_bytes)
    fields = [item for item in elements(whole.content) if item.tag != VERSION]
    _serial, _algorithm, issuer, _validity, subject, *_ = fields
    return attributes(issuer.content), attributes(subject.content)
