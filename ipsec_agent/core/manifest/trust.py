"""Whether peers will trust the instance certificate, checked as charon does, or stricter.

charon trusts a chain only if it ends at a self-signed CA, every link of it is a CA and valid now,
and no path length is exceeded (credential_manager.c; each seen with strongSwan 5.9.8). VMs with
one and the same certificate trust each other without any CA, so what is wrong here would break out
only when the certificate is replaced.
"""

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from msgspec import Struct

from ipsec_agent.core.manifest.certificate_rules import authority, is_ca, signature, usage, validity
from ipsec_agent.core.manifest.certificates import KEY_PART, Finding, Key, name

LEAF = "instance_certificate"
LONGEST_PATH = 7
"""Links between a leaf and its root (strongSwan's MAX_TRUST_PATH_LEN)."""

MOST_STEPS = 500
"""Of the search for a root; a config needs three or four, cross-signed CAs some more."""

Path = tuple[x509.Certificate, ...]


class Bundle(Struct, frozen=True):
    """All certificates of a config.

    Attributes:
        intermediates: the certificates after the leaf in instance_certificate.
        authorities: each CA with its part, such as ca_certificates[0].
    """

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    authorities: tuple[tuple[str, x509.Certificate], ...]

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """The CAs at which a chain may end."""
        return tuple(ca for _, ca in self.authorities if is_ca(ca) and issued(ca, ca))

    def part(self, certificate: x509.Certificate) -> str:
        """The part that lists a certificate."""
        return next((part for part, ca in self.authorities if ca == certificate), LEAF)


def judge(bundle: Bundle, key: Key | None, now: datetime) -> tuple[Finding, ...]:
    """Everything that is wrong with the certificates at this time."""
    findings = [*validity(bundle.leaf, LEAF, now), *usage(bundle.leaf, LEAF)]
    if key is not None:
        findings += _matching(bundle, key)
    for part, ca in bundle.authorities:
        findings += authority(part, ca)
    findings += _repeated(bundle)
    paths = tuple(_paths(bundle))
    if paths:
        findings += _of_paths(bundle, paths, now)
    elif bundle.authorities:
        findings.append(_no_path(bundle))
    findings += _aside(bundle, {link for path in paths for link in path}, now)
    return tuple(findings)


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name and signature are those of the certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _paths(bundle: Bundle) -> Iterator[Path]:
    """Every way from the leaf to a listed root, the leaf first."""
    roots = bundle.roots
    issuers = tuple(dict.fromkeys((*(ca for _, ca in bundle.authorities), *bundle.intermediates)))
    known: dict[x509.Certificate, Path] = {}
    steps = itertools.count()

    def onward(path: Path) -> Iterator[Path]:
        top = path[-1]
        if top in roots:
            yield path
        elif len(path) <= LONGEST_PATH and next(steps) < MOST_STEPS:
            if top not in known:
                known[top] = tuple(one for one in issuers if is_ca(one) and issued(top, one))
            for above in known[top]:
                if above not in path:
                    yield from onward((*path, above))

    return onward((bundle.leaf,))


def _of_paths(bundle: Bundle, paths: Sequence[Path], now: datetime) -> Iterator[Finding]:
    """What is wrong on the way to the root.

    Where one way is good and another holds an expired CA, charon may take either (seen: the CA
    that was added last), so each link must be valid.
    """
    for link in dict.fromkeys(link for path in paths for link in path[1:]):
        yield from validity(link, bundle.part(link), now)
        if link not in bundle.roots:
            yield from signature(link, bundle.part(link))
    if all(_too_long(path) for path in paths):
        yield Finding(
            LEAF,
            "its chain is longer than the path length that a CA allows",
            "use a CA with a larger pathlen, or fewer intermediates",
        )


def _too_long(path: Path) -> bool:
    """Whether a CA has more intermediates below it than its path length (RFC 5280, 4.2.1.9)."""
    for below, link in enumerate(path[1:]):
        limit = link.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if limit is not None and below > limit:
            return True
    return False


def _no_path(bundle: Bundle) -> Finding:
    """Why the leaf has no chain to a listed CA."""
    top, path = bundle.leaf, {bundle.leaf}
    listed = (*(ca for _, ca in bundle.authorities), *bundle.intermediates)
    while above := next((one for one in listed if one not in path and issued(top, one)), None):
        top = above
        path.add(above)
    if issued(top, top):
        if top == bundle.leaf:
            return Finding(
                LEAF,
                "it is self-signed, so no CA vouches for it",
                "create a CA, sign the certificate with it, and list the CA in ca_certificates",
            )
        return Finding(
            LEAF,
            f"its chain ends at {name(top.subject)}, which is not a CA of ca_certificates",
            "list the CA itself in ca_certificates",
        )
    issuer = name(top.issuer)
    if any(ca.subject == top.issuer for _, ca in bundle.authorities):
        return Finding(
            LEAF,
            f"{issuer} in ca_certificates has another key than the CA that signed it",
            "list the CA that signed it",
        )
    if top != bundle.leaf:
        return Finding(
            LEAF,
            f"its chain ends at {name(top.subject)}: the CA above it, {issuer}, is not in"
            " ca_certificates",
            f"add {issuer}: charon trusts a chain only up to a self-signed CA",
        )
    return Finding(
        LEAF,
        f"no CA in ca_certificates signed it (its issuer is {issuer})",
        "add that CA to ca_certificates, or use a certificate that one of them signed",
    )


def _matching(bundle: Bundle, key: Key) -> Iterator[Finding]:
    public = _public(key.public_key())
    if _public(bundle.leaf.public_key()) == public:
        return
    for position, other in enumerate(bundle.intermediates, 2):
        if _public(other.public_key()) == public:
            yield Finding(
                LEAF,
                f"the key belongs to certificate {position} here, not to the first",
                "put the certificate of the key first, then its intermediates",
            )
            return
    yield Finding(
        KEY_PART,
        "the key does not match instance_certificate",
        "paste the key that belongs to the certificate",
    )


def _public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return] # every public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _repeated(bundle: Bundle) -> Iterator[Finding]:
    """CAs that are listed twice or share a name."""
    for position, (part, ca) in enumerate(bundle.authorities):
        for first, earlier in bundle.authorities[:position]:
            if earlier == ca:
                yield Finding(
                    part,
                    f"{name(ca.subject)} is listed twice, here and in {first}",
                    "remove one",
                    "warning",
                )
                break
            if earlier.subject == ca.subject and earlier.public_key() != ca.public_key():
                yield Finding(
                    part,
                    f"{name(ca.subject)} has the same name as the CA in {first}, but another key",
                    "give each CA its own name, so that logs tell them apart",
                    "warning",
                )
                break


def _aside(bundle: Bundle, used: set[x509.Certificate], now: datetime) -> Iterator[Finding]:
    """Certificates that are not on the way to the root."""
    if bundle.leaf in (ca for _, ca in bundle.authorities):
        yield Finding(
            LEAF,
            "it is also in ca_certificates: when it is replaced, VMs with the old one and VMs"
            " with the new one will not trust each other",
            "list the CA that signed it instead",
            "warning",
        )
    for part, ca in bundle.authorities:
        if ca not in used:
            yield from validity(ca, part, now, severity="warning")
    listed = {ca for _, ca in bundle.authorities}
    for extra in dict.fromkeys(bundle.intermediates):
        if used and extra not in used and extra not in listed:
            yield Finding(
                LEAF,
                f"{name(extra.subject)}, after the first certificate, is not part of its chain",
                "remove it",
                "warning",
            )
