"""Whether peers will trust the instance certificate, checked as charon does, or stricter.

charon trusts a chain only if it ends at a self-signed CA, every link of it is a CA and valid now,
and no path length or constraint is exceeded (credential_manager.c; each seen with strongSwan
5.9.8). VMs with one and the same certificate trust each other without any CA, so what is wrong here
would break out only when the certificate is replaced.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from msgspec.structs import replace

from ipsec_agent.core.manifest import name_constraints, policies
from ipsec_agent.core.manifest.bundle import LEAF, MOST_INTERMEDIATES, Bundle, Path, Ways, ways
from ipsec_agent.core.manifest.certificate_rules import (
    NEXT_CA,
    RENEW,
    RENEW_ALL,
    authority,
    ending,
    signature,
    usage,
    validity,
)
from ipsec_agent.core.manifest.certificates import KEY_PART, Finding, Key, name
from ipsec_agent.core.manifest.issuers import is_ca
from ipsec_agent.core.manifest.no_chain import why_no_chain
from ipsec_agent.core.manifest.sizes import oversized


def judge(bundle: Bundle, key: Key | None, now: datetime) -> tuple[Finding, ...]:
    """Everything that is wrong with the certificates at this time."""
    position = _place_of(bundle, key) if key is not None else 0
    if position:
        # The rest is judged as it is meant.
        first, second = bundle.intermediates[:position], bundle.intermediates[position:]
        others = (bundle.leaf, *first[:-1], *second)
        meant = Bundle(first[-1], others, bundle.authorities)
        return _out_of_order(position), *judge(meant, key, now)
    found = ways(bundle)
    findings = [
        *_renewed(bundle, found, validity(bundle.leaf, LEAF, now), now, RENEW_ALL),
        *usage(bundle.leaf, LEAF),
    ]
    if key is not None:
        findings += _matching(bundle, key)
    for part, ca in bundle.authorities:
        findings += authority(part, ca)
    findings += _repeated(bundle)
    if found.good:
        findings += _of_paths(bundle, found.good, now)
        findings += _dead_ends(bundle, found)
    elif bundle.authorities:
        findings.append(_too_many() if found.endless else why_no_chain(bundle))
    findings += oversized(bundle, found)
    findings += _aside(bundle, {link for path in found.good for link in path}, now)
    return tuple(findings)


def leaf_ending(bundle: Bundle, now: datetime, days: int) -> Iterator[Finding]:
    """Whether the leaf ends within so many days."""
    ends = ending(bundle.leaf, LEAF, now, days, instance=True)
    return _renewed(bundle, ways(bundle), ends, bundle.leaf.not_valid_after_utc, NEXT_CA)


def _renewed(
    bundle: Bundle, found: Ways, findings: Iterable[Finding], at: datetime, by_another: str
) -> Iterator[Finding]:
    """Findings about the leaf; a CA that ends as well cannot sign what comes after it.

    Args:
        at: when the next leaf is to hold.
        by_another: what to do where no root holds then.
    """
    paths = [path[1:] for path in found.good]
    above = {link for path in paths for link in path}
    # Another CA that is listed may be the one to come.
    paths += [(root,) for root in bundle.roots if root not in above]
    ended = [[one for one in path if one.not_valid_after_utc <= at] for path in paths]
    for finding in findings:
        if finding.remedy != RENEW or not ended or not all(ended):
            yield finding
            continue
        ends = zip(paths, ended, strict=True)
        below = next((gone[0] for path, gone in ends if path[-1] not in gone), None)
        first = f"first renew {name(below.subject)}, which signed it; then {RENEW}" if below else ""
        yield replace(finding, remedy=first or by_another)


def _of_paths(bundle: Bundle, paths: Sequence[Path], now: datetime) -> Iterator[Finding]:
    """What is wrong on the way to the root.

    Where one way is good and another is not, charon may take either (seen: the CA that was added
    last), so each must be good.
    """
    roots = bundle.roots
    for link in dict.fromkeys(link for path in paths for link in path[1:]):
        yield from validity(link, bundle.part(link), now)
        if link not in roots:
            yield from signature(link, bundle.part(link))
    if any(_too_long(path) for path in paths):
        yield Finding(
            LEAF,
            "its chain is longer than the path length that a CA allows",
            "use a CA with a larger pathlen, or fewer intermediates",
        )
    for path in paths:
        yield from _constraints(bundle, path)


def _constraints(bundle: Bundle, path: Path) -> Iterator[Finding]:
    """What the CAs of a chain forbid below them."""
    broken = name_constraints.violation(path)
    if broken is not None:
        refuses = f": {broken.refused_by} refuses that" if broken.refused_by else ""
        yield Finding(
            bundle.part(broken.ca),
            f"the name constraints of {name(broken.ca.subject)} {broken.what}{refuses}",
            "create a CA without name constraints, or with one permitted DNS name that all names"
            " of the certificate end with",
        )
    for ca, below in policies.forbidden(path):
        yield Finding(
            bundle.part(ca),
            f"{name(ca.subject)} forbids the policy anyPolicy, which {name(below.subject)} has",
            "issue the certificate without it",
        )


def _dead_ends(bundle: Bundle, found: Ways) -> Iterator[Finding]:
    """Issuers that charon may take instead of a good one, and that lead to no listed root."""
    good = {link for path in found.good for link in path}
    astray = (link for path in (*found.dead, *found.endless) for link in path if link not in good)
    for link in dict.fromkeys(astray):
        yield Finding(
            bundle.part(link),
            f"{name(link.subject)} is here more than once, and one of them (its issuer is"
            f" {name(link.issuer)}) leads to no CA of ca_certificates; charon may take that one",
            "remove that one, or list the CA that signed it",
        )


def _too_many() -> Finding:
    return Finding(
        LEAF,
        f"its chain has more than {MOST_INTERMEDIATES} intermediates, and charon follows no more",
        "use a CA with fewer intermediates",
    )


def _too_long(path: Path) -> bool:
    """Whether a CA has more intermediates below it than its path length (RFC 5280, 4.2.1.9)."""
    for below, link in enumerate(path[1:]):
        limit = link.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if limit is not None and below > limit:
            return True
    return False


def _place_of(bundle: Bundle, key: Key) -> int:
    """Which intermediate has the key, from 1 on; 0 for the leaf or none."""
    public = _public(key.public_key())
    if _public(bundle.leaf.public_key()) == public:
        return 0
    places = enumerate(bundle.intermediates, 1)
    return next((at for at, one in places if _public(one.public_key()) == public), 0)


def _out_of_order(position: int) -> Finding:
    return Finding(
        LEAF,
        f"the key belongs to certificate {position + 1} here, not to the first",
        "put the certificate of the key first, then its intermediates",
    )


def _matching(bundle: Bundle, key: Key) -> Iterator[Finding]:
    if _public(bundle.leaf.public_key()) != _public(key.public_key()):
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
    """Certificates that are not on the way to the root, or that are where they should not be."""
    if is_ca(bundle.leaf):
        yield Finding(
            LEAF,
            f"{name(bundle.leaf.subject)} is a CA, and each VM has its key: who breaks into one can"
            " issue certificates",
            "use a certificate that the CA signed",
            "warning",
        )
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
