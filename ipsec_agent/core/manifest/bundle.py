"""All certificates of a config, and the ways that charon may go from the leaf to a root."""

import itertools
from collections.abc import Iterator

from cryptography import x509
from msgspec import Struct

from ipsec_agent.core.derived import derived
from ipsec_agent.core.manifest.issuers import is_ca, issued

LEAF = "instance_certificate"
MOST_INTERMEDIATES = 7
"""Between a leaf and its root (strongSwan's MAX_TRUST_PATH_LEN)."""

MOST_STEPS = 500
"""Of the search for a root; a config needs three or four, cross-signed CAs some more."""

Path = tuple[x509.Certificate, ...]


class Bundle(Struct, frozen=True, dict=True):
    """All certificates of a config.

    Attributes:
        intermediates: the certificates after the leaf in instance_certificate.
        authorities: each CA with its part, such as ca_certificates[0].
    """

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    authorities: tuple[tuple[str, x509.Certificate], ...]

    @property
    def listed(self) -> Path:
        """All but the leaf, each once."""
        return tuple(dict.fromkeys((*(ca for _, ca in self.authorities), *self.intermediates)))

    @property
    def roots(self) -> Path:
        """The CAs at which a chain may end."""
        return tuple(ca for _, ca in self.authorities if is_ca(ca) and issued(ca, ca))

    def part(self, certificate: x509.Certificate) -> str:
        """The part that lists a certificate."""
        return next((part for part, ca in self.authorities if ca == certificate), LEAF)


class Ways(Struct, frozen=True):
    """Where charon may get to: it takes one issuer of several, and does not come back.

    Attributes:
        good: the ways to a listed root, the leaf first.
        dead: those that end elsewhere.
        endless: those with more intermediates than charon follows.
    """

    good: tuple[Path, ...]
    dead: tuple[Path, ...]
    endless: tuple[Path, ...]


@derived
def ways(bundle: Bundle) -> Ways:
    """Every way upward from the leaf."""
    roots = bundle.roots
    found = tuple(_upward(bundle, roots))
    followed = tuple(path for path in found if len(path) - 2 <= MOST_INTERMEDIATES)
    return Ways(
        tuple(path for path in followed if path[-1] in roots),
        tuple(path for path in followed if path[-1] not in roots),
        tuple(path for path in found if path not in followed),
    )


def _upward(bundle: Bundle, roots: Path) -> Iterator[Path]:
    issuers = tuple(one for one in bundle.listed if is_ca(one))
    known: dict[x509.Certificate, Path] = {}
    steps = itertools.count()

    def onward(path: Path) -> Iterator[Path]:
        top = path[-1]
        if top not in known:
            ends = top in roots or (top != bundle.leaf and issued(top, top))
            known[top] = () if ends else tuple(one for one in issuers if issued(top, one))
        above = [one for one in known[top] if one not in path]
        if not above or len(path) - 2 > MOST_INTERMEDIATES:
            yield path
            return
        for one in above if next(steps) < MOST_STEPS else ():
            yield from onward((*path, one))

    return onward((bundle.leaf,))
