"""Reads the certificates and keys of files: configs, or PEM in any order, such as a CA's chain."""

import re
from collections.abc import Iterable

from cryptography import x509
from msgspec import Struct

from ipsec_agent.core.derived import derived
from ipsec_agent.core.manifest import certificates, pem
from ipsec_agent.core.manifest.bundle import LEAF
from ipsec_agent.core.manifest.complaint import Complaint, Complaints
from ipsec_agent.core.manifest.credentials import pasted
from ipsec_agent.core.manifest.fields import Fields
from ipsec_agent.core.manifest.forms import locate
from ipsec_agent.core.manifest.issuers import is_ca, issued
from ipsec_agent.core.manifest.parser import PROPERTIES, expiry
from ipsec_agent.core.manifest.public_keys import encoded
from ipsec_agent.core.manifest.usable import usable
from ipsec_agent.core.manifest.yaml_lines import read
from ipsec_agent.core.terse import Terse

CONFIG = re.compile(
    r"^[ \t-]*[\"']?(ipsec|properties|addons|instance_certificate|ca_certificates)[\"']?[ \t]*:",
    re.MULTILINE,
)
"""A key that a config has, and that no PEM has."""

PARAMETERS = "PARAMETERS"
"""What openssl writes before an EC key ends with this word; the key says it, too."""


class Place(Struct, frozen=True):
    """Where something was read.

    Attributes:
        line: 1-based.
        part: such as ca_certificates[0], "" in a file that is PEM.
    """

    file: str
    line: int
    part: str = ""


class Held(Struct, frozen=True):
    """A certificate; `role` is instance, intermediate or authority.

    Attributes:
        soon: days before its end from which on its config has it told; None in a file that is PEM.
    """

    certificate: x509.Certificate
    role: str
    place: Place
    soon: int | None = None


class HeldKey(Terse, frozen=True):
    """A private key."""

    unshown = ("key",)

    key: certificates.Key
    place: Place


class Material(Struct, frozen=True, dict=True):
    """All that was read.

    Attributes:
        complaints: about what cannot be read, and what is wrong with a key.
    """

    certificates: tuple[Held, ...] = ()
    keys: tuple[HeldKey, ...] = ()
    complaints: tuple[Complaint, ...] = ()

    def owner(self, key: HeldKey) -> Held | None:
        """The certificate of a key; None where it is none of these."""
        return _by_key(self).get(encoded(key.key.public_key()))


@derived
def _by_key(material: Material) -> dict[bytes, Held]:
    """The first certificate of each public key: a fleet may have one for each VM."""
    return {encoded(one.certificate.public_key()): one for one in reversed(material.certificates)}


def read_files(texts: Iterable[tuple[str, str]]) -> Material:
    """The material of files, each given by its name and its text."""
    parts = [
        _of_config(file, text) if CONFIG.search(text) else _of_pem(file, text)
        for file, text in texts
    ]
    return Material(
        tuple(one for part in parts for one in part.certificates),
        tuple(one for part in parts for one in part.keys),
        tuple(one for part in parts for one in part.complaints),
    )


def _of_config(file: str, text: str) -> Material:
    complaints = Complaints(file)
    root = read(text, complaints)
    located = locate(root, PROPERTIES, complaints) if root is not None else None
    if located is None:
        return Material(complaints=complaints.in_order())
    properties, _ = usable(located, complaints)
    fields = Fields(properties, located.line, located.path, complaints)
    found = pasted(fields)
    leaf = Place(file, fields.line(LEAF), fields.path(LEAF))
    # `check` says what is wrong with the periods.
    soon = expiry(Fields(properties, located.line, located.path, Complaints(file))).info
    items = fields.entry("ca_certificates")
    held = [
        Held(one, "intermediate" if number else "instance", leaf, soon)
        for number, one in enumerate(found.chain)
    ]
    for part, ca in found.authorities:
        position = int(part.rstrip("]").rpartition("[")[2])
        line = items[1].elements[position].line if items and items[1].elements else 0
        path = fields.path("ca_certificates")
        held.append(Held(ca, "authority", Place(file, line, f"{path}[{position}]"), soon))
    name = certificates.KEY_PART
    keys = (
        (HeldKey(found.key, Place(file, fields.line(name), fields.path(name))),)
        if found.key is not None
        else ()
    )
    return Material(tuple(held), keys, complaints.in_order())


def _of_pem(file: str, text: str) -> Material:
    held: list[Held] = []
    keys: list[HeldKey] = []
    complaints = Complaints(file)
    lines = [
        text.count("\n", 0, mark.start()) + 1
        for mark in pem.MARK.finditer(text)
        if mark[1] == "BEGIN"
    ]
    for line, block in zip(lines, pem.blocks(text), strict=True):
        if block.label.endswith(PARAMETERS):
            continue
        place = Place(file, line)
        findings: tuple[certificates.Finding, ...]
        if "PRIVATE KEY" in block.label:
            key, findings = certificates.load_key(_text(block))
            keys += [HeldKey(key, place)] if key is not None else []
        else:
            found, findings = certificates.load_certificates(_text(block), file)
            held += [Held(one, _role(one), place) for one in found]
        complaints.found += (_complaint(finding, place) for finding in findings)
    if not lines:
        complaints.error(
            0,
            "",
            "is neither PEM nor a config",
            "where the file is binary, `openssl x509 -inform der` makes PEM",
        )
    return Material(tuple(held), tuple(keys), complaints.in_order())


def _text(block: pem.Block) -> str:
    end = f"-----END {block.label}-----\n" if block.ended else ""
    return f"-----BEGIN {block.label}-----{block.body.decode()}{end}"


def _role(certificate: x509.Certificate) -> str:
    if not is_ca(certificate):
        return "instance"
    return "authority" if issued(certificate, certificate) else "intermediate"


def _complaint(finding: certificates.Finding, place: Place) -> Complaint:
    return Complaint(
        place.file, place.line, place.part, finding.message, finding.remedy, finding.severity
    )
