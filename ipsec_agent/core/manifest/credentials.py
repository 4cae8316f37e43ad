"""Reads the certificates and the key of a config, and reports what is wrong with them by line."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from cryptography import x509
from msgspec import Struct

from ipsec_agent.core.config import Baseline, CertificateFacts
from ipsec_agent.core.manifest import certificates, trust
from ipsec_agent.core.manifest.baseline import judge_certificates
from ipsec_agent.core.manifest.bundle import LEAF, Bundle
from ipsec_agent.core.manifest.certificate_rules import ending
from ipsec_agent.core.manifest.certificates import Finding, Key
from ipsec_agent.core.manifest.complaint import Complaint
from ipsec_agent.core.manifest.fields import Fields
from ipsec_agent.core.model import Credentials

MOST_CERTIFICATES = 64
"""Of a config; a rotation needs four or six."""

CA_MISSING_DASH = (
    'write "- |" on a line of its own below ca_certificates, and the certificate indented below it;'
    " the add-on reports it as `undefined method 'each_with_index'`"
)


class Pasted(Struct, frozen=True):
    """What the config's text has of certificates and keys, as far as it can be read.

    Attributes:
        chain: the instance certificate and its intermediates; empty where none can be read.
        key: None where it cannot be read.
        authorities: each CA with the name of the item that lists it, such as ca_certificates[0].
    """

    chain: tuple[x509.Certificate, ...]
    key: Key | None
    authorities: tuple[tuple[str, x509.Certificate], ...]


def pasted(fields: Fields) -> Pasted:
    """The certificates and the key, with a complaint about each that cannot be read."""
    return Pasted(_chain(fields), _key(fields), _authorities(fields))


def read_credentials(
    fields: Fields, now: datetime, soon: int, baseline: Baseline = Baseline.DEFAULT
) -> tuple[x509.Certificate, Credentials, tuple[CertificateFacts, ...]] | None:
    """The leaf, the credentials and the facts of all certificates; None where they cannot be read.

    Args:
        now: the time at which the certificates must be valid.
        soon: days before the end of one from which on it is said.
        baseline: whose rules the certificates are judged by, too.
    """
    held = pasted(fields)
    chain, key, authorities = held.chain, held.key, held.authorities
    if len(chain) + len(authorities) > MOST_CERTIFICATES:
        fields.wrong(
            "ca_certificates",
            f"has more than {MOST_CERTIFICATES} certificates",
            "list only the CAs that signed certificates of these VMs",
        )
        return None
    if not chain or fields.incomplete("ca_certificates"):
        return None
    bundle = Bundle(chain[0], chain[1:], authorities)
    complain(fields, trust.judge(bundle, key, now))
    complain(fields, _ending(bundle, now, soon))
    complain(fields, judge_certificates(baseline, bundle))
    if key is None:
        return None
    listed = tuple(dict.fromkeys(ca for _, ca in authorities))
    facts = (
        certificates.facts(chain[0], "instance"),
        *(certificates.facts(item, "intermediate") for item in chain[1:]),
        *(certificates.facts(item, "authority") for item in listed),
    )
    return chain[0], certificates.credentials(key, chain[1:], listed), facts


def _ending(bundle: Bundle, now: datetime, soon: int) -> Iterator[Finding]:
    yield from trust.leaf_ending(bundle, now, soon)
    others = (*((LEAF, one) for one in bundle.intermediates), *bundle.authorities)
    for part, certificate in dict.fromkeys(others):
        yield from ending(certificate, part, now, soon, instance=False)


def _chain(fields: Fields) -> tuple[x509.Certificate, ...]:
    text = _required(fields, "instance_certificate")
    if text is None:
        return ()
    found, findings = certificates.load_certificates(text, "instance_certificate")
    complain(fields, findings)
    return found


def _key(fields: Fields) -> Key | None:
    text = _required(fields, "instance_private_key")
    if text is None:
        return None
    key, findings = certificates.load_key(text)
    complain(fields, findings)
    return key


def _required(fields: Fields, name: str) -> str | None:
    found = fields.entry(name)
    if found is None:
        fields.missing(name, "is missing", f"write `{name}: |` and the PEM indented below it")
        return None
    if not isinstance(found[1].value, str):
        listed = found[1].elements is not None
        fields.wrong(
            name,
            "must not be a list" if listed else "must be a string",
            f"write `{name}: |` and the PEM indented below it"
            + (", without a dash" if listed else ""),
        )
        return None
    return found[1].value


def _authorities(fields: Fields) -> tuple[tuple[str, x509.Certificate], ...]:
    """Each CA with the name of the item that holds it; an item may be a chain."""
    name = "ca_certificates"
    found = fields.entry(name)
    if found is None or found[1].elements == ():
        fields.missing(name, "is missing", "list the CA that signed the certificate")
        return ()
    path, entry = found
    if entry.elements is None:
        what = "must be a list, not one string" if entry.items is None else "must be a list"
        fields.wrong(name, what, CA_MISSING_DASH)
        return ()
    read_all: list[tuple[str, x509.Certificate]] = []
    for position, item in enumerate(entry.elements):
        part = f"{name}[{position}]"
        if not isinstance(item.value, str):
            if not item.void:
                right = 'write "- |" on a line of its own, and the certificate indented below it'
                fields.complaints.error(
                    item.line,
                    f"{path}[{position}]",
                    "is empty" if item.empty else "must be a string",
                    f"delete this dash, or {right}" if item.empty else right,
                )
            continue
        split, findings = certificates.load_certificates(item.value, part)
        complain(fields, findings)
        read_all += [(part, certificate) for certificate in split]
    return tuple(read_all)


def complain(fields: Fields, findings: Iterable[Finding]) -> None:
    """Report each finding at the line of its certificate, key or other property."""
    for finding in findings:
        name, _, item = finding.part.partition("[")
        line, path = fields.line(name), fields.path(name)
        found = fields.entry(name)
        if item and found and found[1].elements:
            position = int(item.rstrip("]"))
            line, path = found[1].elements[position].line, f"{path}[{position}]"
        fields.complaints.found.append(
            Complaint(
                fields.complaints.file,
                line,
                path,
                finding.message,
                finding.remedy,
                finding.severity,
                finding.dated,
            )
        )
