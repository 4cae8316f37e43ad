"""The certificates that peers have shown, out of all that charon has.

charon lists what it was given, and what it verified last: its cache has room for 32 pairs of a
certificate and its issuer (cert_cache.c), and keeps one also when its peer has a newer one. So a
certificate counts only while an IKE_SA's peer has its name, and of several of one name the newest.
"""

import functools
import re
from collections.abc import Iterable

from msgspec.structs import replace

from ipsec_agent.core.clock import ClockFacts
from ipsec_agent.core.config import CertificateFacts, Config, ListedCertificate
from ipsec_agent.core.der import certificate_facts
from ipsec_agent.core.observed import Charon, Observed

ROLE = "peer"

TYPE = re.compile(r"(?:^|, )[A-Za-z0-9.]+=")
"""What precedes each value of a name as charon writes it: `C=CH, O=Example, CN=vm`."""

KEPT, CERTIFICATES_KEPT = 4096, 256
"""Names and certificates that are not taken apart again: one name of each peer of a large fleet,
and all certificates that are looked at."""


def listed(encoded: Iterable[bytes]) -> tuple[ListedCertificate, ...]:
    """What is known of certificates, each given as DER; what cannot be read is left out."""
    found = (_listed(der) for der in encoded)
    return tuple(one for one in found if one is not None)


@functools.lru_cache(CERTIFICATES_KEPT)
def _listed(der: bytes) -> ListedCertificate | None:
    try:
        return certificate_facts(der, ROLE)
    except (IndexError, StopIteration, ValueError):
        return None


@functools.lru_cache(KEPT)
def name_of(identity: str) -> tuple[str, ...]:
    """The values of an identity that is a distinguished name; empty where it is none."""
    return tuple(TYPE.split(identity)[1:])


def shown_by_peers(charon: Charon | None, config: Config) -> tuple[CertificateFacts, ...]:
    """Those with which peers that have an IKE_SA proved themselves, without the config's own."""
    if charon is None or not charon.certificates:
        return ()
    own = {_same(one) for one in config.certificates}
    names = {name_of(sa.remote_id) for sa in charon.sas}
    newest: dict[tuple[str, ...], CertificateFacts] = {}
    for one in charon.certificates:
        before = newest.get(one.name)
        if one.name in names and (before is None or one.facts.not_before > before.not_before):
            newest[one.name] = one.facts
    return tuple(one for one in newest.values() if _same(one) not in own)


def clock_facts(observed: Observed) -> ClockFacts | None:
    """What tells the time, certificates of peers that have an IKE_SA included.

    Where the clock was set back, one of them may begin later than it says; none else is looked at.
    """
    facts, charon = observed.clock, observed.charon
    if facts is None or charon is None:
        return facts
    starts = [(one.name, one.facts.not_before.timestamp()) for one in charon.certificates]
    later = [(name, start) for name, start in starts if start > observed.time]
    names = {name_of(sa.remote_id) for sa in charon.sas if sa.age} if later else set()
    return replace(facts, shown=max((s for name, s in later if name in names), default=None))


def _same(facts: CertificateFacts) -> object:
    """What two readings of one certificate have in common: names can be written in many ways."""
    return facts.serial, facts.not_before, facts.not_after
