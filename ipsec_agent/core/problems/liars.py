"""Peers that lie, as problems: what they made, and what of it the guard dropped."""

from collections.abc import Iterable

from msgspec import Struct

from ipsec_agent.core.liars import Lie
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.words import several

CODE = "peer-lies"

RECENT = 60
"""Seconds after its last packet for which a tunnel counts as one that is used."""

_HINT = (
    "find out what runs on {peer}: it has the deployment's key and may be compromised; if so,"
    " rotate the certificate. A VPN of your own in tunnel mode works only for addresses that are"
    " not encrypted: list them in no_ipsec_subnets"
)


class Told(Struct, frozen=True):
    """A lie, and when it was found last.

    Attributes:
        at: seconds of the clock of passes.
    """

    lie: Lie
    at: float


Memory = tuple[Told, ...]


def remembered(
    found: Iterable[Lie], table: GuardTable | None, before: Memory, now: float
) -> Memory:
    """The newest lie of each peer, as long as it is recent or the guard's count tells of it.

    A pass may know the lie first and the count from the next reading of the guard only.
    """
    newest = {one.lie.peer: one for one in (*before, *(Told(lie, now) for lie in found))}
    dropped = _dropped(table)
    return tuple(one for peer, one in newest.items() if peer in dropped or now - one.at < RECENT)


def liar_problems(
    found: Iterable[Lie], table: GuardTable | None, before: Memory = ()
) -> tuple[Problem, ...]:
    """One for each peer.

    Args:
        found: what it has made, since the last report.
        table: the guard's.
        before: what is `remembered`.
    """
    dropped = _dropped(table)
    known = {one.lie.peer: f"{one.lie.peer} made {one.lie.because}" for one in before}
    said: dict[str, str] = {}
    for lie in found:
        ended = "the agent ends it" if lie.ike_sa is not None else "remove it: `ip xfrm policy`"
        said[str(lie.peer)] = f"{lie.peer} made {lie.because}; {ended}"
    for address, packets in dropped.items():
        made = known.get(address, f"an SA with {address} is not between two hosts only")
        why = said.get(str(address), made)
        said[str(address)] = f"{why}; the guard dropped {several(packets, 'packet')} of it"
    return tuple(
        Problem(CODE, Severity.CRITICAL, message, _HINT.format(peer=peer), peer)
        for peer, message in said.items()
    )


def _dropped(table: GuardTable | None) -> dict[Address, int]:
    """Packets that the guard has dropped, of each peer with which that is recent."""
    counted = table.tunnelled if table else ()
    return {peer.address: peer.packets for peer in counted if peer.idle < RECENT}
