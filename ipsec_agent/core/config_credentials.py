"""Reads the certificates and the key of a config, and files what certificates.py finds by line."""

from datetime import datetime

from cryptography import x509

from ipsec_agent.core import certificates
from ipsec_agent.core.complaint import Complaint
from ipsec_agent.core.config import CertificateFacts
from ipsec_agent.core.fields import Fields
from ipsec_agent.core.model import Credentials

CA_MISSING_DASH = (
    'write "- |" on a line of its own below ca_certificates, and the certificate indented below it;'
    " this is the add-on's error `undefined method 'each_with_index'`"
)


def read_credentials(
    fields: Fields, now: datetime
) -> tuple[x509.Certificate, Credentials, tuple[CertificateFacts, ...]] | None:
    """The leaf, the credentials and the facts of all certificates; None where they cannot be read.

    Args:
        now: the time at which the certificates must be valid.
    """
    chain = _chain(fields)
    key_text = _required(fields, "instance_private_key")
    authorities = _authorities(fields)
    key, findings = (None, ()) if key_text is None else certificates.load_key(key_text)
    if chain and authorities:
        findings = (
            *findings,
            *certificates.judge_chain(chain[0], key, chain[1:], authorities, now),
        )
    for finding in findings:
        _complain(fields, finding)
    if not chain or key is None:
        return None
    listed = tuple(dict.fromkeys(ca for _, ca in authorities))
    facts = (
        certificates.facts(chain[0], "instance"),
        *(certificates.facts(item, "intermediate") for item in chain[1:]),
        *(certificates.facts(item, "authority") for item in listed),
    )
    return chain[0], certificates.credentials(key, chain[1:], listed), facts


def _chain(fields: Fields) -> tuple[x509.Certificate, ...]:
    text = _required(fields, "instance_certificate")
    if text is None:
        return ()
    found, findings = certificates.split_pem(text, "instance_certificate")
    for finding in findings:
        _complain(fields, finding)
    return found


def _authorities(fields: Fields) -> tuple[tuple[str, x509.Certificate], ...]:
    """Each CA with the name of the item that holds it; an item may be a chain."""
    found = fields.entry("ca_certificates")
    if found is None:
        fields.wrong(
            "ca_certificates", "this is missing", "list the CA that signed the certificate"
        )
        return ()
    path, entry = found
    if entry.elements is None:
        fields.wrong("ca_certificates", "this is one text, not a list", CA_MISSING_DASH)
        return ()
    read_all: list[tuple[str, x509.Certificate]] = []
    for position, item in enumerate(entry.elements):
        part = f"ca_certificates[{position}]"
        text = item.value if isinstance(item.value, str) else ""
        split, findings = certificates.split_pem(text, part)
        for finding in findings:
            fields.complaints.error(
                item.line, f"{path}[{position}]", finding.message, finding.remedy
            )
        read_all += [(part, certificate) for certificate in split]
    return tuple(read_all)


def _required(fields: Fields, name: str) -> str | None:
    if fields.entry(name) is None:
        fields.wrong(name, "this is missing", f"write `{name}: |` and the PEM indented below it")
        return None
    return fields.text(name) or None


def _complain(fields: Fields, finding: certificates.Finding) -> None:
    name, _, item = finding.part.partition("[")
    line, path = fields.line(name), fields.path(name)
    found = fields.entry(name)
    if item and found and found[1].elements:
        position = int(item.rstrip("]"))
        line, path = found[1].elements[position].line, f"{path}[{position}]"
    fields.complaints.found.append(
        Complaint(
            fields.complaints.file, line, path, finding.message, finding.remedy, finding.severity
        )
    )
