"""The faults with peers outlive the agent: when they are written down, and taken up by the next.

Their times are those of the clock: a monotonic one begins at 0 with each boot. Where the clock is
set back, what it told before moves with it: a fault of tomorrow would have no success after it.
"""

import math
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple, replace

from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Memory
from ipsec_agent.core.problems.problem import LogLine

EACH = 60.0
"""Seconds between two writings: with a peer that refuses, each attempt changes something."""

KEPT = 1024
"""Peers that are written down; of more, those that failed last."""

FIRST = 1.0
"""The least time that is not "never"."""


class Written(Struct, frozen=True):
    """What the file says.

    Attributes:
        gist: what of it makes a new writing worth it.
        time: when it was written, or that was tried, seconds since the epoch.
    """

    gist: tuple[Any, ...] = ()
    time: float = -math.inf


def gist(memory: Memory) -> tuple[Any, ...]:
    """What changes only when something is learned; each look at a peer that is gone is nothing."""
    return tuple((one.peer, one.gone, one.faults) for one in memory[:KEPT])


def is_due(memory: Memory, written: Written, now: float) -> bool:
    """Whether the faults are to be written down.

    Args:
        now: seconds since the epoch. Where the clock was set back, that is no reason to wait.
    """
    return not 0 <= now - written.time < EACH and gist(memory) != written.gist


def resumed(memory: Memory, written: float, now: float) -> Memory:
    """The faults as the next agent takes them up.

    Nobody has looked for the peers meanwhile, so who is not gone yet has its time from now on.

    Args:
        written: when they were written, by the clock of then.
        now: seconds since the epoch.
    """
    return tuple(
        one if one.gone else replace(one, watched=now)
        for one in turned_back(memory, now, max(0.0, written - now))
    )


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
