"""What has happened to this VM's IPsec: told from two looks, and from what was done between them.

Few events are kept. One that comes again and again is one entry with a number; of many peers at
once only some are named; and where there are too many, those of the commonest kind give way.
"""

import enum
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address, CredentialSet, address_order
from ipsec_agent.core.problems.problem import Problem, listed
from ipsec_agent.core.rotation import in_force
from ipsec_agent.core.terse import Terse
from ipsec_agent.core.traffic import Peer
from ipsec_agent.core.words import dated

MOST = 50
"""Events that are kept."""

FOLDED_FOR = 3600.0
"""Seconds from one event to the next of its kind and subject, within which both are one entry."""

BURST = 5
"""Events of a kind in one look that are told one by one; more are one event."""

STEPS_TOLD = 3
LONGEST = 500
"""Characters of an event's text."""

ROUTINE = ("poke ", "remember ", "renew ", "save the time", "terminate ", "delete the orphan ")
"""What the lines of steps begin with that repair nothing."""


class EventKind(enum.StrEnum):
    """What kind of event it is."""

    START = "start"
    RELOAD = "reload"
    REFUSED = "reload-refused"
    ROTATION = "rotation"
    REPAIR = "repair"
    PROBLEM = "problem"
    SOLVED = "solved"
    LOST = "peer-lost"
    UP = "peer-up"


class Event(Struct, frozen=True):
    """Something that happened. Times are seconds since the epoch.

    Attributes:
        subject: what it is about; the same event of the same subject may be folded.
        time: when it happened last.
        since: when it happened first.
        count: how often it happened from then on.
        peer: address of the peer that it is about, "" where it is about none, or about many.
    """

    kind: EventKind
    text: str
    subject: str
    time: float
    since: float
    count: int = 1
    peer: str = ""


class Seen(Terse, frozen=True):
    """What of a look is compared with the next one.

    Attributes:
        peers: those with SAs, None where that is not known.
        certificate: what is in force, None where nothing is.
        refused: why the newest reload was refused, "" where it was not.
        done: the lines of the steps that were performed.
    """

    unshown = ("config",)

    config: Config
    time: float
    problems: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    peers: frozenset[Address] | None = None
    certificate: CredentialSet | None = None
    refused: str = ""
    done: tuple[str, ...] = ()


class History(Struct, frozen=True):
    """What is remembered from look to look.

    Attributes:
        events: the oldest first.
        before: the look before, None at first.
    """

    events: tuple[Event, ...] = ()
    before: Seen | None = None


def seen(
    config: Config,
    drift: Drift,
    problems: Iterable[Problem],
    traffic: Iterable[Peer],
    *,
    refused: str,
    done: tuple[str, ...],
) -> Seen:
    """What is to be compared of a look."""
    observed = drift.observed
    known = "states" not in dict(observed.unreadable)
    return Seen(
        config,
        observed.time,
        {(one.code, one.subject): one for one in problems},
        frozenset(one.address for one in traffic if one.there == observed.time) if known else None,
        in_force(drift.desired),
        refused,
        done,
    )


def followed(history: History, now: Seen) -> History:
    """The history after a look."""
    found = [*history.events]
    if any(one.time > now.time for one in found):
        # The clock was set back.
        found = [
            replace(one, time=min(one.time, now.time), since=min(one.since, now.time))
            for one in found
        ]
    new = news(history, now)
    if new:
        found = _with(found, new)
    # What the look before did not know is not news in the next one, either.
    peers = now.peers if now.peers is not None or history.before is None else history.before.peers
    return History(tuple(_few(found) if new else found), replace(now, peers=peers))


def news(history: History, now: Seen) -> tuple[Event, ...]:
    """What has happened since the look before."""
    before = history.before
    if before is None:
        open_then = _open(history.events)
        old = {key: one for key, one in now.problems.items() if _subject(key) in open_then}
        found = [_event(now, EventKind.START, "the agent has started", ""), *_complaint(None, now)]
        return (*found, *_problems(now, old, now.problems))
    return (
        *_settings(before, now),
        *_problems(now, before.problems, now.problems),
        *_peers(now, before.peers, now.peers),
    )


def _event(now: Seen, kind: EventKind, text: str, subject: str, peer: str = "") -> Event:
    return Event(kind, text[:LONGEST], subject[:LONGEST], now.time, now.time, peer=peer)


def _complaint(before: Seen | None, now: Seen) -> Iterable[Event]:
    if now.refused and (before is None or now.refused != before.refused):
        yield _event(now, EventKind.REFUSED, f"a reload was refused: {now.refused}", now.refused)


def _settings(before: Seen, now: Seen) -> Iterable[Event]:
    """What an operator did, and what the agent did."""
    yield from _complaint(before, now)
    steps = tuple(one for one in now.done if not one.startswith(ROUTINE))
    if now.config is not before.config:
        did = f": {listed(steps, STEPS_TOLD)}" if steps else "; nothing was to do"
        yield _event(now, EventKind.RELOAD, f"the config was reloaded{did}", "")
    elif steps:
        # Numbers of processes and SAs are others each time.
        subject = re.sub(r"\d+", "", steps[0])
        yield _event(now, EventKind.REPAIR, f"repaired: {listed(steps, STEPS_TOLD)}", subject)
    was, used = before.certificate, now.certificate
    if was and used and was.mark != used.mark:
        same = (was.certificate, was.expires) == (used.certificate, used.expires)
        what = "another set of CAs" if same else dated(used.subject, used.expires)
        yield _event(now, EventKind.ROTATION, f"in force from now on: {what}", used.mark)


Keyed = Mapping[tuple[str, str], Problem]


def _problems(now: Seen, before: Keyed, after: Keyed) -> Iterable[Event]:
    """Problems that have come, and that are gone."""
    for kind, here, there in (
        (EventKind.PROBLEM, after, before),
        (EventKind.SOLVED, before, after),
    ):
        by_code: dict[str, list[Problem]] = {}
        for key, one in here.items():
            if key not in there:
                by_code.setdefault(one.code, []).append(one)
        gone = " is over" if kind is EventKind.SOLVED else ""
        for code, found in by_code.items():
            if len(found) > BURST:
                named = listed(sorted(one.subject for one in found))
                yield _event(now, kind, f"{code}{gone}, {len(found)} of them: {named}", code)
                continue
            for one in found:
                subject, said = _subject((code, one.subject)), f"{code}{gone}: {one.message}"
                yield _event(now, kind, said, subject, one.subject if _is_address(one) else "")


def _subject(key: tuple[str, str]) -> str:
    return " ".join(key)[:LONGEST]


def _is_address(problem: Problem) -> bool:
    return re.fullmatch(r"[0-9a-f]*[.:][0-9a-f.:]+", problem.subject) is not None


Peers = frozenset[Address] | None


def _peers(now: Seen, before: Peers, after: Peers) -> Iterable[Event]:
    """Peers whose last SA has ended, and those with a first one."""
    if before is None or after is None or before == after:
        return
    for kind, some, said in (
        (EventKind.LOST, before - after, "no SA any more with"),
        (EventKind.UP, after - before, "SAs with"),
    ):
        peers = sorted(some, key=address_order)
        if len(peers) > BURST:
            yield _event(now, kind, f"{said} {len(peers)} peers: {listed(peers)}", "many")
            continue
        for peer in map(str, peers):
            yield _event(now, kind, f"{said} {peer}", peer, peer)


def _open(events: Iterable[Event]) -> set[str]:
    """The problems that came and did not go, as far as the events tell."""
    found: dict[str, EventKind] = {
        one.subject: one.kind for one in events if one.kind in {EventKind.PROBLEM, EventKind.SOLVED}
    }
    return {subject for subject, kind in found.items() if kind is EventKind.PROBLEM}


def _with(events: Iterable[Event], new: Iterable[Event]) -> list[Event]:
    """The events and new ones; where the same came shortly before, both are one, as the newest."""
    found = dict(enumerate(events))
    newest = {(one.kind, one.subject): number for number, one in found.items()}
    for number, one in enumerate(new, start=len(found)):
        key = one.kind, one.subject
        before = found.get(newest.get(key, -1))
        if before and one.kind is not EventKind.RELOAD and one.time - before.time <= FOLDED_FOR:
            del found[newest[key]]
            one = replace(one, since=before.since, count=before.count + 1)  # noqa: PLW2901
        found[number] = one
        newest[key] = number
    return list(found.values())


def _few(events: list[Event]) -> list[Event]:
    """As many as are kept: of the commonest kind, the oldest goes first."""
    if len(events) <= MOST:
        return events
    kept = Counter(one.kind for one in events)
    going: Counter[EventKind] = Counter()
    for _ in range(len(events) - MOST):
        commonest = max(kept, key=lambda kind: kept[kind])
        kept[commonest] -= 1
        going[commonest] += 1
    found = []
    for one in events:
        if going[one.kind]:
            going[one.kind] -= 1
        else:
            found.append(one)
    return found
