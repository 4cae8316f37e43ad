"""Faults with peers that another agent takes up: nothing heals by it, and nothing is eternal."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.health import Memory
from ipsec_agent.core.problems.kept_faults import (
    EACH,
    Kept,
    Written,
    gist,
    is_due,
    resumed,
    turned_back,
)
from ipsec_agent.core.problems.peer_faults import (
    FAREWELL,
    FORGOTTEN_AFTER,
    GONE_AFTER,
    OLDEST,
    Fault,
    Hearing,
    Suspect,
)
from ipsec_agent.core.problems.problem import LogLine, Severity
from tests.core.problems.test_peer_faults import (
    DAY,
    REFUSED,
    SAID,
    SILENT,
    P,
    Watch,
    line,
    nobody,
    with_others,
)
from tests.vm import NOW


def next_agent(watch: Watch, after: float, written: float) -> Watch:
    """The agent that starts so many seconds after NOW; the file was written so many after it."""
    suspects = resumed(Kept(watch.suspects), NOW + written, NOW + after).suspects
    later = Watch(watch.vm)
    later.memory = Memory(suspects=suspects)
    later.heard = {one.peer: one.heard for one in suspects}
    return later


def refused_at(after: float) -> Watch:
    """An agent with which a peer has failed."""
    watch = Watch(with_others())
    watch.at(after + 1, line(REFUSED, after))
    return watch


def test_a_refusal_outlives_the_agent() -> None:
    """It says since when nobody has tried, and a handshake ends it as ever."""
    later = next_agent(refused_at(0), 3600, 1)

    assert later.at(3601) == [(REFUSED, Severity.WARNING)]
    assert later.problems[0].message == (
        f"{P} {SAID} (charon: it failed); last seen at 2027-01-15 08:00:00 UTC, and no attempt"
        " since"
    )
    later.tell(succeeded=3610)
    assert later.at(3611) == []


def test_nobody_was_looked_for_meanwhile() -> None:
    """A peer that does not answer once after a long night is not gone: all may just come up."""
    later = next_agent(refused_at(0), DAY / 2, 1)

    for after in (1, GONE_AFTER - 1):
        shown = later.at(DAY / 2 + after, vm=nobody(later.vm))
        assert shown == [(REFUSED, Severity.WARNING)]
    assert later.at(DAY / 2 + GONE_AFTER, vm=nobody(later.vm)) == [("peer-gone", Severity.INFO)]


def test_a_scale_in_is_forgotten_after_a_day() -> None:
    """However often the agent starts meanwhile, and also where it does so on the day after."""
    watch = refused_at(0)
    watch.at(GONE_AFTER, vm=nobody(watch.vm))
    (gone,) = {one.gone for one in watch.suspects}

    for after in (GONE_AFTER + 9, 7200.0, FORGOTTEN_AFTER - 9):
        watch = next_agent(watch, after, after - 5)
        assert watch.at(after, vm=nobody(watch.vm)) == [("peer-gone", Severity.INFO)]
        assert {one.gone for one in watch.suspects} == {gone}
    watch = next_agent(watch, FORGOTTEN_AFTER + 9, FORGOTTEN_AFTER - 5)
    assert watch.at(FORGOTTEN_AFTER + 9, vm=nobody(watch.vm)) == []
    assert watch.suspects == ()


def test_a_clock_that_went_ahead_leaves_no_eternal_fault() -> None:
    """What was written down in the future is over with the next success, as anything else is."""
    year = 365 * DAY
    later = next_agent(refused_at(year), 100, year + 50)

    assert later.at(101) == [(REFUSED, Severity.WARNING)]
    later.tell(succeeded=200)
    assert later.at(201) == []


def test_a_farewell_of_the_future() -> None:
    """A peer that had come back by the time of the file does not look gone by a clock set back."""
    year = 365 * DAY
    watch = Watch(with_others())
    watch.tell(farewell=year, answered=year + FAREWELL + 8)
    assert watch.at(year + 20, line(REFUSED, year + 9)) == [(REFUSED, Severity.WARNING)]

    later = next_agent(watch, 100, year + 30)

    assert later.at(101) == [(REFUSED, Severity.WARNING)]


def test_a_month_is_the_most() -> None:
    """Of what nobody has tried for so long nothing is known."""
    watch = refused_at(0)
    assert watch.at(OLDEST - 1) == [(REFUSED, Severity.WARNING)]
    assert watch.at(OLDEST) == []


def test_what_makes_a_writing_worth_it() -> None:
    """What is learned; neither a look at a peer nor its silence, which a file need not know."""
    (one,) = refused_at(0).suspects
    written = Written(gist(Kept((one,))), NOW)
    now = NOW + EACH

    seen = replace(one, seen=NOW + 1, heard=Hearing(answered=NOW + 1), unanswered=NOW + 2)
    assert not is_due(Kept((seen,)), written, now)
    again = Fault(replace(one.faults[0].line, time=NOW + 9), NOW)
    for news in (
        (),
        (replace(one, faults=(again,)),),
        (replace(one, unanswered=NOW + 2 * GONE_AFTER),),
        (replace(one, heard=Hearing(farewell=NOW + 1)),),
    ):
        assert is_due(Kept(news), written, now)
        assert not is_due(Kept(news), written, now - 1)
        # The clock was set back.
        assert is_due(Kept(news), written, NOW - 1)
    assert is_due(Kept((one,)), Written(), NOW)


TIMES = st.one_of(st.just(0.0), st.floats(NOW - 1e6, NOW + 1e9))


@given(
    one=st.builds(
        Suspect,
        st.just(P),
        st.lists(
            st.builds(
                Fault,
                st.builds(
                    LogLine,
                    st.sampled_from([REFUSED, SILENT]),
                    st.just("it failed"),
                    st.just(P),
                    st.just("look"),
                    TIMES,
                ),
                TIMES,
            ),
            min_size=1,
            max_size=2,
        ).map(tuple),
        st.builds(Hearing, TIMES, TIMES, TIMES),
        TIMES,
        TIMES,
    ),
    by=st.floats(0, 2e9),
)
@settings(deadline=None)
def test_nothing_lies_in_the_future(one: Suspect, by: float) -> None:
    """Whatever the clock was and is; and what never was remains so."""

    def times(of: Suspect) -> list[float]:
        heard = (of.heard.answered, of.heard.farewell, of.heard.succeeded)
        lines = (time for fault in of.faults for time in (fault.line.time, fault.first))
        return [*heard, of.seen, of.unanswered, of.watched, *lines]

    (after,) = turned_back((one,), NOW, by)

    for before, time in zip(times(one), times(after), strict=True):
        assert math.isclose(time, before) if before <= NOW else 0 < time <= NOW
        assert (time == 0) == (before == 0)
