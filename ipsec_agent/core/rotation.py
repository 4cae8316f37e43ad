"""Another certificate, or another set of CAs, in force: which SAs are moved to it, when and how.

charon never authenticates an IKE_SA again, so that every SA would stay with what it was made with.
Each peer gets a second IKE_SA with the certificate in force beside the first one, which carries the
traffic until the new SA is there (handover.py). Then the VM that asked for the new one ends the old
one, which it makes no use of any more; where the peer knows no handover, it ends as a duplicate
does (duplicates.py). Both VMs may have made a new one at once. A peer that refuses keeps the old
SA; that of a CA that is not trusted any more ends after a while.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from ipsec_agent.core import pacing
from ipsec_agent.core.credential_set import RENEWAL, set_of
from ipsec_agent.core.derived import derived
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.duplicates import SETTLED
from ipsec_agent.core.handover import level_here, level_there
from ipsec_agent.core.model import (
    Attempt,
    Connection,
    CredentialSet,
    Desired,
    Pair,
    address_order,
)
from ipsec_agent.core.observed import Charon, IkeSa
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.steps import Renew, TerminateChild, TerminateSa

BOUND = 600.0
"""Seconds after which an SA ends that a CA made possible which is not trusted any more."""

RETRY_FIRST, RETRY_MOST = 30.0, 600.0
"""Seconds until a peer that has not taken the new certificate is asked again: doubled each time, up
to the most."""

LEFT_FOR = 60
"""Seconds for which the VM that is to end a duplicate (duplicates.py) is waited for: it may have no
agent, or an older one."""

Levels = tuple[int, int]
"""The highest here, and the lowest there, on which the peer sends (handover.py)."""


class Standing(enum.StrEnum):
    """How an IKE_SA is to what is in force."""

    CURRENT = "current"
    OLD = "old"
    REMOVED = "removed-ca"
    UNKNOWN = "unknown"


class Behind(Struct, frozen=True):
    """A peer whose traffic runs on another certificate, or on a CA that was removed.

    Attributes:
        made_with: the set, None where it is not known.
        ends_in: seconds until the agent ends its SA, None where it does not.
    """

    pair: Pair
    standing: Standing
    made_with: CredentialSet | None
    ends_in: float | None = None


@derived
def in_force(desired: Desired) -> CredentialSet | None:
    """The set with which this VM negotiates; None where it does not."""
    used = (one.settings for one in desired.connections if one.settings is not None)
    settings = next(used, None)
    return None if settings is None else set_of(settings)


def standing(sa: IkeSa, wanted: CredentialSet, sets: Iterable[CredentialSet]) -> Standing:
    """How an IKE_SA is to the set that is in force."""
    if sa.made_with == wanted.mark:
        return Standing.CURRENT
    made = next((one for one in sets if one.mark and one.mark == sa.made_with), None)
    if made is None:
        return Standing.UNKNOWN
    if set(made.authorities) - set(wanted.authorities):
        return Standing.REMOVED
    return Standing.CURRENT if made.certificate == wanted.certificate else Standing.OLD


class _Pairs(Struct, frozen=True):
    """The peers with SAs that carry traffic.

    Attributes:
        count: how many there are.
        behind: those of which no SA is of the set in force.
        busy: pairs with which a negotiation is under way.
        replaced: pairs whose SA of the set in force is so old that no other is needed.
        in_use: charon's numbers of the IKE_SAs of the set in force.
        bare: pairs with an IKE_SA of ours in which the peer has refused the handover.
        levels: of each pair.
        handed: pairs whose SA of the set in force came by a handover.
        ended_here: those of them of which this VM ends the older SAs now.
        left: seconds until SAs of a set end, by its mark; None where they do not.
        judged: that has been loaded.
    """

    count: int = 0
    behind: tuple[Behind, ...] = ()
    busy: frozenset[Pair] = frozenset()
    replaced: frozenset[Pair] = frozenset()
    in_use: frozenset[int] = frozenset()
    bare: frozenset[Pair] = frozenset()
    levels: Mapping[Pair, Levels] = {}
    handed: frozenset[Pair] = frozenset()
    ended_here: frozenset[Pair] = frozenset()
    left: Mapping[str, float | None] = {}
    judged: bool = False


@derived
def _pairs(drift: Drift) -> _Pairs:
    charon, wanted = drift.observed.charon, in_force(drift.desired)
    # An agent that has just taken over knows what is loaded only, and compares it with nothing.
    if charon is None or wanted is None or not charon.sets or charon.sets[-1].mark != wanted.mark:
        return _Pairs()
    best: dict[Pair, IkeSa] = {}
    busy: set[Pair] = set()
    bare: set[Pair] = set()
    current: dict[Pair, list[IkeSa]] = {}
    for sa in charon.sas:
        pair = sa.local, sa.remote
        if not _ages((sa,)):
            if _refused(sa, wanted):
                bare.add(pair)
            elif sa.state == "CONNECTING" or (sa.made_with == wanted.mark and sa.age < RETRY_FIRST):
                busy.add(pair)
        elif standing(sa, wanted, charon.sets) is Standing.CURRENT:
            current.setdefault(pair, []).append(sa)
        elif pair not in best or sa.age < best[pair].age:
            best[pair] = sa
    left = _lefts(wanted, charon, drift.observed.time)
    found = (
        _behind(pair, sa, wanted, charon, left) for pair, sa in best.items() if pair not in current
    )
    return _Pairs(
        len(best.keys() | current.keys()),
        tuple(sorted(found, key=_first)),
        frozenset(busy),
        frozenset(pair for pair in best if _left_behind(current.get(pair, ()))),
        in_use=frozenset(sa.unique_id for sas in current.values() for sa in sas),
        bare=frozenset(bare),
        levels=_levels(charon.sas),
        handed=frozenset(pair for pair, sas in current.items() if _handed(sas)),
        ended_here=frozenset(pair for pair, sas in current.items() if _asked_for(sas)),
        left=left,
        judged=True,
    )


def _ages(sas: Iterable[IkeSa]) -> list[int]:
    return [child.age for sa in sas for child in sa.children if child.state == "INSTALLED"]


def _left_behind(sas: Iterable[IkeSa]) -> bool:
    """Whether these are so old that the peer will not end what they have replaced.

    An agent that has asked for a handover may come back, and only it loses nothing in ending it.
    """
    ages = _ages(sas)
    return bool(ages) and max(ages) >= (BOUND if _handed(sas) else LEFT_FOR)


def _refused(sa: IkeSa, wanted: CredentialSet) -> bool:
    """Whether the peer took the certificate and refused the child that this VM asked for."""
    established = sa.state == "ESTABLISHED" and not sa.children
    begun = sa.initiator and sa.name.startswith(RENEWAL)
    return established and begun and sa.made_with == wanted.mark


def _levels(sas: Iterable[IkeSa]) -> dict[Pair, Levels]:
    found: dict[Pair, Levels] = {}
    for sa in sas:
        for child in sa.children:
            if child.state == "INSTALLED":
                pair, levels = (
                    (sa.local, sa.remote),
                    (level_here(child.name), level_there(child.name)),
                )
                here, there = found.get(pair, levels)
                found[pair] = max(here, levels[0]), min(there, levels[1])
    return found


def _handed(sas: Iterable[IkeSa]) -> bool:
    """Whether one of these came by a handover."""
    names = (child.name for sa in sas for child in sa.children)
    return any(level_here(name) or level_there(name) for name in names)


def _asked_for(sas: Iterable[IkeSa]) -> bool:
    """Whether one of these was asked for by this VM, which sends on it since then."""
    return any(
        level_there(child.name) and child.state == "INSTALLED" and child.age >= SETTLED
        for sa in sas
        for child in sa.children
    )


def _first(one: Behind) -> tuple[bool, tuple[int, int], int]:
    own, peer = one.pair
    return one.standing is not Standing.REMOVED, address_order(peer), int(own)


def _behind(
    pair: Pair, sa: IkeSa, wanted: CredentialSet, charon: Charon, left: Mapping[str, float | None]
) -> Behind:
    made = next((one for one in charon.sets if one.mark and one.mark == sa.made_with), None)
    ends_in = left.get(sa.made_with, left[""])
    return Behind(pair, standing(sa, wanted, charon.sets), made, ends_in)


def _lefts(wanted: CredentialSet, charon: Charon, now: float) -> dict[str, float | None]:
    """Until SAs of each set end. Where it is not known, any CA may be meant that was removed since
    charon's start.
    """
    known = {one.mark: one.authorities for one in charon.sets if one.mark}
    known[""] = tuple(ca for one in charon.sets for ca in one.authorities)
    return {
        mark: _left(frozenset(trusted) - frozenset(wanted.authorities), charon, now)
        for mark, trusted in known.items()
    }


def _left(gone: frozenset[str], charon: Charon, now: float) -> float | None:
    """They count from when the last of these CAs was removed, whatever has changed since then."""
    if not gone:
        return None
    since = charon.sets[-1].since
    for one in reversed(charon.sets):
        if gone & set(one.authorities):
            break
        since = one.since
    return min(max(since + BOUND - now, 0.0), BOUND)


def behind(drift: Drift) -> tuple[Behind, ...]:
    """The peers that are behind, those of a removed CA first."""
    return _pairs(drift).behind


def in_use(drift: Drift) -> frozenset[int]:
    """charon's numbers of the IKE_SAs that carry traffic and are of the set in force."""
    return _pairs(drift).in_use


def peers_with_sas(drift: Drift) -> int:
    """How many peers have SAs that carry traffic, and are judged."""
    return _pairs(drift).count


def moves(drift: Drift) -> tuple[Renew, ...]:
    """The peers that get an SA of the set in force now."""
    charon = drift.observed.charon
    found = _pairs(drift)
    if charon is None or not found.behind:
        return ()
    made = dict(_movable(drift, found))
    asked = {pair for pair, one in made.items() if _waiting(pair, one, drift)}
    resting = {pair for pair in made if _rests(made[pair], charon.attempts, drift)}
    busy = sum(one.name in charon.renewing for one in made.values())
    now = pacing.gently(
        (
            pair
            for pair, one in made.items()
            if pair not in asked | resting | found.busy and one.name not in charon.renewing
        ),
        busy=busy,
        elapsed=drift.observed.time - charon.sets[-1].since,
        first={pair: here > 0 for pair, (here, _) in found.levels.items()},
    )
    by_hand = pacing.in_order(asked - found.busy)[: max(0, pacing.BEGUN_AT_ONCE - busy)]
    return tuple(Renew(made[pair]) for pair in dict.fromkeys((*by_hand, *now)))


def _movable(drift: Drift, found: _Pairs) -> Iterator[tuple[Pair, Connection]]:
    """With the connection of each. What was made before anybody took notes is left alone, unless
    the set has changed since then, or an operator asks.
    """
    charon = drift.observed.charon
    changed = charon is not None and sum(bool(one.mark) for one in charon.sets) > 1
    attempts = charon.attempts if charon is not None else {}
    for one in found.behind:
        _, there = found.levels.get(one.pair, (0, 0))
        level = 0 if one.pair in found.bare else there + 1
        connection = renewal(drift.desired, one.pair, level)
        if connection is not None and (
            changed or one.standing is not Standing.UNKNOWN or connection.name in attempts
        ):
            yield one.pair, connection


def _waiting(pair: Pair, connection: Connection, drift: Drift) -> bool:
    """Whether an operator asks for it, or one attempt went so far that the ordinary child is next,
    which does not rest.
    """
    charon = drift.observed.charon
    attempt = charon.attempts.get(connection.name) if charon is not None else None
    if attempt is None or charon is None or connection.name in charon.renewing:
        return False
    return not attempt.count or (attempt.count == 1 and pair in _pairs(drift).bare)


def _rests(connection: Connection, attempts: Mapping[str, Attempt], drift: Drift) -> bool:
    attempt = attempts.get(connection.name)
    if attempt is None:
        return False
    # Below 0, where the clock was set back, nobody rests.
    return 0 <= drift.observed.time - attempt.at < pause(attempt.count)


def pause(count: int) -> float:
    """Seconds from one attempt to the next, after so many."""
    return min(RETRY_FIRST * 2.0 ** min(max(count - 1, 0), 10), RETRY_MOST)


def moves_wait(drift: Drift) -> bool:
    """Whether a peer has yet to have its turn: the next pass must not be late."""
    charon = drift.observed.charon
    found = _pairs(drift)
    if charon is None or not found.behind:
        return False
    return any(
        one.name not in charon.attempts or _waiting(pair, one, drift)
        for pair, one in _movable(drift, found)
    )


def handed_over(drift: Drift) -> frozenset[int]:
    """charon's numbers of the older IKE_SAs of pairs with a handover, which `endings` ends."""
    found, charon = _pairs(drift), drift.observed.charon
    if charon is None or not found.handed:
        return frozenset()
    older = (sa for sa in charon.sas if sa.unique_id not in found.in_use)
    return frozenset(sa.unique_id for sa in older if (sa.local, sa.remote) in found.handed)


def endings(drift: Drift) -> tuple[TerminateSa | TerminateChild, ...]:
    """What a newer SA has replaced: at once where this VM asked for that one, else where the peer
    has not ended it in a minute; and what a removed CA had made possible, after a while even where
    nothing replaces it.
    """
    charon, wanted = drift.observed.charon, in_force(drift.desired)
    found = _pairs(drift)
    if charon is None or wanted is None or not found.judged:
        return ()
    if not (0.0 in found.left.values() or found.replaced or found.handed):
        return ()
    steps: list[TerminateSa | TerminateChild] = []
    for sa in charon.sas:
        how = standing(sa, wanted, charon.sets)
        if sa.state != "ESTABLISHED":
            continue
        if how is Standing.CURRENT:
            steps += _emptied(sa, found)
        elif found.left.get(sa.made_with, found.left[""]) == 0:
            because = f"it was made with a CA that was removed {BOUND / 60:g} minutes ago"
            steps.append(TerminateSa(sa.unique_id, because))
        else:
            steps += _replaced(sa, found)
    return tuple(steps)


def _emptied(sa: IkeSa, found: _Pairs) -> Iterator[TerminateSa]:
    """An IKE_SA whose CHILD_SA was one too many (duplicates.py), where both VMs had asked."""
    if (sa.local, sa.remote) in found.handed and not sa.children and sa.age >= LEFT_FOR:
        yield TerminateSa(sa.unique_id, f"another one carries the traffic with {sa.remote}")


def _replaced(sa: IkeSa, found: _Pairs) -> Iterator[TerminateSa | TerminateChild]:
    """The CHILD_SA first where it was handed over (handover.py), its IKE_SA a pass later."""
    pair = sa.local, sa.remote
    if pair not in found.replaced | found.ended_here:
        return
    because = f"{sa.remote} has one with the certificate in force"
    if pair in found.handed and sa.children:
        installed = (child for child in sa.children if child.state == "INSTALLED")
        yield from (TerminateChild(child.unique_id, because) for child in installed)
    elif pair in found.handed or sa.children:
        yield TerminateSa(sa.unique_id, because)
