"""Which names a CA allows below it, judged as charon does before 5.9.14 and since.

Before, each name must be within every permitted name of its kind, each CA below must repeat the
constraints, and a constraint that is not critical is not seen. Since, the constraints of a chain
are collected from its root down (RFC 5280; constraints_validator.c of 5.9.8 and 6.0).
"""

import itertools
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Literal

from cryptography import x509
from msgspec import Struct

from ipsec_agent.core.der import attributes, elements
from ipsec_agent.core.manifest.certificates import name
from ipsec_agent.core.manifest.issuers import is_ca
from ipsec_agent.core.manifest.loadable import kind, own_reader
from ipsec_agent.core.words import printable

Verb = Literal["permit", "exclude"]
Path = Sequence[x509.Certificate]
Collected = dict[tuple[Verb, str], tuple[x509.GeneralName, ...]]
"""The constraints of a chain so far, by what they do and by the sort of name."""


class Violation(Struct, frozen=True):
    """A CA and what its name constraints forbid.

    Attributes:
        refused_by: the versions of charon that refuse the chain for it; empty for all.
    """

    ca: x509.Certificate
    what: str
    refused_by: str = ""


def violation(path: Path) -> Violation | None:
    """What charon finds wrong with the names of a chain, the leaf first."""
    before, since = next(_before(path), None), next(_since(path), None)
    if before is not None and since is not None:
        return since
    if before is not None:
        return Violation(before.ca, before.what, "charon before 5.9.14")
    if since is not None:
        return Violation(since.ca, since.what, "charon since 5.9.14")
    return None


def _before(path: Path) -> Iterator[Violation]:
    """Each CA by itself, against what is just below it."""
    for below, ca in itertools.pairwise(path):
        if not own_reader(ca):
            continue
        for verb, one in subtrees(ca):
            if verb == "exclude" and isinstance(one, x509.DirectoryName):
                yield _unsupported(ca, verb, one)
            for of in _names(below, sort(one)):
                if within(of, one) == (verb == "exclude"):
                    yield _forbidden(ca, verb, (one,), of)
            if not _repeated(verb, one, below):
                yield Violation(
                    ca,
                    f"{verb} {shown(one)}, which those of {name(below.subject)} below it do not"
                    " repeat",
                )


def _repeated(verb: Verb, one: x509.GeneralName, below: x509.Certificate) -> bool:
    """Whether a CA below permits something as narrow, or excludes something as wide."""
    if not is_ca(below):
        return True
    if not own_reader(below):
        return False
    own = [its for does, its in subtrees(below) if does == verb and sort(its) == sort(one)]
    return any(within(its, one) if verb == "permit" else within(one, its) for its in own)


def _since(path: Path) -> Iterator[Violation]:
    """All CAs together, from the root down."""
    collected: Collected = {}
    for position, link in reversed(tuple(enumerate(path))):
        for (verb, of_sort), ones in collected.items():
            for of in _names(link, of_sort):
                inside = any(within(of, one) for one in ones)
                if inside == (verb == "exclude"):
                    yield _forbidden(_owner(path[position:], verb, of_sort), verb, ones, of)
        if is_ca(link):
            for verb, one in subtrees(link):
                if sort(one) not in JUDGED or (
                    verb == "exclude" and isinstance(one, x509.DirectoryName)
                ):
                    yield _unsupported(link, verb, one)
            collected |= _collected(link, collected)


def _collected(ca: x509.Certificate, so_far: Collected) -> Collected:
    """With the constraints of one more CA: what is permitted can only become less."""
    own: Collected = {}
    for verb, one in subtrees(ca):
        key = (verb, sort(one))
        own[key] = (*own.get(key, ()), one)
    for key, ones in own.items():
        known = so_far.get(key)
        if known is None:
            continue
        if key[0] == "exclude":
            own[key] = known + ones
        else:
            own[key] = tuple(one for one in ones if any(within(one, old) for old in known))
    return own


def _owner(path: Path, verb: Verb, of_sort: str) -> x509.Certificate:
    """The highest CA that has such a constraint."""
    return next(
        ca
        for ca in reversed(path)
        if any(does == verb and sort(one) == of_sort for does, one in subtrees(ca))
    )


def _forbidden(
    ca: x509.Certificate, verb: Verb, ones: Sequence[x509.GeneralName], of: x509.GeneralName
) -> Violation:
    what = " or ".join(map(shown, ones)) or "no name of this kind"
    inside = "is not in" if verb == "permit" else "is in"
    return Violation(ca, f"{verb} {what}, and {shown(of)} {inside} it")


def _unsupported(ca: x509.Certificate, verb: Verb, one: x509.GeneralName) -> Violation:
    return Violation(ca, f"{verb} a name of the kind {kind(one)}, which charon does not support")


def subtrees(ca: x509.Certificate) -> Iterator[tuple[Verb, x509.GeneralName]]:
    """The names that a CA permits or excludes."""
    try:
        value = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return
    for one in value.permitted_subtrees or ():
        yield "permit", one
    for one in value.excluded_subtrees or ():
        yield "exclude", one


def _names(certificate: x509.Certificate, of_sort: str) -> Iterator[x509.GeneralName]:
    """The names of one sort that a certificate has."""
    if of_sort == kind(x509.DirectoryName(certificate.subject)):
        yield x509.DirectoryName(certificate.subject)
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    for general in alternative.value:
        if sort(general) == of_sort:
            yield general


JUDGED = ("dNSName", "rfc822Name", "directoryName", "iPAddress 4", "iPAddress 6")
"""The sorts of names that charon can compare with a constraint."""


def sort(general: x509.GeneralName) -> str:
    """What is compared with each other: names of one kind, addresses of one family."""
    if isinstance(general, x509.IPAddress):
        return f"{kind(general)} {general.value.version}"
    return kind(general)


def shown(general: x509.GeneralName) -> str:
    """A name as an operator writes it."""
    value = general.value
    text = name(value) if isinstance(value, x509.Name) else str(value)
    return printable(text, "?")


def within(of: x509.GeneralName, constraint: x509.GeneralName) -> bool:
    """Whether a name, or all of a constraint, is within a constraint of the same sort."""
    match of, constraint:
        case x509.DNSName(), x509.DNSName():
            return _ends(of.value, constraint.value, ".")
        case x509.RFC822Name(), x509.RFC822Name() if "@" in constraint.value:
            return of.value.lower() == constraint.value.lower()
        case x509.RFC822Name(), x509.RFC822Name():
            return _ends(of.value, constraint.value, "@")
        case x509.DirectoryName(), x509.DirectoryName():
            wanted = _parts(constraint.value)
            return _parts(of.value)[: len(wanted)] == wanted
        case x509.IPAddress(), x509.IPAddress():
            inner, outer = ip_network(str(of.value)), ip_network(str(constraint.value))
            return (
                inner.version == outer.version
                and inner.prefixlen >= outer.prefixlen
                and inner.network_address in outer
            )
        case _:
            return False


def _ends(text: str, end: str, before: str) -> bool:
    """Whether a name ends with a constraint, at a border of its parts."""
    rest = text.lower().removesuffix(end.lower())
    if not end or len(rest) == len(text):
        return False
    return not rest or end[0] == "." or rest[-1] == before


def _parts(of: x509.Name) -> tuple[tuple[bytes, bytes], ...]:
    """The attributes of a name; the tags of its strings do not matter."""
    (whole,) = elements(of.public_bytes())
    return tuple((kind, text) for kind, _tag, text in attributes(whole.content))
