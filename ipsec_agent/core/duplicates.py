"""More than one CHILD_SA with one peer, where both VMs began at once: which one ends, and by whom.

The VM with the lower address ends the one that it does not send on: it keeps what it receives on
it until the peer has answered the DELETE, so that no packet is lost on the way (RFC 7296, 1.4.1).
Where both asked for a handover (handover.py), each sends on what it asked for. The one of the lower
level stays, so that the next one has a level left. Who was asked for the other one ends it: the
CHILD_SA, whose DELETE is obeyed before it is answered. rotation.py ends what is left, the IKE_SA.
The peer may have asked since it got another certificate after the first one was made, and then it
ends that one itself (rotation.py). This VM cannot know, and lets it go first: where each ended the
other's, no SA was left, and a second's packets were lost.
"""

from collections.abc import Iterator

from ipsec_agent.core.handover import level_here, level_there
from ipsec_agent.core.observed import Charon, ChildSa, IkeSa, SecurityAssociation
from ipsec_agent.core.steps import TerminateChild, TerminateSa

SETTLED = 15
"""Seconds of age from which a CHILD_SA counts: crossed negotiations and rekeyings are over."""

CROSSED = 60
"""Seconds of age, likewise, where one is of a handover."""

_Made = tuple[IkeSa, ChildSa]
_BOTH = 2

UNKNOWN = (-1, 0, 0, 0)
"""Ranks before any SA of the kernel's."""


def endings(
    charon: Charon,
    states: tuple[SecurityAssociation, ...],
    preferred: frozenset[int] = frozenset(),
) -> tuple[TerminateSa | TerminateChild, ...]:
    """The steps that leave one CHILD_SA with each peer, where ending the others is ours.

    Args:
        charon: what it has; each CHILD_SA is between the two hosts (liars.py).
        states: the kernel's SAs, in the order in which it lists them.
        preferred: charon's numbers of the IKE_SAs of which one is kept, where there is one.
    """
    ranks = {state.spi: _rank(state, place) for place, state in enumerate(states)}
    steps: list[TerminateSa | TerminateChild] = []
    for found in _doubled(charon):
        if (
            len(found) == _BOTH
            and len({level_there(child.name) > 0 for _, child in found}) == _BOTH
        ):
            steps += _crossed(*found)
            continue
        if int(found[0][0].local) > int(found[0][0].remote):
            continue
        keep = max(
            found,
            key=lambda one: (
                one[0].unique_id in preferred,
                -level_here(one[1].name),
                ranks.get(one[1].spi_out, UNKNOWN),
            ),
        )
        steps += [_ending(sa, child) for sa, child in found if child is not keep[1]]
    return tuple(dict.fromkeys(steps))


def _crossed(one: _Made, other: _Made) -> list[TerminateChild]:
    """One of which this VM asked for, and one of which the peer did."""
    ours, theirs = (one, other) if level_there(one[1].name) else (other, one)
    sa, child = theirs
    worse = level_here(child.name), int(sa.remote)
    if worse <= (level_there(ours[1].name), int(sa.local)):
        return []
    return [TerminateChild(child.unique_id, _because(sa))]


def _doubled(charon: Charon) -> Iterator[list[_Made]]:
    by_pair: dict[tuple[int, int, int], list[_Made]] = {}
    for sa in charon.sas:
        pair = sa.local.version, int(sa.local), int(sa.remote)
        for child in sa.children:
            if child.state == "INSTALLED":
                by_pair.setdefault(pair, []).append((sa, child))
    for found in by_pair.values():
        if len(found) > 1 and all(child.age >= _settled(found) for _, child in found):
            yield found


def _settled(found: list[_Made]) -> int:
    handed = any(level_here(child.name) or level_there(child.name) for _, child in found)
    return CROSSED if handed else SETTLED


def _rank(state: SecurityAssociation, place: int) -> tuple[int, int, int, int]:
    """The kernel sends on the newest SA (xfrm_state.c, xfrm_state_find), by its second.

    Of two of one second it sends on the one that now has more packets; before any traffic most
    likely on the one that it lists first. Which number charon gave them tells nothing: it numbers
    a CHILD_SA when its negotiation begins. One that is younger than the last use of the other is
    the next to be used, if there was no traffic since.
    """
    return (max(state.last_used, state.added), state.added, state.packets, -place)


def _ending(sa: IkeSa, child: ChildSa) -> TerminateSa | TerminateChild:
    if len(sa.children) == 1:
        return TerminateSa(sa.unique_id, _because(sa))
    return TerminateChild(child.unique_id, _because(sa))


def _because(sa: IkeSa) -> str:
    return f"another one carries the traffic with {sa.remote}"
