"""Reads a certificate, and all of it that is judged later, so that nothing later fails or warns.

The library reads most parts only when they are asked for. It is stricter than charon: it refuses
what RFC 5280 forbids and charon takes, such as a default value that is written out, and warns of
serials of 0 and below and of long names.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ipsec_agent.core.der import Element, dotted, elements, encode, signed_fields, whole
from ipsec_agent.core.manifest.loadable import called

REFUSED = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for a certificate that it cannot read."""

EXTENSIONS = 0xA3
"""The tag of a certificate's extensions (RFC 5280, 4.1)."""

PLACE = re.compile(r'"([A-Za-z_]+)(?:::([A-Za-z_]+))?"')
"""A part of a certificate in the words of the library, such as "Validity::not_before"."""


def _signed_with(certificate: x509.Certificate) -> object:
    """The parameters of its signature, where they are of a known algorithm."""
    with contextlib.suppress(UnsupportedAlgorithm):
        return certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
    return None


PARTS: tuple[tuple[str, Callable[[x509.Certificate], object]], ...] = (
    ("a subject or an issuer", lambda one: (one.subject.public_bytes(), one.issuer.public_bytes())),
    ("a time", lambda one: (one.not_valid_before_utc, one.not_valid_after_utc)),
    ("a signature algorithm", _signed_with),
    ("an extension", lambda one: one.extensions),
    ("a public key", lambda one: one.public_key()),
)
"""What is read of a certificate, in this order."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No warning of the library's: charon minds neither such serials nor such names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def serial_number(certificate: x509.Certificate) -> int:
    """Its serial number, which may be 0 or negative."""
    with quietly():
        return certificate.serial_number


def read(encoded: bytes) -> tuple[x509.Certificate | None, str]:
    """The certificate, None where it is none; and what of it cannot be read, "" for nothing."""
    with quietly():
        try:
            certificate = x509.load_der_x509_certificate(encoded)
        except x509.InvalidVersion as error:
            return None, f"a version, {error.parsed_version + 1},"
        except REFUSED as error:
            return None, f"a part{_where(error)}" if whole(encoded) else ""
        for part, reading in PARTS:
            try:
                reading(certificate)
            except x509.DuplicateExtension as error:
                return certificate, f"the extension {called(error.oid)} twice"
            except (*REFUSED, UnsupportedAlgorithm) as error:
                extension = _extension(encoded) if part == "an extension" else ""
                return certificate, f"{extension or part + _where(error)} that cannot be read"
    return certificate, ""


def _where(error: Exception) -> str:
    """Where the library stopped, in brackets, where it says so."""
    found = [" ".join(filter(None, words)) for words in PLACE.findall(str(error))]
    return f" ({found[-1].replace('_', ' ')})" if found else ""


def _extension(encoded: bytes) -> str:
    """The extension that cannot be read, by trying each by itself."""
    (certificate,) = elements(encoded)
    signed, *rest = elements(certificate.content)
    fields = signed_fields(signed)
    version = next(item for item in elements(signed.content) if item not in fields)
    listed = next(item for item in fields if item.tag == EXTENSIONS)
    (sequence,) = elements(listed.content)
    others = [item for item in fields if item is not listed]
    for extension in elements(sequence.content):
        alone = Element(listed.tag, encode(Element(sequence.tag, encode(extension))))
        tbs = Element(signed.tag, b"".join(map(encode, (version, *others, alone))))
        tried = Element(certificate.tag, b"".join(map(encode, (tbs, *rest))))
        try:
            _ = x509.load_der_x509_certificate(encode(tried)).extensions
        except REFUSED:
            kind = next(elements(extension.content))
            oid = x509.ObjectIdentifier(dotted(kind.content))
            return f"the extension {called(oid)}"
    return ""
