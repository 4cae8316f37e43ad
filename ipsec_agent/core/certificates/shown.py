"""Certificates as `certs show` tells them: as text, and as JSON's types."""

from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ipsec_agent.core.certificates.material import Held, Material
from ipsec_agent.core.manifest.certificates import facts, name
from ipsec_agent.core.manifest.public_keys import described, hash_of
from ipsec_agent.core.words import lasting, moment, printable, tenths

SCHEMA = 1

DAY = 86400
"""Seconds."""


def document(material: Material, now: datetime) -> dict[str, Any]:
    """A stable interface, versioned by `schema`; nothing of a private key is in it."""
    return {
        "schema": SCHEMA,
        "certificates": [_certificate(one, now) for one in material.certificates],
        "keys": [
            {
                "file": one.place.file,
                "line": one.place.line,
                "part": one.place.part,
                "key": described(one.key.public_key()),
                "subject": name(owner.certificate.subject) if owner else None,
            }
            for one in material.keys
            for owner in (material.owner(one),)
        ],
    }


def _certificate(held: Held, now: datetime) -> dict[str, Any]:
    certificate = held.certificate
    told = facts(certificate, held.role)
    return {
        "file": held.place.file,
        "line": held.place.line,
        "part": held.place.part,
        "role": held.role,
        "subject": told.subject,
        "issuer": told.issuer,
        "alternative_names": alternative_names(certificate),
        "serial": told.serial,
        "not_before": told.not_before.timestamp(),
        "not_after": told.not_after.timestamp(),
        "days_left": tenths((told.not_after - now).total_seconds() / DAY),
        "key": described(certificate.public_key()),
        "hash": hash_of(certificate),
        "fingerprint": certificate.fingerprint(hashes.SHA256()).hex(":"),
    }


def alternative_names(certificate: x509.Certificate) -> list[str]:
    """The subject alternative names, each with its kind, such as DNS:vm.example.com."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [_alternative(one) for one in found]


def _alternative(name: x509.GeneralName) -> str:
    kinds = {
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.RFC822Name: "email",
        x509.UniformResourceIdentifier: "URI",
    }
    kind = kinds.get(type(name), type(name).__name__)
    value = name.value.rfc4514_string() if isinstance(name, x509.DirectoryName) else name.value
    return printable(f"{kind}:{value}", "?")


def text(material: Material, now: datetime) -> str:
    """The same for a person."""
    shown = document(material, now)
    lines: list[str] = []
    for one in shown["certificates"]:
        part = f" {one['part']}" if one["part"] else ""
        lines += [
            f"{one['file']}:{one['line']}{part} ({one['role']})",
            f"  subject      {one['subject']}",
            f"  issuer       {one['issuer']}",
            f"  names        {', '.join(one['alternative_names']) or 'none'}",
            f"  valid        {_validity(one, now)}",
            f"  key          {one['key']}",
            f"  signed with  {one['hash']}",
            f"  serial       {one['serial']}",
            f"  fingerprint  {one['fingerprint']}",
        ]
    for one in shown["keys"]:
        part = f" {one['part']}" if one["part"] else ""
        owner = f"of {one['subject']}" if one["subject"] else "of none of these certificates"
        lines += [
            f"{one['file']}:{one['line']}{part} (private key)",
            f"  key          {one['key']}, {owner}",
        ]
    return "".join(f"{line}\n" for line in lines)


def _validity(shown: dict[str, Any], now: datetime) -> str:
    left = lasting((shown["not_after"] - now.timestamp()) / DAY)
    return f"{moment(shown['not_before'])} to {moment(shown['not_after'])}: {left}"
