"""How charon ended, where nobody of ours ended it: records, and their words."""

import signal
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

WINDOW = 60.0
"""Seconds for which a death counts: what kills again and again does so sooner."""

OFTEN = 3
"""Deaths within that time which are no accident any more."""


class Death(Struct, frozen=True):
    """One death.

    Attributes:
        time: when it was noticed, seconds since the epoch.
        status: exit code, or the negative number of the signal; None where nobody knows it.
    """

    time: float
    status: int | None = None


def recent(deaths: Iterable[Death], now: float) -> tuple[Death, ...]:
    """Those that count, the oldest first."""
    return tuple(one for one in deaths if now - one.time <= WINDOW)


def signal_name(status: int | None) -> str:
    """SIGKILL and so on, "" where no signal ended it."""
    if status is None or status >= 0:
        return ""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def how(status: int | None) -> str:
    """As in "charon was …"."""
    if status is None:
        return "ended by something unknown"
    name = signal_name(status)
    return f"killed by {name}" if name else f"ended by itself with exit code {status}"


def most_common(deaths: Iterable[Death]) -> int | None:
    """How most of them came, of those that somebody knows."""
    known = Counter(one.status for one in deaths if one.status is not None)
    return known.most_common(1)[0][0] if known else None
