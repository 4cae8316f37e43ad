"""Reads DER (X.690): elements, the names of RFC 5280, and what is told of a certificate.

Without the library for certificates, which the daemon does not keep in memory.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from ipsec_agent.core.config import CertificateFacts, ListedCertificate
from ipsec_agent.core.words import printable

LONG_FORM = 0x80
VERSION = 0xA0
GENERALIZED_TIME = 0x18
BMP_STRING = 0x1E
CENTURY_BEGINS = 50
"""Two digits of a year from here on are of the 20th century (RFC 5280, 4.1.2.5.1)."""


class Element(Struct, frozen=True):
    """One element.

    Attributes:
        tag: its first octet.
    """

    tag: int
    content: bytes


Attribute = tuple[bytes, int, bytes]
"""Of a name: its type, the tag of its string, the string."""

TYPES = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}
"""What the types of names that certificates have most often are called."""


def elements(encoded: bytes) -> Iterator[Element]:
    """The elements that follow each other in DER that a library has read before."""
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


def encode(element: Element) -> bytes:
    """An element as DER."""
    size = len(element.content)
    if size < LONG_FORM:
        return bytes((element.tag, size)) + element.content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((element.tag, LONG_FORM | len(octets))) + octets + element.content


def whole(encoded: bytes) -> bool:
    """Whether this is one element, neither cut nor with something behind it."""
    try:
        return [encode(item) for item in elements(encoded)] == [encoded]
    except IndexError:
        return False


def attributes(content: bytes) -> tuple[Attribute, ...]:
    """The attributes of a name, in their order; charon knows no sets of them."""
    found: list[Attribute] = []
    for together in elements(content):
        for pair in elements(together.content):
            kind, text = elements(pair.content)
            found.append((kind.content, text.tag, text.content))
    return tuple(found)


def signed_fields(signed: Element) -> list[Element]:
    """Serial number, algorithm, issuer, validity, subject and more (RFC 5280, 4.1).

    Args:
        signed: what the CA has signed; its version is left out.
    """
    return [item for item in elements(signed.content) if item.tag != VERSION]


def certificate_facts(encoded: bytes, role: str) -> ListedCertificate:
    """What is told of a certificate that a library has read before.

    Raises:
        ValueError: it is none.
        IndexError: likewise.
    """
    (whole,) = elements(encoded)
    signed = next(elements(whole.content))
    serial, _algorithm, issuer, validity, subject, *_ = signed_fields(signed)
    start, end = elements(validity.content)
    name = attributes(subject.content)
    facts = CertificateFacts(
        subject=_written(name),
        issuer=_written(attributes(issuer.content)),
        role=role,
        serial=f"{int.from_bytes(serial.content, 'big', signed=True):x}",
        not_before=_time(start),
        not_after=_time(end),
    )
    return ListedCertificate(tuple(_text(tag, value) for _, tag, value in name), facts)


def _written(name: tuple[Attribute, ...]) -> str:
    """A name as operators write it, the last attribute first; one line, printable."""
    parts = (f"{TYPES.get(kind, dotted(kind))}={_text(tag, value)}" for kind, tag, value in name)
    text = ",".join(reversed(tuple(parts))) or "without a name"
    return printable(text, "?")


def _text(tag: int, value: bytes) -> str:
    return value.decode("utf-16-be" if tag == BMP_STRING else "utf-8", errors="replace")


def dotted(kind: bytes) -> str:
    """An object identifier as numbers, such as 2.5.29.17."""
    numbers, rest = [kind[0] // 40, kind[0] % 40], 0
    for octet in kind[1:]:
        rest = rest << 7 | octet & 0x7F
        if octet < LONG_FORM:
            numbers.append(rest)
            rest = 0
    return ".".join(map(str, numbers))


def _time(element: Element) -> datetime:
    digits = element.content.decode("ascii")
    if element.tag != GENERALIZED_TIME:
        digits = f"{19 if int(digits[:2]) >= CENTURY_BEGINS else 20}{digits}"
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
