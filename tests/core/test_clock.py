"""A clock that is clearly wrong, by what else tells the time; each border."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.clock import ClockFacts, doubt, worth_saving
from tests.vm import NOW

DAY, HOUR = 86_400.0, 3600.0
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (ClockFacts(), ""),
        # The agent's own files.
        (ClockFacts(built=NOW - YEAR), ""),
        (ClockFacts(built=NOW + DAY), ""),
        (ClockFacts(built=NOW + DAY + 1), "the agent's own files are of 2027-01-16 08:00 UTC"),
        # The hardware clock, which may be on local time.
        (ClockFacts(rtc=NOW - 26 * HOUR), ""),
        (ClockFacts(rtc=NOW + 26 * HOUR), ""),
        (ClockFacts(rtc=NOW - 26 * HOUR - 1), "the RTC says 2027-01-14 05:59 UTC"),
        (ClockFacts(rtc=NOW + YEAR), "the RTC says 2028-01-15 08:00 UTC"),
        # Its battery is empty.
        (ClockFacts(built=NOW - YEAR, rtc=1000.0), ""),
        # What was saved.
        (ClockFacts(saved=NOW - YEAR), ""),
        (ClockFacts(saved=NOW + DAY), ""),
        (
            ClockFacts(saved=NOW + DAY + 1),
            "the agent saved a later time, 2027-01-16 08:00 UTC",
        ),
        (
            ClockFacts(saved=NOW - YEAR - 1),
            "the agent last saved the time more than a year before that, on 2026-01-15 07:59 UTC",
        ),
        # Set back while this agent runs: then it was wrong before.
        (ClockFacts(saved=NOW + YEAR, ours=True), ""),
        # The certificates.
        (ClockFacts(begins=NOW + DAY), ""),
        (
            ClockFacts(begins=NOW + DAY + 1),
            "a certificate of the config begins on 2027-01-16 08:00 UTC",
        ),
        (ClockFacts(shown=NOW + DAY), ""),
        (
            ClockFacts(shown=NOW + DAY + 1, begins=NOW + YEAR),
            "a certificate that a peer has shown begins on 2027-01-16 08:00 UTC",
        ),
        # An RTC that agrees outweighs only that a VM was off for long.
        (ClockFacts(rtc=NOW, saved=NOW - 2 * YEAR), ""),
        (ClockFacts(rtc=NOW, saved=NOW - 2 * YEAR, ends=NOW), ""),
    ],
)
def test_witnesses(facts: ClockFacts, said: str) -> None:
    """Each says his time beside the clock's."""
    assert doubt(NOW, facts) == (f"the clock says 2027-01-15 08:00 UTC; {said}" if said else "")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (ClockFacts(built=NOW + 2 * DAY), "the agent's own files are of 2027-01-17"),
        (ClockFacts(saved=NOW + 2 * DAY), "the agent saved a later time, 2027-01-17"),
        (ClockFacts(shown=NOW + 2 * DAY), "a certificate that a peer has shown begins on 2027"),
        (ClockFacts(begins=NOW + 2 * DAY), "a certificate of the config begins on 2027-01-17"),
        (
            ClockFacts(saved=NOW - 2 * YEAR, ends=NOW - 1),
            "the agent last saved the time more than a year before that, on 2025-01-15",
        ),
    ],
)
def test_an_rtc_that_agrees_silences_nobody(facts: ClockFacts, said: str) -> None:
    """A VM has both clocks from its host, which may be wrong."""
    host = replace(facts, rtc=NOW - HOUR)
    # One that is before the agent's own files is no witness at all.
    agrees = ", and so does the RTC, which a VM has from its host" if host.ticks else ""

    assert doubt(NOW, host).startswith(f"the clock says 2027-01-15 08:00 UTC{agrees}; {said}")
    assert bool(agrees) is (facts.built is None)
    assert doubt(NOW, facts).startswith(f"the clock says 2027-01-15 08:00 UTC; {said}")
    assert not worth_saving(NOW, host)


FAR = st.floats(-1e18, 1e18) | st.sampled_from((253402300799.0, 253402300800.0))


@given(FAR, FAR, FAR)
def test_any_time(now: float, built: float, begins: float) -> None:
    """A file may be of any time (`touch -d @999999999999`): doubted, and no calendar is needed."""
    said = doubt(now, ClockFacts(built=built, begins=begins))

    assert bool(said) is (now < built - DAY or now < begins - DAY)


def test_a_time_that_no_calendar_has() -> None:
    """It is said as that."""
    far = 999_999_999_999.0

    assert doubt(NOW, ClockFacts(built=far)).endswith("files are of a time after the year 9999")
    assert doubt(far, ClockFacts(built=far + YEAR)).startswith("the clock says a time after the")


def test_nothing_known() -> None:
    """Where nothing was asked, nothing is doubted, nor saved."""
    assert doubt(NOW, None) == ""
    assert not worth_saving(NOW, None)


@pytest.mark.parametrize(
    ("facts", "saves"),
    [
        (ClockFacts(), True),
        (ClockFacts(saved=NOW - DAY + 1), False),
        (ClockFacts(saved=NOW - DAY), True),
        # A wrong time is not written down, and cannot be taken for a witness later.
        (ClockFacts(saved=NOW - 2 * YEAR), False),
        (ClockFacts(rtc=NOW - YEAR), False),
        (ClockFacts(saved=NOW + YEAR), False),
        # What was written down wrong is corrected.
        (ClockFacts(saved=NOW + YEAR, ours=True), True),
        # Which of the two was wrong is not known.
        (ClockFacts(saved=NOW + YEAR, rtc=NOW), False),
        (ClockFacts(saved=NOW + YEAR, rtc=NOW, ours=True), True),
        (ClockFacts(saved=NOW + YEAR, ours=True, shown=NOW + 2 * DAY), False),
    ],
)
def test_saved_once_a_day(facts: ClockFacts, saves: bool) -> None:
    """Seldom, and only a time that nobody contradicts."""
    assert worth_saving(NOW, facts) is saves
