"""What an IKE_SA was made with: this VM's certificate, and the CAs that it trusted then.

charon does not tell it (list-sas has neither), and rekeying never authenticates again, so that an
SA may be of a certificate, or of a CA, that was taken from charon long ago. What can be known is
which certificate a connection was loaded with when an IKE_SA of it appeared. Where nobody looked
then, it is not known, and nothing is guessed.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.derived import derived
from ipsec_agent.core.model import CredentialSet, IkeSettings
from ipsec_agent.core.observed import IkeSa

RENEWAL = "ipsec-renew-"
"""How the names begin of connections with one peer that negotiate a new IKE_SA: the mark of the
set follows, and the peer. An IKE_SA keeps the name for life, so that it tells by itself."""

_NAMED = re.compile(rf"^{RENEWAL}([0-9a-f]{{12}})-")

UNKNOWN = CredentialSet("")
"""Stands first in the history of a charon of which nobody has noted what it had before."""


STEP = 1.0
"""Seconds by which a clock is set at the least; what is less is not told from its drift."""


class Made(Struct, frozen=True):
    """What is noted of an IKE_SA.

    Attributes:
        mark: of the set, "" where it is not known.
        children: charon's numbers of its CHILD_SAs, which a rekeying hands on to the next IKE_SA.
    """

    mark: str
    children: frozenset[int] = frozenset()


Notes = Mapping[int, Made]
"""By charon's number of the IKE_SA."""


@derived
def set_of(settings: IkeSettings) -> CredentialSet:
    """The set that connections with these settings use."""
    certificate = _digest(settings.certificate)
    authorities = tuple(sorted(map(_digest, settings.authorities)))
    mark = _digest(repr((certificate, authorities)).encode())[:12]
    return CredentialSet(mark, certificate, settings.subject, settings.expires, authorities)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def loaded_now(
    history: tuple[CredentialSet, ...], found: CredentialSet, now: float
) -> tuple[CredentialSet, ...]:
    """The sets of a charon, the newest last, once connections are loaded with this one."""
    if history and history[-1].mark == found.mark:
        return history
    others = tuple(one for one in history if one.mark != found.mark)
    return (*others, replace(found, since=now))


def noted(
    before: Notes,
    history: tuple[CredentialSet, ...],
    sas: Iterable[IkeSa],
    loaded: Mapping[str, str],
    earlier: Mapping[str, str] | None,
) -> dict[int, Made]:
    """The notes about these IKE_SAs.

    Args:
        before: those of the last look.
        history: the sets that this charon has had.
        loaded: the mark of each connection's set, by its name.
        earlier: the same at the last look; None where this is the first.
    """
    only = history[0].mark if len(history) == 1 else ""
    heirs = {child: one.mark for one in before.values() for child in one.children}
    found = {}
    for sa in sas:
        children = frozenset(child.unique_id for child in sa.children)
        known = before.get(sa.unique_id)
        if known is None and sa.state == "CONNECTING" and not sa.initiator and not only:
            # Which connection answers is chosen with the last message.
            continue
        mark = known.mark if known else only or _first_seen(sa, heirs, loaded, earlier)
        found[sa.unique_id] = Made(mark, children)
    return found


def _first_seen(
    sa: IkeSa,
    heirs: Mapping[int, str],
    loaded: Mapping[str, str],
    earlier: Mapping[str, str] | None,
) -> str:
    named = _NAMED.match(sa.name)
    if named:
        return named[1]
    inherited = next((heirs[one.unique_id] for one in sa.children if one.unique_id in heirs), None)
    if inherited is not None:
        return inherited
    mark = loaded.get(sa.name, "")
    # Where the connection changed since the last look, it may have been made before or after.
    return mark if earlier is not None and earlier.get(sa.name) == mark else ""


def settled(
    history: tuple[CredentialSet, ...], notes: Notes, loaded: Mapping[str, str]
) -> tuple[CredentialSet, ...]:
    """The history without what no SA and no connection has any more."""
    newest = history[-1:]
    if len(history) < 2 or {*loaded.values()} != {newest[0].mark}:  # noqa: PLR2004
        return history
    return newest if all(one.mark == newest[0].mark for one in notes.values()) else history


def turned(history: tuple[CredentialSet, ...], by: float, now: float) -> tuple[CredentialSet, ...]:
    """The history where the clock was set by so many seconds: what is to end by it ends neither
    earlier nor later. No set has come later than now.
    """
    by = by if abs(by) >= STEP else 0.0
    if not by and all(one.since <= now for one in history):
        return history
    return tuple(
        replace(one, since=min(one.since + by, now)) if one.mark else one for one in history
    )
