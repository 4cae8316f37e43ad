"""What `certs create` is to make: for whom, under which names, in which files."""

import re
from collections import Counter
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ipsec_agent.core.certificates.issuing import LONGEST_NAME, Issuer, Subject
from ipsec_agent.core.certificates.material import Material
from ipsec_agent.core.manifest.addresses import as_ipv4, read_address
from ipsec_agent.core.manifest.bundle import LEAF, Bundle
from ipsec_agent.core.manifest.certificates import KEY_PART, Key
from ipsec_agent.core.manifest.complaint import shown
from ipsec_agent.core.manifest.public_keys import encoded
from ipsec_agent.errors import AgentError

CA_FILE, SHARED_FILE = "pcf-ipsec-ca", "pcf-ipsec-peer"
"""What the files' names begin with, as those of the guide's scripts do."""

SHARED_NAME = "IPsec peer"

VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
"""It is a file's name, a DNS name, or an IP address."""

LONGEST_DNS_NAME, LONGEST_LABEL = 253, 63
DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def files(begin: str) -> tuple[str, str]:
    """The names of a certificate's file and of its key's."""
    return f"{begin}-cert.pem", f"{begin}-key.pem"


def keys_beside(file: str) -> tuple[str, ...]:
    """Where the key of a certificate's file may be: as the scripts, certstrap and openssl do it."""
    begin = file.rpartition(".")[0] or file
    scripts = (file.replace("-cert.", "-key."),) if "-cert." in file else ()
    return (*scripts, f"{begin}.key")


def shared(name: str, alternatives: Sequence[str]) -> Subject:
    """The one identity that all VMs of a deployment share.

    Args:
        name: its common name.
        alternatives: its subject alternative names; empty for one made from the files' name.

    Raises:
        AgentError: one of them cannot be in a certificate.
    """
    _refuse_name(name)
    for one in alternatives:
        if not _is_address(one) and not _is_dns_name(one):
            raise AgentError(
                f"{shown(one)} is neither a DNS name nor an IP address",
                hint="write, for example, --san vm.example.com --san 10.0.1.7",
            )
    return Subject(name, tuple(dict.fromkeys(alternatives)) or (SHARED_FILE,), SHARED_FILE)


def per_vm(names: Sequence[str]) -> tuple[Subject, ...]:
    """An identity for each VM, by its name or its IP address.

    Raises:
        AgentError: a name is given twice, or cannot be a file's name.
    """
    # A DNS name and the digits of an address are the same in both cases.
    same = Counter(name.casefold() for name in names)
    for name in names:
        known = _is_address(name) or _is_dns_name(name)
        if not known or not VM_NAME.fullmatch(name) or name in {CA_FILE, SHARED_FILE}:
            raise AgentError(
                f"--per-vm: {shown(name)} cannot be the name of a VM's files",
                hint="use letters, digits, dots and hyphens, such as diego-cell-0",
            )
        if same[name.casefold()] > 1:
            raise AgentError(f"--per-vm: {name} is given twice", hint="give each VM once")
        _refuse_name(name)
    return tuple(Subject(name, (name,), name) for name in names)


def ca_name(given: str, day: str, mark: str) -> str:
    """The common name of a new CA: each CA has its own, so that logs tell them apart.

    Args:
        given: the operator's, "" for none.
        day: of today.
        mark: random, for CAs of one day.

    Raises:
        AgentError: it cannot be in a certificate.
    """
    name = given or f"IPsec CA {day} {mark}"
    _refuse_name(name)
    return name


def _refuse_name(name: str) -> None:
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise AgentError(
            f"{shown(name)} cannot be the name in a certificate",
            hint=f"use 1 to {LONGEST_NAME} printable characters",
        )


def _is_address(text: str) -> bool:
    """Whether a text is an address that a packet can have."""
    try:
        return as_ipv4(read_address(text)) is None
    except ValueError:
        return False


def _is_dns_name(text: str) -> bool:
    """Whether a text is a name of the DNS, within its limits (RFC 1035, 2.3.4)."""
    labels = text.split(".")
    return (
        DNS_NAME.fullmatch(text) is not None
        and len(text) <= LONGEST_DNS_NAME
        and all(0 < len(label) <= LONGEST_LABEL for label in labels)
    )


def issuer(material: Material, file: str, key_file: str) -> Issuer:
    """The CA of a file that is to sign; its own certificate is the first.

    Raises:
        AgentError: there is no certificate, no key, or the key is another one's.
    """
    if not material.certificates:
        raise AgentError(f"{file} has no certificate", hint="give the CA's certificate with --ca")
    if not material.keys:
        raise AgentError(f"{key_file} has no key", hint="give the CA's key with --ca-key")
    own, *above = dict.fromkeys(one.certificate for one in material.certificates)
    key = material.keys[0].key
    if encoded(own.public_key()) != encoded(key.public_key()):
        raise AgentError(
            f"the key in {key_file} does not match the first certificate of {file}",
            hint="give the CA's own key with --ca-key, and its certificate first in --ca",
        )
    return Issuer(own, key, tuple(above))


def bundle(leaf: x509.Certificate, ca: Issuer) -> Bundle:
    """A new certificate as a config would have it, to be judged."""
    return Bundle(
        leaf, (), tuple(("ca_certificates[0]", one) for one in (ca.certificate, *ca.above))
    )


def certificate_text(*certificates: x509.Certificate) -> str:
    """Certificates as PEM."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def key_text(key: Key) -> str:
    """A key as PEM, without a passphrase, as the add-on wants it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def manifest_text(leaf: x509.Certificate, key: Key, ca: Issuer) -> str:
    """The fields of a config, ready to be pasted."""
    return (
        "# Paste these properties below `ipsec:` of your config, in place of those that it has.\n"
        "ipsec:\n"
        f"  {LEAF}: |\n{_indented(certificate_text(leaf), 4)}"
        f"  {KEY_PART}: |\n{_indented(key_text(key), 4)}"
        f"  ca_certificates:\n  - |\n{_indented(certificate_text(ca.certificate, *ca.above), 4)}"
    )


def _indented(text: str, spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}\n" for line in text.splitlines())
