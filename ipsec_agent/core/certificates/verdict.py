"""What `certs verify` finds: what `check` would, and what a set of files shows beside it."""

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ipsec_agent.core.certificates.material import Held, HeldKey, Material, Place
from ipsec_agent.core.config import ExpiryPeriods
from ipsec_agent.core.derived import derived
from ipsec_agent.core.manifest.bundle import LEAF, Bundle
from ipsec_agent.core.manifest.certificate_rules import (
    authority,
    ending,
    signature,
    validity,
)
from ipsec_agent.core.manifest.certificates import (
    CURVES,
    KEY_PART,
    RSA_LEAST,
    RSA_WANTED,
    Finding,
    name,
)
from ipsec_agent.core.manifest.complaint import Complaint
from ipsec_agent.core.manifest.public_keys import described, encoded
from ipsec_agent.core.manifest.readable import serial_number
from ipsec_agent.core.manifest.trust import judge, leaf_ending

EDWARDS = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)

SOON = ExpiryPeriods().info
"""Days before the end of a certificate from which on it is said, where no config says another."""


def verify(material: Material, now: datetime, soon: int = SOON) -> tuple[Complaint, ...]:
    """Everything that is wrong with these certificates and keys, each with its place.

    Args:
        soon: days before its end from which on one of no config is told.
    """
    found = [
        *material.complaints,
        *_chains(material, now, soon),
        *_keys(material),
        *(one for held in material.certificates for one in _alone(material, held, now, soon)),
        *_shared(material),
    ]
    return tuple(dict.fromkeys(found))


def _chains(material: Material, now: datetime, soon: int) -> Iterator[Complaint]:
    """Each instance certificate below the CAs of its config, or of all PEM; else the CAs alone."""
    for leaf in material.certificates:
        if leaf.role != "instance":
            continue
        listed = _listed(material, leaf)
        key = _key_of(leaf, material)
        bundle = Bundle(
            leaf.certificate,
            tuple(one.certificate for one in _behind(material, leaf)),
            tuple((_part(held.place), held.certificate) for held in listed),
        )
        places = {_part(held.place): held.place for held in listed}
        places |= {LEAF: leaf.place, KEY_PART: key.place if key else leaf.place}
        days = soon if leaf.soon is None else leaf.soon
        found = judge(bundle, key.key if key else None, now)
        for finding in (*found, *leaf_ending(bundle, now, days)):
            yield _complaint(finding, places[finding.part])
    if not any(one.role == "instance" for one in material.certificates):
        for held in material.certificates:
            ca = held.certificate
            for finding in (*validity(ca, "", now), *authority("", ca), *signature(ca, "")):
                yield _complaint(finding, held.place)


def _group(place: Place) -> str:
    """Certificates of one config belong together, as do those of all files that are PEM."""
    return place.file if place.part else ""


def _part(place: Place) -> str:
    """How a finding calls it."""
    return place.part or f"{place.file}:{place.line}"


def _listed(material: Material, leaf: Held) -> tuple[Held, ...]:
    """The CAs that a config lists, or that files of PEM have."""
    return tuple(
        one
        for one in material.certificates
        if _group(one.place) == _group(leaf.place)
        and one.role != "instance"
        and one.place != leaf.place
    )


def _behind(material: Material, leaf: Held) -> Iterator[Held]:
    """The intermediates after a config's instance certificate."""
    return (
        one
        for one in material.certificates
        if leaf.place.part and one.place == leaf.place and one.role == "intermediate"
    )


def _key_of(leaf: Held, material: Material) -> HeldKey | None:
    """Its key, or the one that its config gives for it."""
    of_file, of_public = _numbered(material)
    public = encoded(leaf.certificate.public_key())
    found = (of_file.get(leaf.place.file), of_public.get(public))
    first = min((one for one in found if one is not None), default=None)
    return None if first is None else material.keys[first]


@derived
def _numbered(material: Material) -> tuple[dict[str, int], dict[bytes, int]]:
    """The number of the first key of each config, and of each public key."""
    of_file: dict[str, int] = {}
    of_public: dict[bytes, int] = {}
    for number, one in enumerate(material.keys):
        if one.place.part:
            of_file.setdefault(one.place.file, number)
        of_public.setdefault(encoded(one.key.public_key()), number)
    return of_file, of_public


def _keys(material: Material) -> Iterator[Complaint]:
    """Keys that are no certificate's; that of a config is judged with its certificate."""
    for key in material.keys:
        if not key.place.part and material.certificates and material.owner(key) is None:
            yield _complaint(
                Finding(
                    "",
                    "the key belongs to none of these certificates",
                    "give its certificate, too, or remove the key",
                ),
                key.place,
            )


def _alone(material: Material, held: Held, now: datetime, soon: int) -> Iterator[Complaint]:
    """What is wrong with a certificate whatever signed it."""
    instance = held.role == "instance"
    days = soon if held.soon is None else held.soon
    if not instance:
        for finding in ending(held.certificate, "", now, days, instance=False):
            yield _complaint(finding, held.place)
    # A key that is given says itself that it is weak.
    if not instance or _key_of(held, material) is None:
        yield from (_complaint(one, held.place) for one in _weak(held))


def _weak(held: Held) -> Iterator[Finding]:
    """Of a CA, judge says what is below the least."""
    key, instance = held.certificate.public_key(), held.role == "instance"
    severity = "warning"
    if isinstance(key, rsa.RSAPublicKey):
        weak = (0 if instance else RSA_LEAST) <= key.key_size < RSA_WANTED
        severity = "error" if key.key_size < RSA_LEAST else "warning"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        weak = not isinstance(key.curve, CURVES)
        severity = "error" if instance else "warning"
    else:
        weak = instance and not isinstance(key, EDWARDS)
        severity = "error"
    if weak:
        yield Finding(
            "",
            f"{name(held.certificate.subject)} has the weak key {described(key)}",
            f"create one with a key of RSA {RSA_WANTED} or 4096",
            severity,
        )


def _shared(material: Material) -> Iterator[Complaint]:
    """Serial numbers and names that two different certificates have; each is told once, beside the
    first one that it is like.
    """
    serials: dict[tuple[x509.Name, int], Held] = {}
    names: dict[x509.Name, dict[bytes, Held]] = {}
    seen: set[x509.Certificate] = set()
    for held in material.certificates:
        certificate = held.certificate
        if certificate in seen:
            continue
        seen.add(certificate)
        serial = certificate.issuer, serial_number(certificate)
        if serial in serials:
            yield _alike(
                held,
                serials[serial],
                "the serial number of the certificate in {}, which the same CA issued",
                "issue it with a random serial number, as `ipsec-agent certs create` does",
            )
        serials.setdefault(serial, held)
        public = encoded(certificate.public_key())
        others = names.setdefault(certificate.subject, {})
        another = next((one for key, one in others.items() if key != public), None)
        if another is not None:
            yield _alike(
                held,
                another,
                "the name of the certificate in {}, but another key",
                "nothing to do where one replaces the other; two VMs need two names, so that logs"
                " tell them apart",
            )
        others.setdefault(public, held)


def _alike(later: Held, earlier: Held, what: str, remedy: str) -> Complaint:
    """What tells two certificates apart, and does not."""
    where = f"{earlier.place.file}:{earlier.place.line}"
    message = f"{name(later.certificate.subject)} has {what.format(where)}"
    return _complaint(Finding("", message, remedy, "warning"), later.place)


def _complaint(finding: Finding, place: Place) -> Complaint:
    return Complaint(
        place.file, place.line, place.part, finding.message, finding.remedy, finding.severity
    )
