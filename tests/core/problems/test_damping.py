"""Which problems are shown: none that is CRITICAL waits or hides, one that flaps is one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.problems.damping import (
    CAUSES,
    COUNTER,
    PATIENCE,
    Memory,
    damped,
    due,
    patience,
    uncovered,
)
from ipsec_agent.core.problems.problem import Problem, Severity, healthy

IN_CLEAR = (
    "policies-missing",
    "policies-bypassed",
    "guard-missing",
    "guard-altered",
    "guard-lowered",
    "guard-none",
    "clear-received",
    "nat-bypassed",
)
"""What means packets in clear, or that nothing would prevent them."""

CODES = sorted({*PATIENCE, *CAUSES, *(cause for causes in CAUSES.values() for cause in causes)})


def problem(code: str, severity: Severity = Severity.WARNING, subject: str = "") -> Problem:
    """A problem of a code."""
    return Problem(code, severity, f"{code} happens", "mend it", subject)


def played(
    passes: list[tuple[float, tuple[Problem, ...]]],
) -> list[tuple[Problem, ...]]:
    """What is shown at each of some passes, each a time and its problems."""
    memory: Memory = ()
    shown = []
    for now, problems in passes:
        visible, memory = damped(problems, memory, now)
        shown.append(visible)
    return shown


def test_at_once() -> None:
    """A problem without patience is shown in the pass that sees it, and gone in the next."""
    first, second = played([(100, (problem("peer-refuses-us"),)), (101, ())])

    assert first == (replace(problem("peer-refuses-us"), since=100),)
    assert second == ()


@pytest.mark.parametrize(
    ("passes", "seconds"),
    [
        ([(100, ())], math.inf),
        ([(100, (problem("peer-refuses-us"),))], math.inf),
        ([(100, (problem("mtu-too-large"),))], 10),
        ([(100, (problem("mtu-too-large"),)), (107, (problem("mtu-too-large"),))], 3),
        ([(100, (problem("mtu-too-large"),)), (110, (problem("mtu-too-large"),))], math.inf),
        ([(100, (problem("link-down"),)), (101, ())], 4),
        ([(100, (problem("link-down"),)), (106, ())], math.inf),
        ([(100, (problem("mtu-too-large"), problem("link-down"))), (101, ())], 4),
    ],
)
def test_due(passes: list[tuple[float, tuple[Problem, ...]]], seconds: float) -> None:
    """When the next pass shows something else, though nothing has happened."""
    before: tuple[Problem, ...] = ()
    memory: Memory = ()
    for now, problems in passes:
        before, memory = damped(problems, memory, now)
    assert due(memory, now) == seconds
    if seconds < math.inf:
        early, _ = damped(problems, memory, now + seconds - 0.5)
        after, _ = damped(problems, memory, now + seconds)
        assert len(early) == len(before) != len(after)


def test_waits() -> None:
    """A peer that is silent is shown after 30 s, with the time since which it is."""
    silent = (problem("peer-silent"),)

    shown = played([(100, silent), (129, silent), (130, silent)])

    assert [len(visible) for visible in shown] == [0, 0, 1]
    assert shown[2][0].since == 100


def test_patience_of_the_short_lived() -> None:
    """What ends before its time is never shown, and begins anew later."""
    silent = (problem("peer-silent"),)

    shown = played([(100, silent), (120, silent), (121, ()), (122, silent), (140, silent)])

    assert not any(shown)


def test_kept() -> None:
    """A link that flaps faster than 5 s is one problem, shown all the time, since its first."""
    down = (problem("link-down", Severity.ERROR),)

    shown = played([(100, down), (103, ()), (106, down), (109, ()), (115, ())])

    assert [len(visible) for visible in shown] == [1, 1, 1, 1, 0]
    assert {visible[0].since for visible in shown[:4]} == {100}


def test_what_is_gone_does_not_appear() -> None:
    """One that is only kept, and was never shown, stays unseen though its time has come."""
    counter = (problem("xfrm-in-hdr-error"),)

    shown = played([(100, counter), (110, ()), (150, ()), (155, counter)])

    assert [len(visible) for visible in shown] == [0, 0, 0, 1]


def test_grows_worse() -> None:
    """A problem that waits and becomes CRITICAL is shown in that pass."""
    code = "charon-unresponsive"

    shown = played([(100, (problem(code),)), (101, (problem(code, Severity.CRITICAL),))])

    assert [len(visible) for visible in shown] == [0, 1]


def test_grows_better() -> None:
    """One that was CRITICAL stays to be seen when it is only a warning, though that would wait."""
    code = "charon-unresponsive"

    shown = played([(100, (problem(code, Severity.CRITICAL),)), (101, (problem(code),))])

    assert [visible[0].severity for visible in shown] == [Severity.CRITICAL, Severity.WARNING]


def test_clock_set_back() -> None:
    """After the clock was set back by a year a problem is shown after its patience, not a year."""
    silent = (problem("peer-silent"),)

    shown = played([(1e9, silent), (1e9 - 3e7, silent), (1e9 - 3e7 + 31, silent)])

    assert [len(visible) for visible in shown] == [0, 0, 1]


def test_subjects_are_apart() -> None:
    """Two peers of one code are two problems, each with its own time."""
    one, other = (problem("peer-refuses-us", subject=name) for name in ("a", "b"))

    shown = played([(100, (one,)), (105, (one, other))])

    assert [visible.since for visible in shown[1]] == [100, 105]


@pytest.mark.parametrize("code", IN_CLEAR)
def test_clear_is_never_calmed(code: str) -> None:
    """What means packets in clear waits for nothing and hides behind nothing."""
    assert patience(code).after == 0
    assert code not in CAUSES


def test_counters_have_patience() -> None:
    """The kernel's counters are judged over a while, whichever they are."""
    assert patience("xfrm-in-no-states") == patience("xfrm-of-tomorrow") == COUNTER


def test_hidden() -> None:
    """An effect is hidden while its cause is shown, and not a moment longer."""
    down, silent = problem("charon-down", Severity.CRITICAL), problem("peer-silent")

    assert uncovered((silent, down)) == (down,)
    assert uncovered((silent,)) == (silent,)


def test_info_hides_nothing() -> None:
    """A cause that is only INFO leaves the VM healthy, so it hides no warning."""
    cause, effect = problem("certificate-expired", Severity.INFO), problem("peer-refuses-us")

    assert uncovered((cause, effect)) == (cause, effect)


def test_no_circle() -> None:
    """No code is its own cause by whatever way: something always stays to be seen."""

    def causes(code: str, above: tuple[str, ...]) -> None:
        assert code not in above, (*above, code)
        for cause in CAUSES.get(code, ()):
            causes(cause, (*above, code))

    for code in CAUSES:
        causes(code, ())


problems = st.lists(
    st.builds(problem, st.sampled_from([*CODES, *IN_CLEAR]), st.sampled_from(Severity)),
    unique_by=lambda made: made.code,
    max_size=8,
).map(tuple)
passes = st.lists(st.tuples(st.floats(0, 300), problems), max_size=12).map(
    lambda steps: [
        (sum(gap for gap, _ in steps[: n + 1]), seen) for n, (_, seen) in enumerate(steps)
    ]
)


@given(passes)
def test_critical_is_always_shown(steps: list[tuple[float, tuple[Problem, ...]]]) -> None:
    """Whatever was before, a CRITICAL problem is shown in the pass that sees it."""
    for (_, seen), visible in zip(steps, played(steps), strict=True):
        critical = {made.code for made in seen if made.severity is Severity.CRITICAL}

        assert critical <= {shown.code for shown in uncovered(visible)}


@given(problems)
def test_hiding_makes_nothing_healthy(seen: tuple[Problem, ...]) -> None:
    """A VM with a problem that hides stays unhealthy by the one that is shown."""
    assert healthy(uncovered(seen)) == healthy(seen)


@given(
    st.sampled_from([*sorted(code for code in PATIENCE if PATIENCE[code].kept), "xfrm-x"]),
    st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)), min_size=1, max_size=20),
)
def test_flapping_is_one_problem(code: str, turns: list[tuple[float, float]]) -> None:
    """One that comes back within the time for which it is kept has one `since`, and never goes."""
    now, steps = 1000.0, []
    for there, gone in turns:
        steps += [(now, (problem(code),)), (now + there * patience(code).kept, ())]
        now += (there + gone * (1 - there)) * patience(code).kept
    steps.append((now, (problem(code),)))

    shown = played(steps)

    first = next((n for n, visible in enumerate(shown) if visible), len(shown))
    assert all(len(visible) == 1 for visible in shown[first:])
    assert {visible[0].since for visible in shown[first:]} <= {1000.0}
    if now - 1000.0 >= patience(code).after:
        assert shown[-1]
