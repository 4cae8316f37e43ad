"""Whether this VM's clock is clearly wrong, by what else tells the time.

No protection depends on it: with a wrong clock charon refuses certificates that hold, and an
operator would be sent to the CA for nothing. The hardware clock of a VM is its host's, as the
clock is after a boot: that both agree outweighs only that a VM was off for long.
"""

from collections.abc import Iterator

from msgspec import Struct

from ipsec_agent.core.words import moment

DAY = 86_400.0
"""Seconds. Also how often the time is saved."""

LATEST = 1e11
"""Seconds since the epoch of the latest time that is taken for one: in 3,000 years."""

RTC_MAY_DIFFER = 26 * 3600.0
"""Seconds by which the hardware clock may differ: it may be on local time."""

LONGEST_OFF = 365 * DAY
"""Seconds after which a VM that was off is less likely than a clock that is ahead."""


class ClockFacts(Struct, frozen=True):
    """What tells the time beside the clock; in seconds since the epoch, None where it is not known.

    Attributes:
        built: when the agent's own files were written on this machine.
        rtc: of the hardware clock.
        saved: when the agent last saved the time.
        ours: it has done so since its start.
        begins: when the last certificate of the config does.
        ends: when the first one of them does.
        shown: when the last certificate begins that a peer has proved itself with.
    """

    built: float | None = None
    rtc: float | None = None
    saved: float | None = None
    ours: bool = False
    begins: float | None = None
    ends: float | None = None
    shown: float | None = None

    @property
    def ticks(self) -> bool:
        """Whether the hardware clock tells the time.

        One whose battery is empty begins at some time long ago.
        """
        return self.rtc is not None and (self.built is None or self.rtc >= self.built - DAY)


def doubt(now: float, facts: ClockFacts | None) -> str:
    """Why the clock is clearly wrong, as a clause; "" where it is not.

    Args:
        now: what the clock says.
        facts: None where nothing is known.
    """
    against = next(_witnesses(now, facts), None) if facts is not None else None
    if facts is None or against is None:
        return ""
    who, says = against
    agrees = ", and so does the RTC, which a VM has from its host" if _agrees(now, facts) else ""
    return f"the clock says {moment(now)}{agrees}; {who} {moment(says)}"


def worth_saving(now: float, facts: ClockFacts | None) -> bool:
    """Whether the time is to be saved: seldom, and never one that is in doubt."""
    if facts is None:
        return False
    late = facts.saved is None or abs(now - facts.saved) >= DAY
    return late and not doubt(now, facts)


def _agrees(now: float, facts: ClockFacts) -> bool:
    return facts.rtc is not None and facts.ticks and abs(now - facts.rtc) <= RTC_MAY_DIFFER


def _witnesses(now: float, facts: ClockFacts) -> Iterator[tuple[str, float]]:
    """Who contradicts the clock, the most trustworthy first, and the time that he says."""
    built, rtc, saved = facts.built, facts.rtc, facts.saved
    if built is not None and now < built - DAY:
        yield "the agent's own files are of", built
    if rtc is not None and facts.ticks and not _agrees(now, facts):
        yield "the RTC says", rtc
    if facts.shown is not None and now < facts.shown - DAY:
        yield "a certificate that a peer has shown begins on", facts.shown
    if saved is not None:
        # Where it was set back while this agent runs, what it saved before was the wrong one.
        if now < saved - DAY and not facts.ours:
            yield "the agent saved a later time,", saved
        # With an RTC that agrees this is a doubt only where a certificate does not hold.
        over = facts.ends is not None and now > facts.ends
        if now > saved + LONGEST_OFF and (over or not _agrees(now, facts)):
            yield "the agent last saved the time more than a year before that, on", saved
    if facts.begins is not None and now < facts.begins - DAY:
        yield "a certificate of the config begins on", facts.begins
