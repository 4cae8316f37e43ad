"""What ends charon again and again is named by how it ended."""

import pytest

from ipsec_agent.core.deaths import WINDOW, Death, how, most_common
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.problems.charon import charon_problems, keeps_ending
from ipsec_agent.core.problems.problem import Severity
from tests.configs import config

NOW = 10_000.0


def deaths(*statuses: int | None, every: float = 1.0) -> Observed:
    """What is seen after these deaths, the last of which was a second ago."""
    first = NOW - 1 - every * (len(statuses) - 1)
    died = tuple(Death(first + every * number, one) for number, one in enumerate(statuses))
    return Observed(deaths=died, time=NOW)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-9, "killed by SIGKILL"),
        (-11, "killed by SIGSEGV"),
        (-77, "killed by signal 77"),
        (0, "ended by itself with exit code 0"),
        (66, "ended by itself with exit code 66"),
        (None, "ended by something unknown"),
    ],
)
def test_words(status: int | None, words: str) -> None:
    """Each kind of end."""
    assert how(status) == words


def test_killed_again_and_again() -> None:
    """How, how often and in what time; the hint leads to who does that."""
    seen = deaths(*[-9] * 12, None)

    (problem,) = charon_problems(Desired(), seen)

    assert (problem.code, problem.severity) == ("charon-dies", Severity.ERROR)
    assert problem.message == "charon was killed by SIGKILL, 13 times in 12 s"
    assert problem.hint.startswith("look for the OOM killer")


@pytest.mark.parametrize("status", [-11, -15, 2, None])
def test_each_cause_has_its_own_hint(status: int | None) -> None:
    """A fault of charon's is no OOM killer."""
    (problem,) = charon_problems(Desired(), deaths(status, status, status))

    assert how(status) in problem.message
    assert "OOM" not in problem.hint


def test_an_accident_is_none() -> None:
    """Two deaths, or three in the course of an hour, are told by `charon-down` alone."""
    assert not keeps_ending(deaths(-9, -9))
    assert not keeps_ending(deaths(-9, -9, -9, every=WINDOW))
    assert keeps_ending(deaths(-9, -9, -9))


def test_why_it_is_down() -> None:
    """While it is gone, that is said with it; nobody is left to guess."""
    wanted = Desired(credentials=config().credentials)

    (once,) = charon_problems(wanted, deaths(-9))
    (never,) = charon_problems(wanted, deaths())

    assert once.message.startswith("charon is not running (it was killed by SIGKILL);")
    assert never.message.startswith("charon is not running; no new SA")


def test_the_most_common() -> None:
    """The one that the agent itself did not see decides nothing."""
    assert most_common([Death(1, None), Death(2, None), Death(3, -6)]) == -6
    assert most_common([Death(1, None)]) is None
