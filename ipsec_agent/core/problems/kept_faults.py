"""What is known of peers outlives the agent: when it is written down, and taken up by the next.

Their times are those of the clock: a monotonic one begins at 0 with each boot. Where the clock is
set back, what it told before moves with it: a fault of tomorrow would have no success after it.
"""

import math
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple, replace

from ipsec_agent.core.problems.optional import ClearTalk
from ipsec_agent.core.problems.optional import resumed as talks_resumed
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Memory
from ipsec_agent.core.problems.problem import LogLine

EACH = 60.0
"""Seconds between two writings: with a peer that refuses, each attempt changes something."""

KEPT = 1024
"""Peers that are written down; of more, those that failed last."""

HOUR = 3600.0
"""Seconds."""

FIRST = 1.0
"""The least time that is not "never"."""


class Kept(Struct, frozen=True):
    """What outlives the agent.

    Attributes:
        suspects: the peers with which something fails.
        talks: those with which packets pass in clear while IPsec is optional.
        left_out: faults that a file had beyond one of each kind and peer.
    """

    suspects: Memory = ()
    talks: tuple[ClearTalk, ...] = ()
    left_out: int = 0


class Written(Struct, frozen=True):
    """What the file says.

    Attributes:
        gist: what of it makes a new writing worth it.
        time: when it was written, or that was tried, seconds since the epoch.
    """

    gist: tuple[Any, ...] = ((), frozenset(), 0.0)
    time: float = -math.inf


def gist(kept: Kept) -> tuple[Any, ...]:
    """What changes only when something is learned; each look at a peer that is gone is nothing.

    When the last clear packet was is learned once an hour.
    """
    talks = kept.talks[:KEPT]
    return (
        tuple((one.peer, one.gone, one.faults) for one in kept.suspects[:KEPT]),
        frozenset((one.address, one.since, one.heard) for one in talks),
        max((one.last for one in talks), default=0.0) // HOUR,
    )


def is_due(kept: Kept, written: Written, now: float) -> bool:
    """Whether it is to be written down.

    Args:
        now: seconds since the epoch. Where the clock was set back, that is no reason to wait.
    """
    return not 0 <= now - written.time < EACH and gist(kept) != written.gist


def resumed(kept: Kept, written: float, now: float) -> Kept:
    """What is known, as the next agent takes it up.

    Nobody has looked for the peers meanwhile, so who is not gone yet has its time from now on.

    Args:
        written: when it was written, by the clock of then.
        now: seconds since the epoch.
    """
    suspects = tuple(
        one if one.gone else replace(one, watched=now)
        for one in turned_back(kept.suspects, now, max(0.0, written - now))
    )
    return replace(kept, suspects=suspects, talks=talks_resumed(kept.talks, now))


def turned_back(memory: Memory, now: float, by: float) -> Memory:
    """The faults after the clock was set back.

    Args:
        now: seconds since the epoch; what was earlier stays as it is.
        by: seconds.
    """
    return tuple(
        replace(
            one,
            faults=tuple(
                Fault(line_turned_back(fault.line, now, by), _earlier(fault.first, now, by))
                for fault in one.faults
            ),
            heard=hearing_turned_back(one.heard, now, by),
            seen=_earlier(one.seen, now, by),
            unanswered=_earlier(one.unanswered, now, by),
            watched=_earlier(one.watched, now, by),
        )
        for one in memory
    )


def line_turned_back(line: LogLine, now: float, by: float) -> LogLine:
    """A line of charon's log likewise."""
    return line if line.time <= now else replace(line, time=_earlier(line.time, now, by))


def hearing_turned_back(told: Hearing, now: float, by: float) -> Hearing:
    """What else the log told of a peer likewise."""
    return Hearing(*(_earlier(time, now, by) for time in astuple(told)))


def _earlier(time: float, now: float, by: float) -> float:
    return time if time <= now else min(max(time - by, FIRST), now)
