"""Reads what charon compares byte by byte and the library does not show: DER (X.690) and names."""

from collections.abc import Iterator

from cryptography import x509
from msgspec import Struct

LONG_FORM = 0x80
VERSION = 0xA0


class Element(Struct, frozen=True):
    """One element.

    Attributes:
        tag: its first octet.
    """

    tag: int
    content: bytes


Attribute = tuple[bytes, int, bytes]
"""Of a name: its type, the tag of its string, the string."""


def elements(encoded: bytes) -> Iterator[Element]:
    """The elements that follow each other in DER that the library has read before."""
    at = 0
    while at < len(encoded):
        tag, size = encoded[at], encoded[at + 1]
        at += 2
        if size >= LONG_FORM:
            octets = size - LONG_FORM
            size = int.from_bytes(encoded[at : at + octets], "big")
            at += octets
        yield Element(tag, encoded[at : at + size])
        at += size


def issuer_and_subject(
    certificate: x509.Certificate,
) -> tuple[tuple[Attribute, ...], tuple[Attribute, ...]]:
    """The two names of a certificate (RFC 5280, 4.1)."""
    (whole,) = elements(certificate.tbs_certificate_bytes)
    fields = [item for item in elements(whole.content) if item.tag != VERSION]
    _serial, _algorithm, issuer, _validity, subject, *_ = fields
    return attributes(issuer.content), attributes(subject.content)


def attributes(content: bytes) -> tuple[Attribute, ...]:
    """The attributes of a name, in their order; charon knows no sets of them."""
    found: list[Attribute] = []
    for together in elements(content):
        for pair in elements(together.content):
            kind, text = elements(pair.content)
            found.append((kind.content, text.tag, text.content))
    return tuple(found)
