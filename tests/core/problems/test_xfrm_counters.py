"""The kernel's counters: each is explained, what is usual alarms nobody, what goes on does."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.problems.xfrm_counters import (
    APART,
    MEANINGS,
    WINDOW,
    Memory,
    Rise,
    code,
    problems,
    risen,
    watched,
)


def counted(**counts: int) -> tuple[tuple[str, int], ...]:
    """Counters by name."""
    return tuple(counts.items())


def test_risen() -> None:
    """Only what rose, by how much, in how long."""
    before = counted(XfrmInNoStates=5, XfrmInHdrError=1)
    after = counted(XfrmInNoStates=25, XfrmInHdrError=1, XfrmOutError=2)

    assert risen(before, after, 10) == (
        Rise("XfrmInNoStates", 20, 10),
        Rise("XfrmOutError", 2, 10),
    )


def test_reset() -> None:
    """A counter that fell began at 0 again; what it shows now is new."""
    assert risen(counted(XfrmInError=100), counted(XfrmInError=3), 1) == (
        Rise("XfrmInError", 3, 1),
    )


def test_problem() -> None:
    """A rise says its counter, how much, and what it means here."""
    (found,) = problems((Rise("XfrmInNoStates", 120, 30),))

    assert (found.code, found.severity) == ("xfrm-in-no-states", Severity.WARNING)
    assert found.message.startswith("XfrmInNoStates rose by 120 in 30 s: a peer sends ESP for")
    assert found.hint


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("XfrmOutNoStates", 30),
        ("XfrmInNoStates", 10),
        ("XfrmInTmplMismatch", 10),
        ("XfrmInStateSeqError", 100),
    ],
)
def test_usual(name: str, usual: int) -> None:
    """The first packets to a peer, and those that a new SA overtakes, are nothing to speak of."""
    assert problems((Rise(name, usual, 30),)) == ()
    assert len(problems((Rise(name, usual + 1, 30),))) == 1


@pytest.mark.parametrize(
    "name", ["XfrmOutNoStates", "XfrmAcquireError", "XfrmInStateInvalid", "XfrmOutPolDead"]
)
def test_no_alarm(name: str) -> None:
    """What every negotiation and rekeying causes leaves the VM healthy, however much it is."""
    (found,) = problems((Rise(name, 10_000, 30),))

    assert found.severity is Severity.INFO


def test_rate() -> None:
    """Over a longer time more is usual: passes may be 5 minutes apart."""
    assert problems((Rise("XfrmInNoStates", 100, 300),)) == ()
    assert len(problems((Rise("XfrmInNoStates", 101, 300),))) == 1


def test_unknown() -> None:
    """A counter of a newer kernel is shown, too, with the way to its meaning."""
    (found,) = problems((Rise("XfrmInOfTomorrow", 1, 30),))

    assert found.code == "xfrm-in-of-tomorrow"
    assert "xfrm_proc.rst" in found.hint


def test_every_counter_is_explained() -> None:
    """Each counter of the kernel that runs here has its meaning."""
    path = Path("/proc/net/xfrm_stat")
    if not path.exists():
        pytest.skip("this kernel keeps no counters")
    names = [line.split()[0] for line in path.read_text().splitlines()]

    assert names
    assert [name for name in names if name not in MEANINGS] == []
    assert len({code(name) for name in MEANINGS}) == len(MEANINGS)


def test_watched() -> None:
    """A rise is seen until WINDOW after it, from then on no more."""
    memory: Memory = ()
    seen = []
    for now in range(0, 80, 10):
        counters = counted(XfrmInError=0 if now < 20 else 7)
        rises, memory = watched(counters, memory, now)
        seen.append((now, sum(rise.packets for rise in rises)))

    assert seen == [(0, 0), (10, 0), (20, 7), (30, 7), (40, 7), (50, 0), (60, 0), (70, 0)]


def test_first_pass() -> None:
    """What was counted before the agent began has not risen."""
    rises, _ = watched(counted(XfrmInError=9), (), 100)

    assert rises == ()


def test_unread() -> None:
    """A pass that could not read the counters forgets nothing."""
    _, memory = watched(counted(XfrmInError=1), (), 100)

    rises, memory = watched((), memory, 105)
    later, _ = watched(counted(XfrmInError=3), memory, 110)

    assert rises == ()
    assert later == (Rise("XfrmInError", 2, 10),)


def test_small_memory() -> None:
    """Twenty passes a second, as events cause them, are not all remembered."""
    memory: Memory = ()
    for step in range(2000):
        _, memory = watched(counted(XfrmInError=step), memory, step / 20)

    assert len(memory) <= WINDOW / APART + 2


@given(st.lists(st.tuples(st.floats(0.01, 20), st.integers(0, 5)), min_size=2, max_size=60))
def test_nothing_is_lost(passes: list[tuple[float, int]]) -> None:
    """Every packet of the last WINDOW is in the rise, however passes fall; the memory is small."""
    memory: Memory = ()
    now, total = 0.0, 0
    history = []
    rises: tuple[Rise, ...] = ()
    for gap, more in passes:
        now, total = now + gap, total + more
        history.append((now, more))
        rises, memory = watched(counted(XfrmInError=total), memory, now)

    first = history[0][0]
    recent = sum(more for when, more in history if when > max(now - WINDOW, first))
    assert sum(rise.packets for rise in rises) >= recent
    assert len(memory) <= WINDOW / APART + 2
